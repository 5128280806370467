//! [`Server`]: sends snapshots to the other nodes' agents and collects their reports.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::disk;
use super::frame::{self, Kind};
use super::message::{self, Hello, REPORT_MAX, Report, Reported, SMALL_MAX};
use super::patience::Patient;
use super::publish::{self, Published};
use super::remember::{REFRESH, Remembered};
use super::reports::Reports;
use super::seldom::Seldom;
use super::status::{Role, Source, StreamStatus};
use super::{Identity, Timing, View};
use crate::net::limits::Limit;

/// Connections whose peers are not known yet: in all, and from one address. Strangers can take these places, for
/// [`Timing::handshake`], and nothing else.
const HANDSHAKES: [usize; 2] = [256, 16];
/// Reports are looked through for old ones this often: at least, and at most.
const EXPIRY: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(60)];
/// After an accept failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// ID of this node in the cluster.
    pub node: String,
    /// Addresses with port. Port 0 takes any that is free.
    pub listen: Vec<SocketAddr>,
    /// Most connections.
    pub connections: usize,
    /// Who this agent is.
    pub identity: Arc<Identity>,
    /// Where the last reports are kept. `None`: nowhere.
    pub reports_file: Option<PathBuf>,
    /// Intervals.
    pub timing: Timing,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the stream between agents: {source}; see stream.listen")]
pub struct ServerError {
    address: SocketAddr,
    source: io::Error,
}

