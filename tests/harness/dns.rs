//! A DNS client of one question, UDP or TCP, and an upstream server that knows one name.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::client::any_of;
use crate::netns::Netns;

const PATIENCE: Duration = Duration::from_secs(5);

/// An answer, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// NOERROR, NXDOMAIN ...
    pub code: ResponseCode,
    /// The data of the answer section, sorted: addresses, or names of PTR records.
    pub data: Vec<String>,
    /// Time to live of the first record.
    pub ttl: Option<u32>,
    /// The answer did not fit.
    pub truncated: bool,
}

/// Asks `server` over UDP.
///
/// # Errors
/// If no answer comes, or one that is malformed or answers something else.
pub fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<Reply> {
    let question = question(name, kind)?;
    let socket = UdpSocket::bind(any_of(server))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&question.to_vec()?)?;
    let mut buffer = [0; 4096];
    let length = socket
        .recv(&mut buffer)
        .with_context(|| format!("answer of {server} to {name} {kind}"))?;
    reply(&question, &buffer[..length])
}

/// Asks `server` over TCP.
///
/// # Errors
/// As [`ask`].
pub fn ask_tcp(server: SocketAddr, name: &str, kind: RecordType) -> Result<Reply> {
    let question = question(name, kind)?;
    let bytes = question.to_vec()?;
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut framed = u16::try_from(bytes.len())?.to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut buffer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut buffer)?;
    reply(&question, &buffer)
}

/// Asks for the name of an address.
///
/// # Errors
/// As [`ask`].
pub fn ask_pointer(server: SocketAddr, address: IpAddr) -> Result<Reply> {
    ask(server, &Name::from(address).to_ascii(), RecordType::PTR)
}

fn question(name: &str, kind: RecordType) -> Result<Message> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    Ok(message)
}

fn reply(question: &Message, bytes: &[u8]) -> Result<Reply> {
    let message = Message::from_vec(bytes)?;
    ensure!(message.metadata.message_type == MessageType::Response, "not a response");
    ensure!(
        message.metadata.id == question.metadata.id,
        "the id of another question"
    );
    ensure!(message.queries == question.queries, "answers {:?}", message.queries);
    let mut data: Vec<_> = message.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    Ok(Reply {
        code: message.metadata.response_code,
        data,
        ttl: message.answers.first().map(|record| record.ttl),
        truncated: message.metadata.truncation,
    })
}

/// A server for names that the agents do not know, UDP and TCP. Ends on drop.
#[derive(Debug)]
pub struct Upstream(Arc<AtomicBool>);

impl Upstream {
    /// Answers every question for an A record of `name` with `address`, all else with NXDOMAIN.
    ///
    /// # Errors
    /// If the address to listen on is not to be had.
    pub fn start(netns: &Netns, listen: SocketAddr, name: &str, address: Ipv4Addr) -> Result<Self> {
        let name = Name::from_ascii(name)?;
        let bind = || io::Result::Ok((UdpSocket::bind(listen)?, TcpListener::bind(listen)?));
        let (udp, tcp) = netns.run(bind).with_context(|| format!("listen on {listen}"))?;
        udp.set_read_timeout(Some(Duration::from_millis(20)))?;
        tcp.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A timeout, to look at the flag and at TCP, or an ICMP error about an earlier answer.
                let _ = serve_udp(&udp, &name, address);
                if let Ok((stream, _)) = tcp.accept() {
                    let _ = serve_tcp(stream, &name, address);
                }
            }
        });
        Ok(Self(stop))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn serve_udp(socket: &UdpSocket, name: &Name, address: Ipv4Addr) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    socket.send_to(&answer(&buffer[..length], name, address)?, peer)?;
    Ok(())
}

fn serve_tcp(mut stream: TcpStream, name: &Name, address: Ipv4Addr) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut buffer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut buffer)?;
    let bytes = answer(&buffer, name, address)?;
    let framed = [&(bytes.len() as u16).to_be_bytes(), bytes.as_slice()].concat();
    stream.write_all(&framed)
}

fn answer(question: &[u8], name: &Name, address: Ipv4Addr) -> io::Result<Vec<u8>> {
    let question = Message::from_vec(question).map_err(io::Error::other)?;
    let known = question.queries.first().is_some_and(|query| query.name() == name);
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.queries.clone_from(&question.queries);
    if known && question.queries[0].query_type() == RecordType::A {
        answer.add_answer(Record::from_rdata(name.clone(), 60, RData::A(address.into())));
    } else if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.to_vec().map_err(io::Error::other)
}
