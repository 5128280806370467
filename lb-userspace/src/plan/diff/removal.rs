//! What goes, from the outside in: first what leads to a row, then the row.

use std::collections::BTreeMap;

use lb_common::abi::{self, BACKEND_GONE, NODE_PRESENT, SlotKey};

use super::Diff;
use crate::plan::{Action, Op, Phase, Row};

impl Diff<'_> {
    pub(super) fn close(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for (key, there, to) in self.frontends.clone() {
            if let (Some(there), None) = (there, to) {
                let op = self.push(Phase::Close, Action::Remove, Row::Frontend(key, there), Vec::new());
                self.leaves.entry(there.service).or_default().push(op);
            }
        }
        for (key, value) in actual.vips.iter().filter(|(key, _)| !desired.vips.contains_key(key)) {
            self.push(Phase::Close, Action::Remove, Row::Vip(*key, *value), Vec::new());
        }
        for (id, value) in &actual.services {
            if !self.in_force.contains_key(id) {
                let after = self.leaves.remove(id).unwrap_or_default();
                let op = self.push(Phase::Close, Action::Remove, Row::Service(*id, *value), after);
                self.cuts.insert(*id, op);
            }
        }
    }

    /// Slots that are not in force any more, also those that an interrupted agent has left.
    pub(super) fn break_slots(&mut self) {
        for (service, rows) in self.old.services() {
            let in_force = self.in_force.get(&service).copied();
            let kept = |key: &SlotKey| in_force.is_some_and(|(g, count)| key.generation == g && key.index < count);
            let after: Vec<_> = self.cuts.get(&service).copied().into_iter().collect();
            for (key, backend) in rows.iter().filter(|(key, _)| !kept(key)) {
                let row = Row::Slot(*key, *backend);
                self.ops.push(Op {
                    phase: Phase::Break,
                    action: Action::Remove,
                    row,
                    after: after.clone(),
                });
            }
        }
    }

    pub(super) fn break_backends(&mut self) {
        let actual = self.actual;
        for (key, id) in std::mem::take(&mut self.not_local) {
            self.push(Phase::Break, Action::Remove, Row::LocalBackend(key, id), Vec::new());
        }
        let elements = &self.elements;
        let goes = |id: &&u32| elements.get(**id).is_some_and(|there| !there.stays);
        // Each waits for the services that chose it.
        let mut going: BTreeMap<u32, Vec<usize>> = actual
            .backends
            .keys()
            .filter(goes)
            .map(|id| (*id, Vec::new()))
            .collect();
        let cuts = if going.is_empty() { None } else { Some(&self.cuts) };
        for (service, cut) in cuts.into_iter().flatten() {
            let Some(value) = actual.services.get(service) else {
                continue;
            };
            for (_, backend) in self.old.generation(*service, value.generation) {
                if let Some(after) = going.get_mut(backend)
                    && after.last() != Some(cut)
                {
                    after.push(*cut);
                }
            }
        }
        for (id, after) in going {
            let value = abi::Backend {
                state: BACKEND_GONE,
                ..actual.backends[&id]
            };
            self.push(Phase::Break, Action::Remove, Row::Backend(id, value), after);
        }
    }

    pub(super) fn break_nodes(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for (address, value) in &actual.addresses {
            let wanted = desired
                .addresses
                .get(address)
                .is_some_and(|name| self.ids.nodes.contains_key(name));
            if !wanted {
                self.push(Phase::Break, Action::Remove, Row::Address(*address, *value), Vec::new());
            }
        }
        let assigned: Vec<u32> = self.ids.nodes.values().copied().collect();
        for (id, node) in &actual.nodes {
            if node.flags & NODE_PRESENT == 0 || assigned.contains(id) {
                continue;
            }
            // Waits for the backends that were on it and are elsewhere now.
            let leaves = |op: &Op| match op.row {
                Row::Backend(backend, _) => actual.backends.get(&backend).is_some_and(|there| there.node == *id),
                _ => false,
            };
            let after = (0..self.ops.len()).filter(|op| leaves(&self.ops[*op])).collect();
            self.push(
                Phase::Break,
                Action::Remove,
                Row::Node(*id, abi::Node { flags: 0, ..*node }),
                after,
            );
        }
    }
}
