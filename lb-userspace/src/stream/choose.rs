//! Which manager's view is in force. Pure: events and the time come in, the state in force comes out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::link::Event;
use super::message::Head;
use super::status::{ManagerStatus, Source};
use super::{Timing, same};
use crate::model::snapshot::Snapshot;

/// All managers, and what is in force.
pub(super) struct Choice {
    timing: Timing,
    managers: BTreeMap<SocketAddr, Manager>,
    /// Whose view is in force, or was last.
    current: Option<SocketAddr>,
    /// Process of which that view is.
    epoch: Option<u64>,
    in_force: Option<InForce>,
    /// Since when all that is offered may be older than what is in force.
    waiting: Option<Instant>,
}

#[derive(Default)]
struct Manager {
    /// Its node, while there is a connection.
    node: Option<String>,
    error: Option<String>,
    head: Option<(Head, Instant)>,
    offer: Option<Offer>,
}

/// A manager's newest snapshot.
#[derive(Clone)]
struct Offer {
    head: Head,
    /// When its source was last known to say this.
    read: Instant,
    snapshot: Arc<Snapshot>,
}

/// The state in force, in this node's own counting.
pub(super) struct InForce {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) index: Option<u64>,
    /// Unknown for what came from the disk.
    read: Option<Instant>,
    source: Source,
    /// As its manager sent it.
    offered: Option<Arc<Snapshot>>,
}

impl Manager {
    /// What it offers, if its source is alive.
    fn fresh(&self, now: Instant, stale: Duration) -> Option<&Offer> {
        let offer = self.offer.as_ref()?;
        (now.saturating_duration_since(offer.read) <= stale).then_some(offer)
    }
}

impl Choice {
    /// With what was found on the disk.
    pub(super) fn new(timing: Timing, stored: Option<(Arc<Snapshot>, Option<u64>)>) -> Self {
        Self {
            timing,
            managers: BTreeMap::new(),
            current: None,
            epoch: None,
            in_force: stored.map(|(snapshot, index)| InForce {
                snapshot,
                index,
                read: None,
                source: Source::Disk,
                offered: None,
            }),
            waiting: None,
        }
    }

    pub(super) fn in_force(&self) -> Option<&InForce> {
        self.in_force.as_ref()
    }

    /// A manager is to be followed.
    pub(super) fn add(&mut self, address: SocketAddr) {
        self.managers.entry(address).or_default();
    }

    /// A manager is none any more.
    pub(super) fn remove(&mut self, address: SocketAddr) {
        self.managers.remove(&address);
    }

    /// Takes note of what happened at a manager.
    pub(super) fn note(&mut self, address: SocketAddr, event: Event, at: Instant) {
        // It may have been removed while the event was on its way.
        let Some(manager) = self.managers.get_mut(&address) else {
            return;
        };
        match event {
            Event::Up(node) => {
                *manager = Manager {
                    node: Some(node),
                    ..Manager::default()
                };
            }
            Event::Down(error) => {
                *manager = Manager {
                    error: Some(error),
                    ..Manager::default()
                };
            }
            Event::Head(head) => {
                manager.head = Some((head, at));
                if let Some(offer) = &mut manager.offer
                    && (offer.head.epoch, offer.head.generation) == (head.epoch, head.generation)
                {
                    (offer.head, offer.read) = (head, read(&head, at));
                }
            }
            Event::Snapshot(head, snapshot) => {
                // The head has told its age when it came; time has passed since.
                let read = manager
                    .head
                    .filter(|(known, _)| *known == head)
                    .map_or(at, |(_, then)| read(&head, then));
                manager.offer = Some(Offer { head, read, snapshot });
            }
        }
    }

    /// Puts in force what should be. Whether the content of the state in force is another now.
    pub(super) fn decide(&mut self, now: Instant) -> bool {
        let Some(address) = self.best(now) else {
            return false;
        };
        self.take(address)
    }