/// A running server. It ends when `stop` is cancelled.
pub struct Server {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

struct Shared {
    node: String,
    identity: Arc<Identity>,
    timing: Timing,
    published: watch::Receiver<Published>,
    reports: Reports,
    /// Why the reports are not on the disk.
    unwritten: watch::Receiver<Option<String>>,
    connections: usize,
    /// Connected nodes by number of the connection.
    connected: Mutex<BTreeMap<u64, String>>,
    count: AtomicU64,
    refusals: Seldom,
    overflow: Seldom,
}

impl Server {
    /// Binds all addresses and serves what `views` brings.
    ///
    /// Reading the disk blocks, for about as long as a small file takes.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn start(
        options: ServerOptions,
        views: watch::Receiver<Option<View>>,
        stop: &CancellationToken,
    ) -> Result<Self, ServerError> {
        let bound = options.listen.iter().map(|&address| {
            bind(address)
                .and_then(|listener| Ok((listener.local_addr()?, listener)))
                .map_err(|source| ServerError { address, source })
        });
        let (addresses, listeners): (Vec<_>, Vec<_>) = bound.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let (sender, published) = watch::channel(Published::new());
        let kept = match options.reports_file.as_deref().map(disk::load) {
            None | Some(Ok(None)) => Remembered::default(),
            Some(Ok(Some(kept))) => kept,
            Some(Err(error)) => {
                let path = options.reports_file.as_deref().unwrap_or_else(|| "".as_ref());
                warn!(target: "lb::stream", path = %path.display(), error,
                    "what nodes reported before cannot be used; they report anew when they connect");
                Remembered::default()
            }
        };
        let limit = options.connections.saturating_mul(2);
        let (problem, unwritten) = watch::channel(None);
        let shared = Arc::new(Shared {
            node: options.node,
            identity: options.identity,
            timing: options.timing,
            published,
            reports: Reports::new(options.timing.retain, limit, &kept),
            unwritten,
            connections: options.connections,
            connected: Mutex::default(),
            count: AtomicU64::new(1),
            refusals: Seldom::default(),
            overflow: Seldom::default(),
        });
        let (tasks, stop) = (TaskTracker::new(), stop.child_token());
        tasks.spawn(publish::run(views, sender, stop.clone()));
        tasks.spawn(expire(shared.clone(), stop.clone()));
        if let Some(path) = options.reports_file {
            let (keep, newest) = watch::channel(None);
            tasks.spawn(disk::keep(path, newest, problem, stop.clone()));
            tasks.spawn(remember(shared.clone(), keep, stop.clone()));
        }
        let handshakes = Limit::new(HANDSHAKES[0], HANDSHAKES[1]);
        for listener in listeners {
            let (shared, handshakes) = (shared.clone(), handshakes.clone());
            tasks.spawn(accept(listener, shared, handshakes, tasks.clone(), stop.clone()));
        }
        tasks.close();
        info!(target: "lb::stream", ?addresses, "cluster state is streamed");
        Ok(Self {
            addresses,
            shared,
            tasks,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Newest reports by node ID, also those of nodes that are away.
    pub fn reports(&self) -> watch::Receiver<BTreeMap<String, Reported>> {
        self.shared.reports.subscribe()
    }

    /// Takes note of this node's own report, as if it had come from there.
    pub fn report(&self, report: Report) {
        self.shared.reports.put_own(report);
    }

    /// How it goes.
    pub fn status(&self) -> StreamStatus {
        let published = self.shared.published.borrow().clone();
        let mut nodes: Vec<String> = self.shared.connected().values().cloned().collect();
        nodes.sort();
        nodes.dedup();
        StreamStatus {
            role: Role::Manager,
            source: match published.offer {
                Some(_) => Source::Engine,
                None => Source::Nothing,
            },
            age_ms: published.offer.is_some().then(|| published.head(Instant::now()).age_ms),
            managers: Vec::new(),
            nodes,
            reports: self.shared.reports.len() as u64,
            error: published.error.or_else(|| self.shared.unwritten.borrow().clone()),
        }
    }

    /// Waits for the end of all its connections, after `stop`.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // A restarted agent must not wait for its predecessor's closed connections.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(256)?;
    TcpListener::from_std(socket.into())
}

async fn expire(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(shared.timing.retain.div_f32(10.0).clamp(EXPIRY[0], EXPIRY[1]));
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        shared.reports.expire(Instant::now());
    }
}

/// Hands what has been reported to whoever keeps it.
async fn remember(shared: Arc<Shared>, keep: watch::Sender<Option<Remembered>>, stop: CancellationToken) {
    let mut reports = shared.reports.subscribe();
    let mut ticks = interval(REFRESH);
    loop {
        reports.mark_unchanged();
        let newest = shared.reports.remembered(SystemTime::now(), Instant::now());
        // No file, as long as there is nothing to keep.
        if !newest.is_empty() || keep.borrow().is_some() {
            keep.send_replace(Some(newest));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = reports.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
        }
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    handshakes: Arc<Limit>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(more) = shared.overflow.say(Instant::now()) {
                    warn!(target: "lb::stream", %error, more, "cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(permit) = handshakes.take(peer.ip().to_canonical()) else {
            if let Some(more) = shared.overflow.say(Instant::now()) {
                warn!(target: "lb::stream", %peer, more, "too many connections that do not say who they are");
            }
            continue;
        };
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn(async move {
            let known = stop.run_until_cancelled(shared.greet(tcp)).await;
            drop(permit);
            match known {
                None => {}
                Some(Ok((stream, hello))) => {
                    stop.run_until_cancelled(shared.serve(stream, hello, peer)).await;
                }
                Some(Err(error)) => {
                    if let Some(more) = shared.refusals.say(Instant::now()) {
                        warn!(target: "lb::stream", %peer, %error, more, "connection refused");
                    }
                }
            }
        });
    }
}

type Tls = Patient<tokio_rustls::server::TlsStream<TcpStream>>;

impl Shared {
    fn connected(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, String>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out who is there, in limited time.
    async fn greet(&self, tcp: TcpStream) -> Result<(Tls, Hello), String> {
        let greeting = async {
            tcp.set_nodelay(true).map_err(|error| error.to_string())?;
            let tls = TlsAcceptor::from(self.identity.sides().server)
                .accept(tcp)
                .await
                .map_err(|error| format!("the peer did not prove to be one of ours: {error}"))?;
            let mut stream = Patient::new(tls, self.timing.silence);
            let own = message::encode(&Hello::of(&self.node, true));
            frame::write(&mut stream, Kind::Hello, &own)
                .await
                .map_err(|error| error.to_string())?;
            let first = frame::read(&mut stream, SMALL_MAX)
                .await
                .map_err(|error| error.to_string())?;
            if first.kind != Kind::Hello {
                return Err("the peer does not begin with a greeting".into());
            }
            let hello: Hello = message::decode(&first.content)?;
            hello.check()?;
            Ok((stream, hello))
        };
        match timeout(self.timing.handshake, greeting).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "the peer did not say who it is within {}",
                humantime::format_duration(self.timing.handshake)
            )),
        }
    }

    /// Serves a peer that is known, until one side has had enough.
    async fn serve(&self, stream: Tls, hello: Hello, peer: SocketAddr) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let Some(_connected) = self.enter(number, &hello.node) else {
            if let Some(more) = self.overflow.say(Instant::now()) {
                warn!(target: "lb::stream", %peer, node = hello.node, more,
                    "no room for another node: raise stream.connections");
            }
            return;
        };
        info!(target: "lb::stream", %peer, node = hello.node, agent = hello.version, "node connected");
        let (reader, writer) = tokio::io::split(stream);
        let ended = tokio::select! {
            ended = self.receive(reader, number, &hello) => ended,
            ended = self.send(writer, hello.snapshots) => ended,
        };
        let why = ended.err().unwrap_or_default();
        info!(target: "lb::stream", %peer, node = hello.node, why, "node disconnected");
    }

