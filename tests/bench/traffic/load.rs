//! Clients of the bench: one thread on one CPU that keeps some connections busy for a while.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::serve::{ANSWER, CHUNK, DOWNLOAD, KEEP, ONCE, REQUEST, Server, UPLOAD, wake_for_bulk};

/// Connections that are busy at once.
const BUSY: usize = 16;
/// Bulk transfers at once.
const BULK: usize = 4;
/// How often a turn of them begins anew.
const SITTINGS: u32 = 3;
/// UDP sockets, a flow each.
const SOCKETS: usize = 64;
/// Datagrams that are sent at once.
const BURST: usize = 32;
/// Payload of a datagram.
const DATAGRAM: usize = 18;
/// After which silence is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests a second over connections that stay, and how many were answered in all.
///
/// # Errors
/// If a connection fails.
pub(crate) fn keep_alive(target: SocketAddr, time: Duration) -> Result<(f64, u64)> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let mut streams = Vec::new();
    for index in 0..BUSY {
        let mut stream = connect(target)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        stream.write_all(&[KEEP; REQUEST])?;
        streams.push((stream, 0));
    }
    let mut buffer = [0; 4096];
    let mut all = 0;
    let mut meter = Meter::new(time);
    while meter.goes_on() {
        for index in ready(&epoll)? {
            let (stream, got) = &mut streams[index];
            *got += read(stream, &mut buffer)?;
            while *got >= ANSWER {
                *got -= ANSWER;
                all += 1;
                meter.count(1);
                stream.write_all(&[KEEP; REQUEST])?;
            }
        }
    }
    Ok((meter.rate(), all))
}

/// Connections a second: connect, ask, be answered, end.
///
/// # Errors
/// If a connection fails.
pub(crate) fn connections(target: SocketAddr, time: Duration) -> Result<f64> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    for index in 0..BUSY {
        streams.push(Some(begin(&epoll, target, index)?));
    }
    let mut buffer = [0; 4096];
    let mut meter = Meter::new(time);
    while meter.goes_on() {
        let mut events = [EpollEvent::empty(); BUSY];
        let count = wait(&epoll, &mut events)?;
        for event in &events[..count] {
            let index = event.data() as usize;
            let stream = streams[index].as_mut().context("a stream")?;
            if event.events().contains(EpollFlags::EPOLLOUT) {
                if let Some(error) = stream.take_error()? {
                    return Err(error).context("connect");
                }
                stream.write_all(&[ONCE; REQUEST])?;
                epoll.modify(&*stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
                continue;
            }
            // The server ends the connection: its own TIME_WAIT holds no port of ours.
            if stream.read(&mut buffer)? == 0 {
                meter.count(1);
                streams[index] = None;
                streams[index] = Some(begin(&epoll, target, index)?);
            }
        }
    }
    Ok(meter.rate())
}

fn begin(epoll: &Epoll, target: SocketAddr, index: usize) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => {
            return Err(error).context("connect");
        }
        _ => {}
    }
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLOUT, index as u64))?;
    Ok(socket.into())
}

