//! Clients: one HTTP request, a connection that is kept, one UDP question. Blocking, with short timeouts.
//!
//! Call them inside [`Netns::run`](crate::netns::Netns::run).

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::http::{Head, exchange, invalid};
use crate::require;
use crate::server::{checksum, pattern};

/// How long one step (connect, read) may take before it counts as silence. A lost SYN is sent again after 1 s.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// [`PATIENCE`] on this machine.
fn patience() -> Duration {
    PATIENCE * require::slowness()
}

/// What a backend says: who it is and whom it sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The backend's name.
    pub backend: String,
    /// The client's address as the backend sees it.
    pub peer: SocketAddr,
}

impl Answer {
    /// From `<backend> <peer address:port>`.
    ///
    /// # Errors
    /// If the text is something else.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(text);
        let parsed = text
            .trim_end()
            .split_once(' ')
            .and_then(|(backend, peer)| Some((backend, peer.parse().ok()?)));
        let (backend, peer) = parsed.ok_or_else(|| invalid(format!("not an answer: {text:?}")))?;
        Ok(Self {
            backend: backend.to_owned(),
            peer,
        })
    }
}

/// One HTTP connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// As the kernel says; [`ErrorKind::TimedOut`] after [`PATIENCE`].
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        Self::prepare(TcpStream::connect_timeout(&target, patience())?)
    }

    /// As [`Connection::open`], from an address and port of one's own, which any number of connections to others may use at
    /// a time. It ends with a RST, which leaves nothing behind that would keep the port.
    ///
    /// # Errors
    /// As [`Connection::open`], and if the port is not to be had.
    pub fn open_from(source: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        // A socket that was closed a moment ago is still held by the processes that other tests start just now.
        let start = Instant::now();
        while let Err(error) = socket.bind(&source.into()) {
            if error.kind() != io::ErrorKind::AddrInUse || start.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        socket.connect_timeout(&target.into(), patience())?;
        Self::prepare(socket.into())
    }

    fn prepare(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience()))?;
        stream.set_write_timeout(Some(patience()))?;
        stream.set_nodelay(true)?;
        Ok(stream.into())
    }

    /// The connection's own address.
    ///
    /// # Errors
    /// If it is closed.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    /// The largest segment that the other side lets us send.
    ///
    /// # Errors
    /// If it is closed.
    pub fn segment_size(&self) -> io::Result<u32> {
        socket2::SockRef::from(self.stream.get_ref()).tcp_mss()
    }

    /// `GET /`: who answers?
    ///
    /// # Errors
    /// If the connection breaks, or the answer is no answer. [`ErrorKind::BrokenPipe`]: the server ended the connection
    /// in order, and said nothing to this request.
    pub fn ask(&mut self) -> io::Result<Answer> {
        Answer::parse(&self.get("/")?)
    }

    /// `GET` of a path: the body.
    ///
    /// # Errors
    /// If the connection breaks, or the status is not 200.
    pub fn get(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"), &[])
    }

    /// Downloads `length` bytes and compares them with what the server should send.
    ///
    /// # Errors
    /// If the connection breaks, or a byte differs.
    pub fn download(&mut self, length: usize) -> io::Result<()> {
        let body = self.get(&format!("/bytes/{length}"))?;
        if body == pattern(length) {
            Ok(())
        } else {
            Err(invalid("the download differs from what was sent"))
        }
    }

    /// As [`Connection::download`], by pieces of `piece` bytes; `rest` is called after each and says whether to go on
    /// (else the connection is not good for anything any more).
    ///
    /// # Errors
    /// As [`Connection::download`].
    pub fn download_by_pieces(
        &mut self,
        length: usize,
        piece: usize,
        mut rest: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let request = format!("GET /bytes/{length} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let head = Head::read(&mut self.stream)?;
        if !head.status.starts_with("HTTP/1.1 200") || head.length != length {
            return Err(invalid(format!("{:?}, {} bytes", head.status, head.length)));
        }
        let mut buffer = vec![0; piece];
        for expected in pattern(length).chunks(piece) {
            let got = &mut buffer[..expected.len()];
            self.stream.read_exact(got)?;
            if got != expected {
                return Err(invalid("the download differs from what was sent"));
            }
            if !rest() {
                break;
            }
        }
        Ok(())
    }

    /// Uploads `length` bytes and compares the server's checksum of them with ours.
    ///
    /// # Errors
    /// If the connection breaks, or the checksums differ.
    pub fn upload(&mut self, length: usize) -> io::Result<()> {
        let body = pattern(length);
        let head = format!("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
        let answer = self.request(&head, &body)?;
        let expected = format!("{length} {:016x}\n", checksum(&body));
        if answer == expected.as_bytes() {
            return Ok(());
        }
        Err(invalid(format!(
            "the server got {:?}, not {expected:?}",
            String::from_utf8_lossy(&answer)
        )))
    }

    /// Waits for the other side to end or reset the connection; `Ok` says it ended it in order.
    ///
    /// # Errors
    /// What the kernel reports, [`ErrorKind::ConnectionReset`] for a RST; [`ErrorKind::WouldBlock`] if nothing came.
    pub fn wait_end(&mut self, patience: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(invalid("data instead of an end")),
        }
    }

    fn request(&mut self, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        exchange(&mut self.stream, head, body)
    }
}

