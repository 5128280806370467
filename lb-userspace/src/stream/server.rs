//! [`Server`]: sends snapshots to the other nodes' agents and collects their reports.

mod accept;
mod connection;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::disk;
use super::message::{Report, Reported};
use super::publish::{self, Published};
use super::remember::{REFRESH, Remembered};
use super::reports::Reports;
use super::seldom::Seldom;
use super::status::{Role, Source, StreamStatus};
use super::{Identity, Timing, View};
use crate::net::limits::Limit;
use crate::net::listen;
use accept::accept;

/// Connections whose peers are not known yet: in all, and from one address. Strangers can take these places, for
/// [`Timing::handshake`], and nothing else.
const HANDSHAKES: [usize; 2] = [256, 16];
/// Reports are looked through for old ones this often: at least, and at most.
const EXPIRY: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(60)];

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
            listen::tcp(address)
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

impl Shared {
    fn connected(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
