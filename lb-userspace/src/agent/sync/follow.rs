//! Follows a change of few services: what it means is planned from what the tables are known to hold, at the cost of what
//! is new.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use tokio::task::JoinHandle;

use super::{Basis, Cluster, Outcome, Synchronizer, explained, say};
use crate::agent::surroundings;
use crate::datapath::store::wait_for_programs;
use crate::fault::{self, Point};
use crate::plan::{self, Plan};

/// So few services are never too many to be looked at alone.
const PART: usize = 64;

/// The end of a plan that is in force: what nothing leads to any more, and programs may still be reading.
pub(super) struct Removals {
    plan: Plan,
    /// Ends when the tables have settled.
    settled: JoinHandle<()>,
}

impl Synchronizer {
    /// Makes the kernel hold what is new in the snapshot, at the cost of what is new. `None`: that cannot be told apart
    /// from the rest, and everything has to be looked at.
    pub(super) async fn follow(&mut self, cluster: &Cluster<'_>) -> Result<Option<Outcome>> {
        let Cluster { node, snapshot, .. } = *cluster;
        let Some(last) = self.last.as_ref().filter(|_| self.finder.is_none()) else {
            return Ok(None);
        };
        let before = Arc::clone(&last.inputs.basis);
        let same = before.node == node
            && before.snapshot.nodes == snapshot.nodes
            && before.snapshot.networks == snapshot.networks;
        if !same {
            return Ok(None);
        }
        let start = Instant::now();
        let changes = snapshot.services.changes(&before.snapshot.services);
        if (changes.gone.len() + changes.come.len()) * 4 > snapshot.services.len().max(PART) {
            return Ok(None);
        }
        // What a number stood for has to be gone before the next plan gives numbers.
        if self.finish().await.is_err() {
            // Everything is compared, and that failure is seen again.
            return Ok(None);
        }
        let Some(last) = self.last.as_mut() else {
            return Ok(None);
        };
        let Some(mirror) = &mut last.mirror else {
            return Ok(None);
        };
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
                return Ok(None);
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
        };
        let Some(plan) = mirror.plan(part, &self.reusable, explained()) else {
            return Ok(None);
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
            last.removals = plan.has_removals().then(|| Removals {
                plan,
                settled: tokio::task::spawn_blocking(wait_for_programs),
            });
        } else {
            outcome.problems.push(report.to_string());
            self.last = None;
        }
        Ok(Some(outcome))
    }

    /// Whether something in the tables has yet to be removed.
    pub(in crate::agent) fn unfinished(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.removals.is_some())
    }

    /// Waits until the tables have settled, and removes what nothing leads to any more. May be left at any time and
    /// called again.
    ///
    /// # Errors
    /// If something could not be removed: then everything has to be compared.
    pub(in crate::agent) async fn finish(&mut self) -> Result<()> {
        let Some(removals) = self.last.as_mut().and_then(|last| last.removals.as_mut()) else {
            return Ok(());
        };
        (&mut removals.settled).await?;
        let Some(mut last) = self.last.take() else {
            return Ok(());
        };
        let Some(Removals { plan, .. }) = last.removals.take() else {
            return Ok(());
        };
        fault::here(Point::ApplySettled);
        let report = tokio::task::block_in_place(|| plan::finish(&plan, &mut self.store));
        if !report.is_complete() {
            bail!("{report}");
        }
        if let Some(mirror) = &mut last.mirror {
            let done = &plan.ops[plan.ops.len() - report.done..];
            done.iter().for_each(|op| mirror.note(op));
        }
        self.last = Some(last);
        Ok(())
    }
}
