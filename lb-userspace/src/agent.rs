//! Wires the parts of the agent together: provider to snapshot to tables and names, and reports about it.
//!
//! One loop does all writing. What it depends on (snapshot, interfaces, neighbours) is looked up each time, so a
//! missed event costs time and never correctness. When it ends, maps, programs and links stay.

mod carried;
mod containers;
#[cfg(test)]
mod fixtures;
mod lead;
mod loopback;
mod merge;
mod names;
mod outcome;
mod pace;
mod removal;
mod reported;
mod start;
mod status;
mod surroundings;
mod swarm;
mod sync;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::api;
use crate::config::{Config, LogFormat};
use crate::datapath::collect::Census;
use crate::datapath::layout;
use crate::dns::{DnsCounters, DnsHandle, Zone};
use crate::fault::{self, Point};
use crate::lifecycle::{self, Lock, Notifier};
use crate::model::snapshot::Snapshot;
use crate::net::memory;
use crate::plan::store::StoreError;
use crate::provider::ProviderState;
use crate::telemetry::logs;
use crate::telemetry::metrics::{Metrics, Reading};

use lead::Lead;
use outcome::Synchronised;
use pace::{Due, Pace, RESYNC};
pub use removal::uninstall;
use swarm::{News, Swarm};
use sync::{Basis, Depth, Synchronizer};

/// Next hops towards other nodes are kept resolved.
const WARM: Duration = Duration::from_secs(10);
/// Flows are walked through this often, when they are few.
const COLLECT: Duration = Duration::from_secs(5);
/// Connections of readers get this long at the end.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT. Maps, programs and links stay behind, so traffic goes on.
///
/// # Errors
/// If it cannot start. What fails later is reported and tried again.
pub async fn run(config: Config) -> Result<()> {
    let format = match config.log.format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    let _logs = logs::init(format, &config.log.level)?;
    let _lock = Lock::acquire(&config.paths.run)?;
    let directory = layout::versioned(&config.paths.bpffs);
    let mut pins = Lock::of_directory(&directory)?;
    // An agent of another version that still runs would write into the tables that this one takes over.
    let others = layout::others(&config.paths.bpffs).into_iter();
    let others = others.map(|(_, directory)| Lock::of_directory(&directory));
    let others = others.collect::<Result<Vec<_>, _>>()?;
    fault::here(Point::StartLocked);
    let stop = lifecycle::stop_on_signals()?;
    let agent = Agent::start(Arc::new(config), stop.clone()).await?;
    if pins.is_none() {
        pins = Lock::of_directory(&directory)?;
    }
    agent.run().await;
    drop((pins, others));
    Ok(())
}

/// Names in force: the zone, the server once it runs, and its counts.
struct Names {
    zone: Arc<ArcSwap<Zone>>,
    counters: Arc<DnsCounters>,
    server: Option<DnsHandle>,
}

struct Agent {
    config: Arc<Config>,
    stop: CancellationToken,
    tasks: TaskTracker,
    provider: watch::Receiver<ProviderState>,
    /// Where the provider is a Swarm.
    swarm: Option<Swarm>,
    /// Name of this node in the snapshot.
    node: Arc<str>,
    changed: Arc<Notify>,
    synchronizer: Synchronizer,
    census: mpsc::Receiver<Result<Census, StoreError>>,
    /// Asks the collector to walk at once; dropping it ends the collector.
    collector: std::sync::mpsc::Sender<()>,
    names: Names,
    lead: Lead,
    snapshot: watch::Sender<Arc<Snapshot>>,
    basis: Arc<ArcSwapOption<Basis>>,
    status: watch::Sender<api::Status>,
    metrics: Arc<Metrics>,
    notifier: Notifier,
    /// New flows went to the overflow tables when the flows were walked through last.
    pressed: bool,
    /// Of the last synchronisation.
    problems: Vec<String>,
}

