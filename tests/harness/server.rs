//! Backends: an HTTP server and a UDP server that say who they are and whom they see.
//!
//! | request | answer |
//! |---|---|
//! | `GET /`, any UDP datagram | `<backend> <client address:port>` |
//! | `GET /bytes/N` | N bytes of [`pattern`] |
//! | `POST /upload` | `<length> <checksum>` of the body |
//! | `GET /slow/MS` | as `/`, after that many milliseconds |
//! | `GET /local` | `<backend> <address:port that the client reached, as the backend sees it>` |

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;

use crate::netns::Netns;

/// One backend's servers, on TCP and UDP of one port, on every address given. Dropped, they end and their connections
/// with them.
#[derive(Debug)]
pub struct Server(Option<Runtime>);

impl Server {
    /// Starts serving as `name` inside `netns`.
    ///
    /// # Errors
    /// If an address or the port is not to be had.
    pub fn start(netns: &Netns, name: &str, addresses: &[IpAddr], port: u16) -> Result<Self> {
        let bind = || -> std::io::Result<Vec<_>> {
            let sockets = addresses.iter().map(|address| {
                let address = SocketAddr::new(*address, port);
                Ok((
                    std::net::TcpListener::bind(address)?,
                    std::net::UdpSocket::bind(address)?,
                ))
            });
            sockets.collect()
        };
        let sockets = netns
            .run(bind)
            .with_context(|| format!("serve as {name} on {addresses:?} port {port}"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("backend {name}"))
            .enable_all()
            .build()?;
        for (tcp, udp) in sockets {
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            let _context = runtime.enter();
            let listener = TcpListener::from_std(tcp)?;
            runtime.spawn(answer_tcp(name.to_owned(), listener, std::future::pending()));
            runtime.spawn(answer_udp(name.to_owned(), UdpSocket::from_std(udp)?));
        }
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// The bytes of a download or upload. No part of it repeats at a power of two, so that misplaced segments show.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index % 251) as u8 ^ (index / 65_521) as u8)
        .collect()
}

/// The checksum that `/upload` answers.
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let peer = *stream.remote_addr();
        // Only a socket that is no more has no address.
        let local = stream.io().local_addr().unwrap_or(peer);
        Self { peer, local }
    }
}

/// Serves HTTP as `name` until `stop` is ready: then it takes no more connections, ends those that are idle, and says
/// in its last answers on the others that it closes them.
///
/// # Errors
/// If the listener breaks.
pub async fn answer_tcp(
    name: String,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = router(&name).into_make_service_with_connect_info::<Ends>();
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

fn router(name: &str) -> Router {
    Router::new()
        .route("/", get(who))
        .route("/local", get(local))
        .route("/slow/{milliseconds}", get(slow))
        .route(
            "/bytes/{length}",
            get(|Path(length): Path<usize>| async move { pattern(length) }),
        )
        .route(
            "/upload",
            post(|body: Bytes| async move { format!("{} {:016x}\n", body.len(), checksum(&body)) }),
        )
        .layer(DefaultBodyLimit::disable())
        .with_state(name.to_owned())
}

async fn who(State(name): State<String>, ConnectInfo(ends): ConnectInfo<Ends>) -> String {
    format!("{name} {}\n", ends.peer)
}

async fn local(State(name): State<String>, ConnectInfo(ends): ConnectInfo<Ends>) -> String {
    format!("{name} {}\n", ends.local)
}

async fn slow(name: State<String>, ends: ConnectInfo<Ends>, Path(milliseconds): Path<u64>) -> String {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    who(name, ends).await
}

/// Answers datagrams as `name`, for ever.
pub async fn answer_udp(name: String, socket: UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error about an earlier answer comes back as an error here: not ours to mind.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(format!("{name} {peer}\n").as_bytes(), peer).await;
        }
    }
}
