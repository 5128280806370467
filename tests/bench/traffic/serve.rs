//! [`Server`]: what clients of the bench speak to. One thread, so that it costs little and always the same.
//!
//! | first byte of a connection | what becomes of it |
//! |---|---|
//! | [`KEEP`] | every [`REQUEST`] bytes are answered with [`ANSWER`] |
//! | [`ONCE`] | the first request is answered, and the connection ended |
//! | [`UPLOAD`] | read and forgotten |
//! | [`DOWNLOAD`] | written to until it ends |
//!
//! Datagrams are counted.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lb_tests::netns::Netns;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::machine::pin;

pub(crate) const KEEP: u8 = b'k';
pub(crate) const ONCE: u8 = b'o';
pub(crate) const UPLOAD: u8 = b'u';
pub(crate) const DOWNLOAD: u8 = b'd';
/// Bytes of a request.
pub(crate) const REQUEST: usize = 64;
/// Bytes of its answer.
pub(crate) const ANSWER: usize = 256;
/// Bytes that are read or written at once.
pub(crate) const CHUNK: usize = 256 << 10;
/// How often a thread looks whether it should end.
const LOOK: u16 = 100;

/// Ends on drop.
#[derive(Debug)]
pub(crate) struct Server {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves TCP and UDP on these ports of an address, on one CPU.
    ///
    /// # Errors
    /// If a port is not to be had.
    pub(crate) fn start(netns: &Netns, address: IpAddr, ports: &[u16], cpu: usize) -> Result<Self> {
        let (received, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut listeners = Vec::new();
        let mut threads = Vec::new();
        for port in ports {
            let at = SocketAddr::new(address, *port);
            let open = || -> std::io::Result<_> { Ok((listen(at)?, UdpSocket::bind(at)?)) };
            let (tcp, udp) = netns.run(open).with_context(|| format!("serve on {at}"))?;
            tcp.set_nonblocking(true)?;
            udp.set_read_timeout(Some(Duration::from_millis(LOOK.into())))?;
            // Bursts of a sender on another CPU.
            drop(socket2::SockRef::from(&udp).set_recv_buffer_size(4 << 20));
            listeners.push(tcp);
            let (received, stop) = (received.clone(), stop.clone());
            threads.push(std::thread::spawn(move || {
                drop(pin(cpu));
                count(&udp, &received, &stop);
            }));
        }
        let stopped = stop.clone();
        threads.push(std::thread::spawn(move || {
            let served = pin(cpu).and_then(|()| serve(&listeners, &stopped));
            if let Err(error) = served {
                eprintln!("note: a server ended: {error:#}");
            }
        }));
        Ok(Self {
            received,
            stop,
            threads,
        })
    }

    /// Datagrams so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Its reader is woken for as much as it reads at once, not for every packet: a wake-up interrupts the other CPU, costs the
/// sender more than the packet, and is spared or not as the reader happens to be behind or ahead.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn wake_for_bulk(stream: &TcpStream) -> std::io::Result<()> {
    let bytes = CHUNK as libc::c_int;
    // SAFETY: the descriptor is open, and the kernel reads one `int`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// With room for many that come at once.
fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn count(socket: &UdpSocket, received: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if socket.recv(&mut buffer).is_ok() {
            received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// The first byte; 0: none yet.
    kind: u8,
    /// Bytes that no answer was given for.
    pending: usize,
}

fn serve(listeners: &[TcpListener], stop: &AtomicBool) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    for listener in listeners {
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, key(listener)))?;
    }
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        let count = match epoll.wait(&mut events, EpollTimeout::from(LOOK)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            if let Some(listener) = listeners.iter().find(|listener| key(*listener) == event.data()) {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let key = key(&stream);
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
                    let (kind, pending) = (0, 0);
                    connections.insert(key, Connection { stream, kind, pending });
                }
            } else if let Some(connection) = connections.get_mut(&event.data())
                && !connection.go_on(&epoll, &mut buffer)
            {
                // Closed, it leaves the epoll by itself.
                connections.remove(&event.data());
            }
        }
    }
    Ok(())
}

fn key(socket: &impl std::os::fd::AsRawFd) -> u64 {
    socket.as_raw_fd() as u64
}

impl Connection {
    /// Whether it stays open.
    fn go_on(&mut self, epoll: &Epoll, buffer: &mut [u8]) -> bool {
        if self.kind == DOWNLOAD {
            return match self.stream.write(buffer) {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
        }
        let length = match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        if self.kind == 0 {
            self.kind = buffer[0];
            if self.kind == UPLOAD && wake_for_bulk(&self.stream).is_err() {
                return false;
            }
        }
        match self.kind {
            UPLOAD => true,
            DOWNLOAD => {
                let mut event = EpollEvent::new(EpollFlags::EPOLLOUT, self.stream.as_raw_fd() as u64);
                epoll.modify(&self.stream, &mut event).is_ok()
            }
            kind => {
                self.pending += length;
                while self.pending >= REQUEST {
                    self.pending -= REQUEST;
                    if self.stream.write_all(&[kind; ANSWER]).is_err() {
                        return false;
                    }
                    if kind == ONCE {
                        return false;
                    }
                }
                true
            }
        }
    }
}