impl Agent {
    async fn run(mut self) {
        let mut pace = Pace::new(Instant::now());
        let mut warm = tokio::time::interval(WARM);
        let mut watchdog = tokio::time::interval(Notifier::watchdog_interval().unwrap_or(RESYNC));
        let mut collecting = true;
        loop {
            let depth = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                changed = self.provider.changed() => {
                    if changed.is_err() {
                        tracing::error!(target: "lb::agent", "the provider has ended; the last state stays in force");
                        self.stop.cancelled().await;
                        break;
                    }
                    self.read();
                    Depth::Snapshot
                }
                news = news_of(&mut self.swarm) => {
                    let swarm = self.swarm.as_ref().map(Swarm::status);
                    self.status.send_modify(|status| status.swarm = swarm);
                    match news {
                        News::Containers => Depth::Changes,
                        News::Circumstances => continue,
                    }
                }
                () = self.changed.notified(), if !pace.looks() => {
                    pace.surroundings_changed(Instant::now());
                    continue;
                }
                () = tokio::time::sleep_until(pace.next().into()) => match pace.due(Instant::now()) {
                    Some(Due::Look) => Depth::Changes,
                    Some(Due::Lead) => Depth::Snapshot,
                    Some(Due::Retry | Due::Resync) => Depth::Full,
                    Some(Due::Tidy) => {
                        tokio::task::spawn_blocking(memory::give_back);
                        continue;
                    }
                    None => continue,
                },
                finished = self.synchronizer.finish(), if self.synchronizer.unfinished() => match finished {
                    Ok(()) => continue,
                    Err(error) => {
                        self.complain(&[format!("{error:#}")]);
                        Depth::Full
                    }
                },
                census = self.census.recv(), if collecting => {
                    collecting = census.is_some();
                    if let Some(census) = census {
                        self.counted(census);
                    }
                    continue;
                }
                _ = warm.tick() => {
                    self.keep_warm();
                    continue;
                }
                _ = watchdog.tick() => {
                    self.notifier.alive();
                    continue;
                }
            };
            let Some(newest) = self.provider.borrow().snapshot.clone() else {
                continue;
            };
            // Without the containers of this node nothing can be said of its own backends: what is in force stays.
            if self.swarm.as_ref().is_some_and(|swarm| !swarm.knows_containers()) {
                continue;
            }
            let (snapshot, more) = self.lead.due(&newest, Instant::now());
            pace.hold_until(more);
            let began = Instant::now();
            let synchronised = self.synchronize(&snapshot, depth).await;
            let waits = self.synchronizer.waiting;
            pace.synchronised(Instant::now(), &synchronised, began.elapsed(), waits);
            if matches!(synchronised, Synchronised::Incomplete) {
                // Where there is no room for backends, it may find some.
                let _ = self.collector.send(());
            }
        }
        self.end().await;
    }

    /// Takes note of what the provider says.
    fn read(&mut self) {
        let state = self.provider.borrow_and_update().clone();
        // The provider has logged it.
        self.metrics.read(if state.error.is_some() {
            Reading::Rejected
        } else {
            Reading::Accepted
        });
        self.status.send_modify(|status| {
            status::provider_read(status, state.snapshot.as_deref(), state.error.as_deref());
        });
        self.node = state.node.unwrap_or_else(|| self.config.node.name.as_str().into());
        self.lead.rename(&self.node);
        if state.snapshot.is_none() {
            self.notifier.status("waiting for a valid cluster state".into());
        }
    }

    fn keep_warm(&self) {
        let Some(snapshot) = self.provider.borrow().snapshot.clone() else {
            return;
        };
        let peers = surroundings::tunnel_peers(&self.node, &snapshot);
        let netlink = self.synchronizer.netlink.clone();
        tokio::spawn(async move { netlink.keep_warm(peers).await });
    }

    async fn end(mut self) {
        fault::here(Point::StopBegun);
        self.notifier.stopping();
        self.status.send_modify(|status| status.ready = false);
        if let Some(server) = self.names.server.take() {
            let _ = tokio::time::timeout(GRACE, server.shutdown()).await;
        }
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::debug!(target: "lb::agent", "readers were cut off");
        }
        fault::here(Point::StopEnded);
        tracing::info!(target: "lb::agent", "stopped; programs and tables stay in the kernel and keep forwarding");
    }
}

/// What has changed of this node's part in a Swarm; never anything where there is none.
async fn news_of(swarm: &mut Option<Swarm>) -> News {
    match swarm {
        Some(swarm) => swarm.changed().await,
        None => std::future::pending().await,
    }
}
