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
use crate::dns::{self, DnsCounters, DnsHandle, Zone};
use crate::fault::{self, Point};
use crate::lifecycle::{self, Lock, Notifier};
use crate::model::snapshot::Snapshot;
use crate::net::memory;
use crate::plan::store::StoreError;
use crate::provider::ProviderState;
use crate::telemetry::logs;
use crate::telemetry::metrics::{self, Eviction, Metrics, Reading};

use lead::Lead;
use pace::{Due, Pace, RESYNC};
pub use removal::uninstall;
use surroundings::Oddity;
use swarm::{News, Swarm};
use sync::{Basis, Cluster, Depth, Outcome, Synchronizer};

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

/// What came of a synchronisation.
enum Synchronised {
    /// There was nothing to do.
    Unchanged,
    /// Everything is in force.
    Done {
        /// All tables were compared.
        whole: bool,
    },
    /// Something is not: try again.
    Incomplete,
}

impl Synchronised {
    /// Whether all tables may have been compared, or will be soon.
    const fn is_whole(&self) -> bool {
        matches!(self, Self::Done { whole: true } | Self::Incomplete)
    }
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

    /// One synchronisation.
    async fn synchronize(&mut self, snapshot: &Arc<Snapshot>, depth: Depth) -> Synchronised {
        let start = Instant::now();
        let local = self
            .swarm
            .as_ref()
            .map(|swarm| swarm.local.borrow().clone())
            .unwrap_or_default();
        let cluster = Cluster {
            node: &self.node,
            snapshot,
            local: &local,
        };
        let mut outcome = match self.synchronizer.run(&cluster, depth).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return Synchronised::Unchanged,
            Err(error) => {
                let error = format!("{error:#}");
                self.complain(std::slice::from_ref(&error));
                self.metrics.synced(metrics::Outcome::Error);
                self.status.send_modify(|status| status::failed(status, &error));
                return Synchronised::Incomplete;
            }
        };
        let refused = self.provider.borrow().refused.clone();
        let refusals = refused
            .iter()
            .map(|refusal| Oddity::new(&refusal.object, &refusal.reason));
        outcome.odd.extend(refusals);
        outcome.odd.sort();
        outcome.odd.dedup();
        if let Some(swarm) = self.swarm.as_ref().filter(|_| outcome.complete)
            && let Ok(desired) = outcome.basis.desired()
        {
            swarm.in_force(&desired);
        }
        outcome.problems.extend(self.put_in_force(snapshot, &outcome).await);
        fault::here(Point::SyncForced);
        self.complain(&outcome.problems);
        self.measure(snapshot, &outcome, start.elapsed());
        if outcome.problems.is_empty() {
            Synchronised::Done { whole: outcome.whole }
        } else {
            Synchronised::Incomplete
        }
    }

    /// Logs problems when they are new; the status shows them as long as they last.
    fn complain(&mut self, problems: &[String]) {
        if self.problems != problems {
            for problem in problems {
                tracing::error!(target: "lb::sync", %problem, "not everything is in force, trying again");
            }
            if problems.is_empty() {
                tracing::info!(target: "lb::sync", "everything is in force again");
            }
            self.problems = problems.to_vec();
        }
    }

    /// Names and readers follow the tables. Returns what went wrong.
    async fn put_in_force(&mut self, snapshot: &Arc<Snapshot>, outcome: &Outcome) -> Option<String> {
        self.basis.store(Some(Arc::clone(&outcome.basis)));
        let before = Arc::clone(&self.snapshot.borrow());
        if !Arc::ptr_eq(&before, snapshot) {
            self.names.zone.store(Arc::new(self.names.zone.load().follow(snapshot)));
            self.snapshot.send_replace(Arc::clone(snapshot));
            if before.nodes != snapshot.nodes {
                self.keep_warm();
            }
        }
        if self.config.dns.enabled && self.names.server.is_none() {
            let (zone, counters) = (Arc::clone(&self.names.zone), Arc::clone(&self.names.counters));
            match dns::start(names::settings(&self.config), zone, counters, self.stop.clone()).await {
                Ok(server) => self.names.server = Some(server),
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    }

    fn measure(&mut self, snapshot: &Arc<Snapshot>, outcome: &Outcome, took: Duration) {
        let phases = [metrics::Phase::Compile, metrics::Phase::Diff, metrics::Phase::Apply];
        for (phase, duration) in phases.into_iter().zip(outcome.phases) {
            self.metrics.phase(phase, duration);
        }
        self.metrics.synced(if outcome.problems.is_empty() {
            metrics::Outcome::Ok
        } else {
            metrics::Outcome::Partial
        });
        let mut changed = false;
        self.status.send_modify(|status| {
            let before = status.provider.as_ref().map(|p| p.applied);
            status::synced(status, &self.node, snapshot, outcome, took.as_secs_f64() * 1000.0);
            changed = status.provider.as_ref().map(|p| p.applied) != before;
            let listen = self.names.server.as_ref().map_or(&[][..], |s| s.addresses());
            if self.config.dns.enabled {
                status.dns = Some(status::dns(listen, &self.names.zone, snapshot, &self.names.counters));
                status.ready &= self.names.server.is_some();
            }
        });
        if changed {
            let since = self.provider.borrow().last_change;
            self.metrics.propagated(since.elapsed());
        }
        if outcome.writes > 0 {
            tracing::info!(target: "lb::sync", generation = snapshot.generation, writes = outcome.writes,
                milliseconds = took.as_millis() as u64, services = snapshot.services.len(), "synchronised");
        }
        let backends: usize = snapshot.services.iter().map(|s| s.backends.len()).sum();
        self.notifier.status(format!(
            "generation {}: {} services, {backends} backends{}",
            snapshot.generation,
            snapshot.services.len(),
            if outcome.problems.is_empty() {
                ""
            } else {
                "; incomplete"
            }
        ));
        if self.status.borrow().ready {
            fault::here(Point::StartReady);
            self.notifier.ready();
        }
    }

    fn counted(&mut self, census: Result<Census, StoreError>) {
        match census {
            Ok(census) => {
                self.metrics.evicted(Eviction::Expired, census.expired);
                self.metrics.evicted(Eviction::Orphan, census.orphans);
                if census.pressed && !self.pressed {
                    tracing::warn!(target: "lb::datapath", flows4 = census.flows4, flows6 = census.flows6,
                        overflow = census.overflow, "a flow table is full: new flows go to the overflow tables");
                } else if self.pressed && !census.pressed {
                    tracing::info!(target: "lb::datapath", flows4 = census.flows4, flows6 = census.flows6,
                        overflow = census.overflow, "the flow tables have room again");
                }
                self.pressed = census.pressed;
                self.synchronizer.counted(census);
            }
            Err(error) => tracing::warn!(target: "lb::datapath", %error, "cannot walk through the flows"),
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
