//! Follows a change of few services: what it means is planned from what the tables are known to hold, at the cost of what
//! is new.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinHandle;

use super::write::{explained, say};
use super::{Basis, Cluster, Outcome, Synchronizer};
use crate::agent::surroundings;
use crate::datapath::store::wait_for_programs;
use crate::fault::{self, Point};
use crate::plan::{self, Rest};

/// So few services are never too many to be looked at alone.
const PART: usize = 64;

/// So many rows to be removed do not make the next plan much larger.
const REST: usize = 10_000;

/// What has yet to be removed from the tables; everything else is in force.
#[derive(Default)]
pub(super) struct Removals {
    rest: Rest,
    /// Ends when the programs have settled; none: there is nothing to remove.
    settled: Option<JoinHandle<()>>,
}

impl Removals {
    /// Begins to wait for the programs, if there is something to remove.
    fn settle(&mut self) {
        self.settled = self
            .rest
            .settle()
            .then(|| tokio::task::spawn_blocking(wait_for_programs));
    }
}

/// What came of looking at changed services alone.
enum Followed {
    Done(Box<Outcome>),
    /// It cannot be told apart from what has yet to be removed.
    Later,
    /// Nor from the rest of the cluster: everything has to be looked at.
    Not,
}

impl Synchronizer {
    /// Makes the kernel hold what is new in the snapshot, at the cost of what is new. `None`: that cannot be told apart
    /// from the rest, and everything has to be looked at.
    pub(super) async fn follow(&mut self, cluster: &Cluster<'_>) -> Result<Option<Outcome>> {
        loop {
            match self.attempt(cluster).await? {
                Followed::Done(outcome) => return Ok(Some(*outcome)),
                // Failed removals are seen again when everything is compared.
                Followed::Later if self.finish().await.is_ok() => {}
                Followed::Later | Followed::Not => return Ok(None),
            }
        }
    }

    async fn attempt(&mut self, cluster: &Cluster<'_>) -> Result<Followed> {
        let Cluster { node, snapshot, .. } = *cluster;
        let Some(last) = self.last.as_mut().filter(|_| self.finder.is_none()) else {
            return Ok(Followed::Not);
        };
        let before = Arc::clone(&last.inputs.basis);
        let same = before.node == node
            && before.snapshot.nodes == snapshot.nodes
            && before.snapshot.networks == snapshot.networks;
        if !same {
            return Ok(Followed::Not);
        }
        let start = Instant::now();
        let changes = snapshot.services.changes(&before.snapshot.services);
        if (changes.gone.len() + changes.come.len()) * 4 > snapshot.services.len().max(PART) {
            return Ok(Followed::Not);
        }
        let Some(mirror) = &mut last.mirror else {
            return Ok(Followed::Not);
        };
        let removals = &mut last.removals;
        if removals.rest.len() > REST {
            return Ok(Followed::Later);
        }
        let mut known = Arc::clone(&before.known);
        let come = changes.come.iter().map(|service| &**service);
        let mut newcomers = surroundings::local_backends(node, &snapshot.networks, come);
        newcomers.retain(|(ip, network)| !known.contains_key(&(network.id, (*ip).into())));
        if !newcomers.is_empty() {
            let links = &last.inputs.links;
            let addresses = newcomers.iter().map(|(ip, _)| *ip);
            let places = self.netlink.places(links, addresses, &mut self.routes).await?.places;
            let (more, odd) = surroundings::backend_interfaces(&places, &newcomers, &last.interfaces, links);
            if odd.iter().any(|odd| !last.odd.contains(odd)) {
                return Ok(Followed::Not);
            }
            if !more.is_empty() {
                Arc::make_mut(&mut known).extend(more);
            }
        }
        let basis = Arc::new(Basis {
            snapshot: Arc::clone(snapshot),
            node: node.to_owned(),
            known,
        });
        let (had, wanted) = (before.part(&changes.gone)?, basis.part(&changes.come)?);
        let compiled = Instant::now();
        let part = plan::mirror::Part {
            had: &had,
            wanted: &wanted,
            rest: &removals.rest,
        };
        let Some(plan) = mirror.plan(part, &self.reusable, explained()) else {
            return Ok(if self.unfinished() {
                Followed::Later
            } else {
                Followed::Not
            });
        };
        say(&plan);
        fault::here(Point::SyncPlanned);
        let planned = Instant::now();
        let report = tokio::task::block_in_place(|| plan::begin(&plan, &mut self.store));
        fault::here(Point::SyncApplied);
        let mut outcome = Outcome {
            odd: last.odd.clone(),
            attachments: last.attachments.clone(),
            complete: report.is_complete(),
            writes: report.done,
            phases: [compiled - start, planned - compiled, planned.elapsed()],
            basis: Arc::clone(&basis),
            ..Outcome::default()
        };
        let now = Instant::now();
        plan.ops.iter().for_each(|op| self.reusable.note(op, now));
        if report.is_complete() {
            plan.ops[..report.done].iter().for_each(|op| mirror.note(op));
            if let Some(resting) = &mut self.resting {
                for row in plan::resting(&had) {
                    resting.remove(&row);
                }
                resting.extend(plan::resting(&wanted));
            }
            last.inputs.basis = basis;
            removals.rest.follow(plan, had);
            if removals.settled.is_none() {
                removals.settle();
            }
        } else {
            outcome.problems.push(report.to_string());
            self.last = None;
        }
        Ok(Followed::Done(Box::new(outcome)))
    }

    /// Whether something in the tables has yet to be removed.
    pub(in crate::agent) fn unfinished(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.removals.settled.is_some())
    }

    /// Waits until the tables have settled, and removes what nothing leads to any more since they were last waited for. May
    /// be left at any time and called again.
    ///
    /// # Errors
    /// If something could not be removed: then everything has to be compared.
    pub(in crate::agent) async fn finish(&mut self) -> Result<()> {
        let Some(settled) = self.last.as_mut().and_then(|last| last.removals.settled.as_mut()) else {
            return Ok(());
        };
        settled.await?;
        let Some(mut last) = self.last.take() else {
            return Ok(());
        };
        fault::here(Point::ApplySettled);
        let ops = last.removals.rest.settled();
        tokio::task::block_in_place(|| plan::remove(&ops, &mut self.store))?;
        if let Some(mirror) = &mut last.mirror {
            ops.iter().for_each(|op| mirror.note(op));
        }
        last.removals.settle();
        self.last = Some(last);
        Ok(())
    }
}
