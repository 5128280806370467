//! Keeps the cluster state of this node, and the one that it sends to others, in step with what the provider and the nodes
//! say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::reported::{Dead, with_reports};
use crate::model::snapshot::Snapshot;
use crate::provider::docker::Reading;
use crate::provider::{Change, ProviderState};
use crate::stream::{Reported, View};

/// What there is to put together.
pub(super) struct Sources {
    /// What the provider says.
    pub(super) provider: watch::Receiver<ProviderState>,
    /// What this node has read itself.
    pub(super) readings: watch::Receiver<Option<Reading>>,
    /// What nodes have reported.
    pub(super) reports: watch::Receiver<BTreeMap<String, Reported>>,
    /// Tasks of this node that have died of late.
    pub(super) died: watch::Receiver<BTreeSet<String>>,
}

/// What comes of it.
pub(super) struct Merged {
    /// The cluster state on this node.
    pub(super) state: watch::Sender<ProviderState>,
    /// The same for others, if this node is a manager.
    pub(super) view: watch::Sender<Option<View>>,
    /// Tasks of this node that have died, for its report.
    pub(super) dead: watch::Sender<BTreeSet<String>>,
}

/// Until the provider has ended, or nobody wants to know the state any more.
pub(super) async fn run(sources: Sources, merged: Merged) {
    let Sources {
        mut provider,
        mut readings,
        mut reports,
        mut died,
    } = sources;
    let (mut reporting, mut dying) = (true, true);
    let mut dead = Dead::default();
    let mut before: Option<Told> = None;
    loop {
        let newest = provider.borrow_and_update().clone();
        let reading = readings.borrow_and_update().clone();
        // Compared rather than asked whether they have changed: waiting for a change takes note of it. And a manager reads
        // the same twice a second.
        let told = Told {
            snapshot: newest.snapshot.clone(),
            first_hand: newest.first_hand,
            reports: reports.borrow_and_update().clone(),
            died: died.borrow_and_update().clone(),
        };
        let news = before.as_ref() != Some(&told);
        if let Some(snapshot) = newest.snapshot.as_ref().filter(|_| news) {
            dead.update(snapshot, &told.reports, newest.node.as_deref(), &told.died);
        }
        merged.state.send_if_modified(|state| {
            let mut changed = false;
            if let Some(snapshot) = &newest.snapshot
                && (news || newest.error.is_none() && state.error.is_some() || state.refused != newest.refused)
            {
                // Not asked of the reading, which comes a moment after the state.
                let mut whole = if newest.first_hand {
                    with_reports(snapshot, &told.reports)
                } else {
                    (**snapshot).clone()
                };
                dead.drain(&mut whole);
                let refused = (*newest.refused).clone();
                changed = state.accept(whole, refused, newest.node.as_deref()) != Change::Nothing;
            }
            if let Some(error) = &newest.error {
                changed |= state.reject((**error).clone());
            }
            changed
        });
        let snapshot = merged.state.borrow().snapshot.clone();
        if news {
            let mut all = told.died.clone();
            if let (Some(snapshot), Some(node)) = (&snapshot, &newest.node) {
                all.extend(dead.on(snapshot, node).map(str::to_owned));
            }
            merged.dead.send_if_modified(|dead| {
                let changed = *dead != all;
                *dead = all;
                changed
            });
        }
        merged
            .view
            .send_replace(reading.zip(snapshot).map(|(reading, snapshot)| View {
                snapshot,
                index: Some(reading.index),
                read: reading.read,
            }));
        before = Some(told);
        tokio::select! {
            changed = provider.changed() => if changed.is_err() { return },
            changed = readings.changed() => if changed.is_err() { return },
            changed = reports.changed(), if reporting => reporting = changed.is_ok(),
            changed = died.changed(), if dying => dying = changed.is_ok(),
            () = merged.state.closed() => return,
        }
    }
}

/// What was said, as far as the state depends on it.
struct Told {
    snapshot: Option<Arc<Snapshot>>,
    first_hand: bool,
    reports: BTreeMap<String, Reported>,
    died: BTreeSet<String>,
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        let pointer = |told: &Self| told.snapshot.as_ref().map(Arc::as_ptr);
        pointer(self) == pointer(other)
            && self.first_hand == other.first_hand
            && self.reports == other.reports
            && self.died == other.died
    }
}

#[cfg(test)]
mod tests;