/// `GET` of a path on a Unix socket: the body.
///
/// # Errors
/// If nobody listens, or the status is not 200.
pub fn get_local(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    get_local_within(socket, path, patience())
}

/// As [`get_local`], from a server that may take this long for each piece of its answer.
///
/// # Errors
/// As [`get_local`]; [`ErrorKind::WouldBlock`] for silence.
pub fn get_local_within(socket: &Path, path: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    exchange(
        &mut BufReader::new(stream),
        &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"),
        &[],
    )
}

/// `GET /` on a new connection.
///
/// # Errors
/// As [`Connection::open`] and [`Connection::ask`].
pub fn get(target: SocketAddr) -> io::Result<Answer> {
    Connection::open(target)?.ask()
}

/// One UDP question on a new socket.
///
/// # Errors
/// [`ErrorKind::ConnectionRefused`] for an ICMP port unreachable, [`ErrorKind::WouldBlock`] for silence.
pub fn ask_udp(target: SocketAddr) -> io::Result<Answer> {
    Udp::open(target)?.ask(Duration::from_secs(2))
}

/// Ports of [`Udp`]: none that the kernel chooses from, nor of any server here.
const OWN_PORTS: Range<u16> = 10_000..20_000;
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A UDP socket that keeps its port.
#[derive(Debug)]
pub struct Udp(UdpSocket);

impl Udp {
    /// A socket that speaks to `target` alone, from a port that no other of this process had before, as long as there are
    /// such: the kernel's choice is random and soon repeats itself, and who asks another node from a port whose last flow
    /// is still known there is rightly shown to the backend under another one.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        let mut source = any_of(target);
        let socket = loop {
            source.set_port(OWN_PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % OWN_PORTS.len() as u16);
            match UdpSocket::bind(source) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                other => break other?,
            }
        };
        socket.connect(target)?;
        Ok(Self(socket))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// As [`ask_udp`].
    pub fn ask(&self, patience: Duration) -> io::Result<Answer> {
        self.0.send(b"who\n")?;
        self.0.set_read_timeout(Some(patience))?;
        let mut buffer = [0; 512];
        let length = self.0.recv(&mut buffer)?;
        Answer::parse(&buffer[..length])
    }

    /// Its own address.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Sends one echo request and waits for its reply: the time that took.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] if none comes.
pub fn ping(target: IpAddr, patience: Duration) -> io::Result<Duration> {
    let (domain, protocol, request, reply) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    let start = Instant::now();
    // The kernel fills in checksum and identifier, and hands us the reply to this identifier alone.
    let message = [&[request, 0, 0, 0, 0, 0, 0, 1][..], b"is anybody there?"].concat();
    socket.send(&message)?;
    let mut buffer = [0; 256];
    let length = (&socket).read(&mut buffer)?;
    let elapsed = start.elapsed();
    if buffer[0] == reply && buffer[8..length] == message[8..] {
        return Ok(elapsed);
    }
    Err(invalid(format!("not an echo reply: {:?}", &buffer[..length])))
}

/// Counts who answered; an error is counted under its text.
pub fn tally(answers: impl IntoIterator<Item = io::Result<Answer>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        let name = answer.map_or_else(|error| format!("error: {error}"), |answer| answer.backend);
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

/// The unspecified address of the target's family, any port.
pub(crate) fn any_of(target: SocketAddr) -> SocketAddr {
    match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

impl From<TcpStream> for Connection {
    /// A stream that was connected by other means; it keeps its timeouts.
    fn from(stream: TcpStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }
}