/// How long one request takes on a connection that stays, in microseconds: half, 99 % and 99.9 % take less.
///
/// # Errors
/// If the connection fails.
pub(crate) fn latency(target: SocketAddr, time: Duration) -> Result<[f64; 3]> {
    let mut stream = connect(target)?;
    let mut buffer = [0; ANSWER];
    let mut times = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        stream.write_all(&[KEEP; REQUEST])?;
        stream.read_exact(&mut buffer)?;
        times.push(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    Ok(percentiles(times))
}

/// The values that 50 %, 99 % and 99.9 % are not above.
///
/// # Panics
/// Without values.
pub(crate) fn percentiles(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [0.5, 0.99, 0.999].map(|share| times[((times.len() as f64 * share) as usize).min(times.len() - 1)])
}

/// Bits a second to the server (`up`) or from it, over some connections, and the bytes of it all. The time is shared by
/// some sittings with connections of their own: which CPU takes up what work is settled anew with each.
///
/// # Errors
/// If a connection fails.
pub(crate) fn bulk(target: SocketAddr, time: Duration, up: bool) -> Result<(f64, u64)> {
    let (mut rates, mut all) = (0.0, 0);
    for _ in 0..SITTINGS {
        let (rate, bytes) = sitting(target, time / SITTINGS, up)?;
        rates += rate;
        all += bytes;
    }
    Ok((rates / f64::from(SITTINGS) * 8.0, all))
}

/// Bytes a second over some connections, and the bytes of it all.
fn sitting(target: SocketAddr, time: Duration, up: bool) -> Result<(f64, u64)> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let mut streams = Vec::new();
    let interest = if up { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
    for index in 0..BULK {
        let mut stream = connect(target)?;
        // What is under way at the end must not run into the next turn.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        if !up {
            wake_for_bulk(&stream)?;
        }
        stream.write_all(&[if up { UPLOAD } else { DOWNLOAD }; REQUEST])?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(interest, index as u64))?;
        streams.push(stream);
    }
    let mut buffer = vec![UPLOAD; CHUNK];
    let mut all = 0;
    let mut meter = Meter::new(time);
    while meter.goes_on() {
        for index in ready(&epoll)? {
            let stream = &mut streams[index];
            let done = if up {
                stream.write(&buffer)
            } else {
                stream.read(&mut buffer)
            };
            match done {
                Ok(0) => bail!("the server ended a transfer"),
                Ok(length) => {
                    all += length as u64;
                    meter.count(length as u64);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok((meter.rate(), all))
}

/// Datagrams a second that arrive, and the share of those sent that does not.
///
/// # Errors
/// If none can be sent.
pub(crate) fn datagrams(target: SocketAddr, time: Duration, servers: &[&Server]) -> Result<(f64, f64)> {
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(target)?;
        sockets.push(socket);
    }
    let payload = [UPLOAD; DATAGRAM];
    let slices = vec![[IoSlice::new(&payload)]; BURST];
    let to: Vec<Option<SockaddrStorage>> = vec![None; BURST];
    let mut headers = MultiHeaders::preallocate(BURST, None);
    let mut send = |until: Instant| -> Result<u64> {
        let mut sent = 0;
        while Instant::now() < until {
            for socket in &sockets {
                let done = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &to, [], MsgFlags::empty());
                sent += done.context("sendmmsg")?.count() as u64;
            }
        }
        Ok(sent)
    };
    let received = || servers.iter().map(|server| server.received()).sum::<u64>();
    // The first of each flow, which is opened by it.
    send(Instant::now() + time / 10)?;
    std::thread::sleep(Duration::from_millis(5));
    let (before, start) = (received(), Instant::now());
    let sent = send(start + time)?;
    let elapsed = start.elapsed();
    std::thread::sleep(Duration::from_millis(5));
    let arrived = received() - before;
    ensure!(arrived > 0, "no datagram arrives");
    Ok((
        arrived as f64 / elapsed.as_secs_f64(),
        1.0 - arrived as f64 / sent as f64,
    ))
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE).with_context(|| format!("connect to {target}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    match stream.read(buffer) {
        Ok(0) => bail!("the server ended a connection"),
        Ok(length) => Ok(length),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn ready(epoll: &Epoll) -> Result<Vec<usize>> {
    let mut events = [EpollEvent::empty(); BUSY];
    let count = wait(epoll, &mut events)?;
    Ok(events[..count].iter().map(|event| event.data() as usize).collect())
}

fn wait(epoll: &Epoll, events: &mut [EpollEvent]) -> Result<usize> {
    match epoll.wait(events, EpollTimeout::from(PATIENCE.as_millis() as u16)) {
        Ok(0) => Err(io::Error::from(ErrorKind::TimedOut)).context("silence"),
        Ok(count) => Ok(count),
        Err(nix::errno::Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Counts what happens between the end of a short beginning and the end.
struct Meter {
    begun: Instant,
    warm: Duration,
    time: Duration,
    measured: Option<Instant>,
    count: u64,
}

impl Meter {
    fn new(time: Duration) -> Self {
        Self {
            begun: Instant::now(),
            warm: time / 5,
            time,
            measured: None,
            count: 0,
        }
    }

    fn goes_on(&mut self) -> bool {
        let now = Instant::now();
        match self.measured {
            None if now - self.begun >= self.warm => {
                self.measured = Some(now);
                self.count = 0;
                true
            }
            None => true,
            Some(since) => now - since < self.time,
        }
    }

    fn count(&mut self, much: u64) {
        self.count += much;
    }

    fn rate(&self) -> f64 {
        self.measured
            .map_or(0.0, |since| self.count as f64 / since.elapsed().as_secs_f64())
    }
}
