//! One synchronisation and what comes of it: names and readers follow the tables, and it is told how it went.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::surroundings::Oddity;
use super::sync::{Cluster, Depth, Outcome};
use super::{Agent, names, status};
use crate::datapath::collect::Census;
use crate::dns;
use crate::fault::{self, Point};
use crate::model::snapshot::Snapshot;
use crate::plan::store::StoreError;
use crate::telemetry::metrics::{self, Eviction};

/// What came of a synchronisation.
pub(super) enum Synchronised {
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
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self, Self::Done { whole: true } | Self::Incomplete)
    }
}

impl Agent {
    /// One synchronisation.
    pub(super) async fn synchronize(&mut self, snapshot: &Arc<Snapshot>, depth: Depth) -> Synchronised {
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
    pub(super) fn complain(&mut self, problems: &[String]) {
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

    pub(super) fn counted(&mut self, census: Result<Census, StoreError>) {
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
}
