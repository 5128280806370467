//! Clients: one HTTP request, a connection that is kept, one UDP question. Blocking, with short timeouts.
//!
//! Call them inside [`Netns::run`](crate::netns::Netns::run).

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::server::{checksum, pattern};

/// How long one step (connect, read) may take before it counts as silence. A lost SYN is sent again after 1 s.
pub const PATIENCE: Duration = Duration::from_secs(5);

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
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
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
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(
        &mut BufReader::new(stream),
        &format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"),
        &[],
    )
}

/// One request and its answer: the body, if the status is 200.
fn exchange<S: Read + Write>(stream: &mut BufReader<S>, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut message = head.as_bytes().to_vec();
    message.extend_from_slice(body);
    stream.get_mut().write_all(&message)?;
    let Head {
        status,
        length,
        chunked,
    } = Head::read(stream)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if chunked {
        read_chunks(stream, &mut body)?;
    }
    if status.starts_with("HTTP/1.1 200") {
        Ok(body)
    } else {
        Err(invalid(format!(
            "status {:?}: {}",
            status.trim_end(),
            String::from_utf8_lossy(&body).trim_end()
        )))
    }
}

/// What comes before the body of an answer.
struct Head {
    status: String,
    /// Bytes of the body; 0 if it comes in chunks.
    length: usize,
    chunked: bool,
}

impl Head {
    fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        if stream.fill_buf()?.is_empty() {
            return Err(io::Error::new(
                ErrorKind::BrokenPipe,
                "the server ended the connection instead of answering",
            ));
        }
        let status = read_line(stream)?;
        let mut length = 0;
        let mut chunked = false;
        loop {
            let line = read_line(stream)?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value
                    .parse()
                    .map_err(|_| invalid(format!("content-length {value:?}")))?;
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked");
        }
        Ok(Self {
            status,
            length,
            chunked,
        })
    }
}

/// One line of the head, or of what is between chunks, without its end.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// A body in chunks, each behind a line with its length; the last is empty.
fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| invalid(format!("chunk of length {line:?}")))?;
        let start = body.len();
        body.resize(start + length, 0);
        stream.read_exact(&mut body[start..])?;
        read_line(stream)?;
        if length == 0 {
            return Ok(());
        }
    }
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

/// A UDP socket that keeps its port.
#[derive(Debug)]
pub struct Udp(UdpSocket);

impl Udp {
    /// A socket that speaks to `target` alone.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(any_of(target))?;
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

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message.into())
}

impl From<TcpStream> for Connection {
    /// A stream that was connected by other means; it keeps its timeouts.
    fn from(stream: TcpStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let mut body = Vec::new();
        let mut text: &[u8] = b"4\r\nabcd\r\na\r\n0123456789\r\n0\r\n\r\nrest";
        read_chunks(&mut text, &mut body).unwrap();
        assert_eq!((&body[..], text), (&b"abcd0123456789"[..], &b"rest"[..]));
        assert!(read_chunks(&mut &b"4\r\nab"[..], &mut body).is_err());
        assert!(read_chunks(&mut &b"x\r\n"[..], &mut body).is_err());
    }
}
