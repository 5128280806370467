//! [`Rest`]: the ends of plans that are in force: rows to which nothing leads any more, and which programs may still be
//! reading.
//!
//! The next plan is made with these rows in view, as after an interruption: a number is given to nobody else while rows of it
//! are there, and what is wanted back stays. So no change waits for the removals of the one before.

use std::collections::BTreeMap;

use lb_common::abi::{EndpointKey, SlotKey, SourceKey, VipKey};
use lb_common::address::Address;

use super::{Op, Phase, Plan, Row};
use crate::model::desired::Desired;

/// What has yet to be removed.
#[derive(Debug, Default)]
pub struct Rest {
    /// Cut off before the programs were last waited for,
    settling: BTreeMap<Place, Op>,
    /// and since then.
    waiting: BTreeMap<Place, Op>,
    /// What changed services had, whose rows these are.
    had: [Vec<Desired>; 2],
}

/// Table and key of a row, in the order in which rows are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Frontend(EndpointKey),
    Vip(VipKey),
    Service(u32),
    Source(SourceKey),
    Slot(SlotKey),
    LocalBackend(EndpointKey),
    Backend(u32),
    Address(Address),
    Node(u32),
}

impl From<&Row> for Place {
    fn from(row: &Row) -> Self {
        match *row {
            Row::Frontend(key, _) => Self::Frontend(key),
            Row::Vip(key, _) => Self::Vip(key),
            Row::Service(id, _) => Self::Service(id),
            Row::Source(key, _) => Self::Source(key),
            Row::Slot(key, _) => Self::Slot(key),
            Row::LocalBackend(key, _) => Self::LocalBackend(key),
            Row::Backend(id, _) => Self::Backend(id),
            Row::Address(address, _) => Self::Address(address),
            Row::Node(id, _) => Self::Node(id),
        }
    }
}

impl Rest {
    /// There is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.settling.len() + self.waiting.len()
    }

    /// A plan that was made with all this in view is in force but for its removals, which take the place of these; its
    /// services had `had` before.
    pub fn follow(&mut self, plan: Plan, had: Desired) {
        let ends = plan.ops.into_iter().filter(|op| op.phase == Phase::Break);
        // What it was to come after is done.
        let ends = ends.map(|op| Op {
            after: Vec::new(),
            ..op
        });
        let mut ends: BTreeMap<_, _> = ends.map(|op| (Place::from(&op.row), op)).collect();
        // What was wanted back meanwhile, and is not any more, has been read meanwhile.
        self.settling.retain(|place, _| ends.remove(place).is_some());
        self.waiting = ends;
        self.had[1].push(had);
    }

    /// The programs are being waited for from now on: what waits may be removed afterwards. Whether there is anything.
    pub fn settle(&mut self) -> bool {
        self.settling.append(&mut self.waiting);
        self.had = [std::mem::take(&mut self.had[1]), Vec::new()];
        !self.settling.is_empty()
    }

    /// All programs have ended that ran at [`Rest::settle`]: what is to be removed now.
    pub fn settled(&mut self) -> Vec<Op> {
        self.had[0].clear();
        std::mem::take(&mut self.settling).into_values().collect()
    }

    /// The rows, as they are once removed.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.settling.values().chain(self.waiting.values()).map(|op| &op.row)
    }

    /// Whether this element of `backends` is among them.
    pub(super) fn has_backend(&self, id: u32) -> bool {
        let place = Place::Backend(id);
        self.settling.contains_key(&place) || self.waiting.contains_key(&place)
    }

    /// Whether a backend that a service has lost is wanted by another one alone: then flows of the first lead to it that
    /// should have ended.
    pub(super) fn goes_over(&self, wanted: &Desired) -> bool {
        self.had
            .iter()
            .flatten()
            .flat_map(|had| &had.services)
            .any(|(identity, service)| {
                let keys = service.shares.iter().map(|(key, _)| key).chain(&service.resting);
                let kept = |key: &EndpointKey| wanted.services.get(identity).is_some_and(|now| now.has(key));
                keys.into_iter()
                    .any(|key| wanted.backends.contains_key(key) && !kept(key))
            })
    }
}