    fn best(&mut self, now: Instant) -> Option<SocketAddr> {
        let stale = self.timing.stale;
        let offer_of = |address: &SocketAddr| self.managers.get(address)?.fresh(now, stale);
        if let Some(current) = self.current
            && offer_of(&current).is_some_and(|offer| self.continues(&current, offer) || self.not_older(offer))
        {
            self.waiting = None;
            return self.current;
        }
        let newest = |accept: &dyn Fn(&Offer) -> bool| {
            self.managers
                .iter()
                .filter_map(|(address, manager)| Some((address, manager.fresh(now, stale)?)))
                .filter(|(_, offer)| accept(offer))
                .max_by_key(|(_, offer)| (offer.head.index, offer.read))
                .map(|(address, _)| *address)
        };
        if let Some(found) = newest(&|offer| self.not_older(offer)) {
            self.waiting = None;
            return Some(found);
        }
        let Some(older) = newest(&|_| true) else {
            // Nobody's source is alive: what the current one says stays, also what it said last.
            self.waiting = None;
            let current = self.current?;
            let offer = self.managers.get(&current)?.offer.as_ref()?;
            return self.continues(&current, offer).then_some(current);
        };
        let since = *self.waiting.get_or_insert(now);
        if now.saturating_duration_since(since) < self.timing.settle {
            return None;
        }
        self.waiting = None;
        Some(older)
    }

    /// Whether an offer comes over the connection, of the process, from which the state in force is.
    fn continues(&self, address: &SocketAddr, offer: &Offer) -> bool {
        self.current == Some(*address) && self.epoch == Some(offer.head.epoch)
    }

    /// Whether an offer is certainly no older than the state in force.
    fn not_older(&self, offer: &Offer) -> bool {
        let Some(in_force) = &self.in_force else {
            return true;
        };
        if same(&offer.snapshot, &in_force.snapshot) {
            return true;
        }
        match (offer.head.index, in_force.index, in_force.read) {
            (Some(offered), Some(index), _) => offered >= index,
            (_, _, Some(read)) => offer.read >= read,
            (_, _, None) => true,
        }
    }

    fn take(&mut self, address: SocketAddr) -> bool {
        let Some((manager, offer)) = self
            .managers
            .get(&address)
            .and_then(|manager| Some((manager, manager.offer.clone()?)))
        else {
            return false;
        };
        let source = Source::Manager {
            address,
            node: manager.node.clone().unwrap_or_default(),
        };
        self.current = Some(address);
        self.epoch = Some(offer.head.epoch);
        let (known, offered) = match &self.in_force {
            Some(in_force) => (Some(in_force.snapshot.clone()), in_force.offered.clone()),
            None => (None, None),
        };
        // Most events bring no other snapshot: nothing to compare then.
        let untouched = offered.is_some_and(|offered| Arc::ptr_eq(&offered, &offer.snapshot));
        let changed = !untouched && known.as_ref().is_none_or(|known| !same(known, &offer.snapshot));
        let snapshot = match known {
            Some(known) if !changed => known,
            known => Arc::new(Snapshot {
                generation: known.map_or(0, |known| known.generation) + 1,
                ..(*offer.snapshot).clone()
            }),
        };
        self.in_force = Some(InForce {
            snapshot,
            index: offer.head.index,
            read: Some(offer.read),
            source,
            offered: Some(offer.snapshot),
        });
        changed
    }

    /// Where the state in force is from.
    pub(super) fn source(&self) -> Source {
        self.in_force
            .as_ref()
            .map(|in_force| in_force.source.clone())
            .unwrap_or_default()
    }

    /// Since the source of the state in force was last read, milliseconds.
    pub(super) fn age_ms(&self, now: Instant) -> Option<u64> {
        Some(milliseconds(now, self.in_force.as_ref()?.read?))
    }

    /// All managers.
    pub(super) fn managers(&self, now: Instant) -> Vec<ManagerStatus> {
        let of_current =
            |address| matches!(self.source(), Source::Manager { address: source, .. } if source == address);
        self.managers
            .iter()
            .map(|(&address, manager)| ManagerStatus {
                address,
                node: manager.node.clone(),
                connected: manager.node.is_some(),
                current: manager.node.is_some() && of_current(address),
                generation: manager.head.map(|(head, _)| head.generation),
                age_ms: manager.head.map(|(head, at)| milliseconds(now, read(&head, at))),
                error: manager.error.clone(),
            })
            .collect()
    }
}

/// When a manager read its source, by this node's clock. The way of the message counts as if it were reading time.
fn read(head: &Head, at: Instant) -> Instant {
    at.checked_sub(head.age()).unwrap_or(at)
}

fn milliseconds(now: Instant, then: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(then).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "tests/choose.rs"]
mod tests;