    /// Takes a place among the connections.
    fn enter(&self, number: u64, node: &str) -> Option<Connected<'_>> {
        let mut connected = self.connected();
        if connected.len() >= self.connections {
            return None;
        }
        connected.insert(number, node.to_owned());
        Some(Connected { shared: self, number })
    }

    async fn receive(&self, mut reader: impl AsyncRead + Unpin, number: u64, hello: &Hello) -> Result<(), String> {
        loop {
            let frame = frame::read(&mut reader, REPORT_MAX)
                .await
                .map_err(|error| error.to_string())?;
            match frame.kind {
                Kind::Report => {
                    let report: Report = message::decode(&frame.content)?;
                    if report.node != hello.node {
                        return Err(format!("node {} reports for node {}", hello.node, report.node));
                    }
                    debug!(target: "lb::stream", ?report, "report");
                    self.reports.put(number, report);
                }
                Kind::Alive | Kind::Other(_) => {}
                Kind::Hello | Kind::Head | Kind::Snapshot => {
                    return Err(format!("a node does not send messages of kind {:?}", frame.kind));
                }
            }
        }
    }

    async fn send(&self, mut writer: impl AsyncWrite + Unpin, snapshots: bool) -> Result<(), String> {
        let mut published = self.published.clone();
        let mut ticks = interval(self.timing.alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let mut sent = 0;
        loop {
            // The newest one now: those that came while the last one was on its way are passed over.
            let newest = published.borrow_and_update().clone();
            let head = message::encode(&newest.head(Instant::now()));
            let mut result = frame::write(&mut writer, Kind::Head, &head).await;
            if let Some(offer) = newest.offer.as_ref()
                && result.is_ok()
                && snapshots
                && newest.generation() != sent
            {
                sent = newest.generation();
                result = frame::write(&mut writer, Kind::Snapshot, &offer.content).await;
            }
            result.map_err(|error| error.to_string())?;
            drop(newest);
            tokio::select! {
                changed = published.changed() => changed.map_err(|_| "the agent ends")?,
                _ = ticks.tick() => {}
            }
        }
    }
}

/// A place among the connections, until dropped.
struct Connected<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.shared.connected().remove(&self.number);
        self.shared.reports.end(self.number, Instant::now());
    }
}
