//! [`diff`]: from desired and actual to a [`Plan`], make before break.
//!
//! Order: nodes, addresses, backends, local backends, slots under a new generation; then one write per service
//! puts them in force; then what drains, frontends and VIPs; then everything that went, from the outside in:
//! frontends, VIPs, services, old slots, local backends, backends, addresses, nodes. After any prefix of that,
//! every frontend leads to a whole set of slots, the old one or the new one, and each slot to a backend that is there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use lb_common::abi::{
    self, ALGORITHM_ROUND_ROBIN, BACKEND_DRAINING, BACKEND_GONE, BACKEND_LOCAL, BACKEND_READY, EndpointKey, Frontend,
    NODE_LOCAL, NODE_PRESENT, NodeAddress, SlotKey, Vip,
};

use super::actual::{Actual, SlotIndex, key_of};
use super::ids::Ids;
use super::join::join;
use super::slots::sequence;
use super::{Action, Op, Phase, Plan, Row, explain};
use crate::model::desired::{self, Desired};
use crate::model::snapshot::BackendState;

/// What must be written so that the tables hold what is desired.
pub fn diff(desired: &Desired, actual: &Actual) -> Plan {
    let mut diff = Diff {
        desired,
        actual,
        old: SlotIndex::of(actual),
        ids: Ids::assign(desired, actual),
        ops: Vec::new(),
        made: HashMap::new(),
        elements: elements(actual),
        in_force: HashMap::new(),
        cuts: BTreeMap::new(),
        leaves: BTreeMap::new(),
        not_local: Vec::new(),
        frontends: Vec::new(),
        led: HashSet::new(),
    };
    diff.frontends = diff.frontends();
    diff.make_nodes();
    let drained = diff.make_backends();
    diff.make_services();
    diff.ops.extend(drained);
    diff.expose();
    diff.close();
    diff.break_slots();
    diff.break_backends();
    diff.break_nodes();
    Plan {
        changes: explain::changes(&diff),
        problems: diff.ids.problems,
        ops: diff.ops,
    }
}

/// A plan being made.
pub(super) struct Diff<'a> {
    pub(super) desired: &'a Desired,
    pub(super) actual: &'a Actual,
    pub(super) old: SlotIndex,
    pub(super) ids: Ids,
    pub(super) ops: Vec<Op>,
    /// Backend elements taken into use, to the op that does it.
    made: HashMap<u32, usize>,
    /// Backend elements of the table, by id.
    elements: Vec<Option<There>>,
    /// Services that stay: the generation and number of slots in force at the end.
    in_force: HashMap<u32, (u32, u32)>,
    /// Services whose slots change or that go, to the op from which on nothing leads to the old slots.
    pub(super) cuts: BTreeMap<u32, usize>,
    /// Services that a frontend leaves, to the ops by which that happens.
    leaves: BTreeMap<u32, Vec<usize>>,
    /// Rows of `local_backends` that go.
    not_local: Vec<(EndpointKey, u32)>,
    /// See [`Diff::frontends`].
    frontends: Vec<(EndpointKey, Option<Frontend>, Option<u32>)>,
    /// Frontends that have been led to their service.
    led: HashSet<EndpointKey>,
}

/// A backend element of the table that leads to a backend.
struct There {
    key: EndpointKey,
    value: abi::Backend,
    /// It is desired and stays as it is or changes in place.
    stays: bool,
}

fn elements(actual: &Actual) -> Vec<Option<There>> {
    let highest = actual.backends.keys().next_back().map_or(0, |id| *id as usize + 1);
    let mut elements: Vec<_> = std::iter::repeat_with(|| None).take(highest).collect();
    for (id, value) in actual.backends.iter().filter(|(_, value)| value.state != BACKEND_GONE) {
        elements[*id as usize] = Some(There {
            key: key_of(value),
            value: *value,
            stays: false,
        });
    }
    elements
}

/// The write that puts a service's new slots in force.
struct Flip {
    action: Action,
    row: Row,
    /// The ops that write those slots.
    slots: Range<usize>,
}

impl Diff<'_> {
    fn push(&mut self, phase: Phase, action: Action, row: Row, after: Vec<usize>) -> usize {
        self.ops.push(Op {
            phase,
            action,
            row,
            after,
        });
        self.ops.len() - 1
    }

    fn make_nodes(&mut self) {
        let desired = self.desired;
        for (name, node) in &desired.nodes {
            let Some(&id) = self.ids.nodes.get(name) else { continue };
            let flags = NODE_PRESENT | if node.local { NODE_LOCAL } else { 0 };
            let value = abi::Node {
                tunnel_v4: node.tunnel_v4,
                tunnel_v6: node.tunnel_v6,
                flags,
                _pad: 0,
            };
            let there = self.actual.nodes.get(&id);
            let present = there.is_some_and(|node| node.flags & NODE_PRESENT != 0);
            if there != Some(&value) {
                self.push(Phase::Make, add_or_change(present), Row::Node(id, value), Vec::new());
            }
        }
        for (address, name) in &desired.addresses {
            let Some(&node) = self.ids.nodes.get(name) else {
                continue;
            };
            let flags = if desired.nodes[name].local { NODE_LOCAL } else { 0 };
            let value = NodeAddress { node, flags };
            let there = self.actual.addresses.get(address);
            if there != Some(&value) {
                let row = Row::Address(*address, value);
                self.push(Phase::Make, add_or_change(there.is_some()), row, Vec::new());
            }
        }
    }

    /// Backends and local backends. Returns the ops for backends that drain from now on: they must wait until
    /// new slots without them are in force.
    fn make_backends(&mut self) -> Vec<Op> {
        let desired = self.desired;
        let mut drained = Vec::new();
        let ids = std::mem::take(&mut self.ids.backends);
        for (key, backend, element) in join(&desired.backends, ids.iter().map(|(key, element)| (key, element))) {
            let (Some(backend), Some(element)) = (backend, element) else {
                continue;
            };
            let node = self.ids.nodes.get(&backend.node).copied().unwrap_or(0);
            let value = backend_value(key, backend, node, element.generation);
            let row = Row::Backend(element.id, value);
            match self.elements.get_mut(element.id as usize).and_then(Option::as_mut) {
                None => {
                    let op = self.push(Phase::Make, Action::Add, row, Vec::new());
                    self.made.insert(element.id, op);
                }
                Some(there) => {
                    there.stays = true;
                    if there.value == value {
                        continue;
                    }
                    if there.value.state == BACKEND_READY && value.state != BACKEND_READY {
                        drained.push(Op {
                            phase: Phase::Expose,
                            action: Action::Change,
                            row,
                            after: Vec::new(),
                        });
                    } else {
                        self.push(Phase::Make, Action::Change, row, Vec::new());
                    }
                }
            }
        }
        self.ids.backends = ids;
        self.make_local_backends();
        drained
    }

    fn make_local_backends(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        let wanted = desired.local_backends.iter().map(|key| (key, ()));
        for (key, wanted, there) in join(wanted, &actual.local_backends) {
            if wanted.is_some() && there.is_some_and(|id| self.leads_to(*id, key)) {
                continue;
            }
            match (wanted.and_then(|()| self.ids.backend(key)), there) {
                (Some(element), there) => {
                    let after = self.made.get(&element.id).copied().into_iter().collect();
                    let row = Row::LocalBackend(*key, element.id);
                    self.push(Phase::Make, add_or_change(there.is_some()), row, after);
                }
                (None, Some(id)) => self.not_local.push((*key, *id)),
                (None, None) => {}
            }
        }
    }

    /// Whether an element of the table is and stays that of a backend.
    fn leads_to(&self, id: u32, key: &EndpointKey) -> bool {
        let there = self.elements.get(id as usize).and_then(Option::as_ref);
        there.is_some_and(|there| there.stays && there.key == *key)
    }

    /// New slots, then one write per service.
    fn make_services(&mut self) {
        let desired = self.desired;
        let mut flips = BTreeMap::new();
        for (identity, service) in &desired.services {
            let Some(&id) = self.ids.services.get(identity) else {
                continue;
            };
            let there = self.actual.services.get(&id).copied();
            let same = there.is_some_and(|there| self.holds(id, &there, service));
            let (generation, slots) = match there {
                Some(there) if same => (there.generation, Vec::new()),
                Some(there) => (
                    self.old.free_generation(id, there.generation.wrapping_add(1)),
                    self.slots(service),
                ),
                None => (self.old.free_generation(id, 1), self.slots(service)),
            };
            let count = there.filter(|_| same).map_or(slots.len() as u32, |there| there.count);
            let value = abi::Service {
                identity: *identity,
                generation,
                count,
                tcp_timeout: service.tcp_timeout,
                udp_timeout: service.udp_timeout,
                flags: 0,
                algorithm: ALGORITHM_ROUND_ROBIN,
            };
            self.in_force.insert(id, (generation, value.count));
            if there == Some(value) {
                continue;
            }
            let first = self.ops.len();
            for (backend, index) in slots.into_iter().zip(0..) {
                let after = self.made.get(&backend).copied().into_iter().collect();
                let row = Row::Slot(
                    SlotKey {
                        service: id,
                        generation,
                        index,
                    },
                    backend,
                );
                self.push(Phase::Make, Action::Add, row, after);
            }
            let action = add_or_change(there.is_some());
            flips.insert(
                id,
                Flip {
                    action,
                    row: Row::Service(id, value),
                    slots: first..self.ops.len(),
                },
            );
        }
        self.flip(flips);
    }

    /// Puts new slots in force. A frontend that goes over to another service does so before the one it leaves
    /// changes and after the one it enters has changed. (Where services swap frontends and both change, no order
    /// does that for all; then one frontend meets the new slots of the service it is about to leave.)
    fn flip(&mut self, mut flips: BTreeMap<u32, Flip>) {
        let moves = self.moves();
        let mut stack: Vec<_> = flips.keys().rev().map(|id| (*id, false)).collect();
        let mut seen = HashSet::new();
        while let Some((id, entered)) = stack.pop() {
            let moves = moves.get(&id).map_or(&[][..], Vec::as_slice);
            if !entered {
                if seen.insert(id) {
                    stack.push((id, true));
                    let changing = moves.iter().filter(|(_, to)| flips.contains_key(to));
                    stack.extend(changing.map(|(_, to)| (*to, false)));
                }
                continue;
            }
            let Some(Flip { action, row, slots }) = flips.remove(&id) else {
                continue;
            };
            let mut after: Vec<_> = slots.collect();
            for (key, to) in moves {
                let op = self.lead(Phase::Flip, *key, *to);
                after.push(op);
            }
            let op = self.push(Phase::Flip, action, row, after);
            self.cuts.insert(id, op);
        }
    }

    /// Frontends that go over to another service, by the service that they leave.
    fn moves(&self) -> BTreeMap<u32, Vec<(EndpointKey, u32)>> {
        let mut moves: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, there, to) in &self.frontends {
            if let (Some(there), Some(to)) = (there, to) {
                moves.entry(there.service).or_default().push((*key, *to));
            }
        }
        moves
    }

    /// Frontends that are not as they should be: what is there, and the service to which they should lead.
    fn frontends(&self) -> Vec<(EndpointKey, Option<Frontend>, Option<u32>)> {
        let mut frontends = Vec::new();
        for (key, wanted, there) in join(&self.desired.frontends, &self.actual.frontends) {
            let to = wanted.and_then(|identity| self.ids.services.get(identity)).copied();
            if there.copied() != to.map(|service| Frontend { service, flags: 0 }) {
                frontends.push((*key, there.copied(), to));
            }
        }
        frontends
    }

    /// Lets a frontend lead to a service.
    fn lead(&mut self, phase: Phase, key: EndpointKey, service: u32) -> usize {
        let there = self.actual.frontends.get(&key).copied();
        // Where it leads to now is better than to a service that is not there or not yet as it should be.
        let waits = there.is_some() || !self.actual.services.contains_key(&service);
        let after = self.cuts.get(&service).copied().filter(|_| waits).into_iter().collect();
        let row = Row::Frontend(key, Frontend { service, flags: 0 });
        let op = self.push(phase, add_or_change(there.is_some()), row, after);
        self.led.insert(key);
        if let Some(there) = there {
            self.leaves.entry(there.service).or_default().push(op);
        }
        op
    }

    /// The backend ids of a service's slots, in their order.
    pub(super) fn slots(&self, service: &desired::Service) -> Vec<u32> {
        let with_id = |(key, weight): &(EndpointKey, u16)| Some((self.ids.backend(key)?.id, *weight));
        let (ids, weights): (Vec<_>, Vec<_>) = service.shares.iter().filter_map(with_id).unzip();
        sequence(&weights).into_iter().map(|index| ids[index]).collect()
    }

    /// Whether the slots in force are those that `service` should have.
    fn holds(&self, id: u32, there: &abi::Service, service: &desired::Service) -> bool {
        let rows = self.old.generation(id, there.generation);
        let Some(rows) = rows.get(..there.count as usize) else {
            return false;
        };
        let weights: Vec<_> = service.shares.iter().map(|(_, weight)| *weight).collect();
        let order = sequence(&weights);
        // By key, which spares a search for each slot; of several elements with one key only one stays.
        let mut pairs = rows.iter().zip(&order).zip(0..);
        let exact = pairs.all(|(((slot, backend), share), index)| {
            slot.index == index && self.leads_to(*backend, &service.shares[*share].0)
        });
        if exact && rows.len() == order.len() {
            return true;
        }
        // Backends for which there was no room are missing from the slots.
        let indexes = rows.iter().zip(0..).all(|((slot, _), index)| slot.index == index);
        indexes && rows.iter().map(|(_, backend)| *backend).eq(self.slots(service))
    }

    fn expose(&mut self) {
        let desired = self.desired;
        for (key, _, to) in self.frontends.clone() {
            if let Some(to) = to.filter(|_| !self.led.contains(&key)) {
                self.lead(Phase::Expose, key, to);
            }
        }
        for (key, frontends) in &desired.vips {
            let value = Vip { frontends: *frontends };
            let there = self.actual.vips.get(key);
            if there != Some(&value) {
                self.push(
                    Phase::Expose,
                    add_or_change(there.is_some()),
                    Row::Vip(*key, value),
                    Vec::new(),
                );
            }
        }
    }

    fn close(&mut self) {
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
    fn break_slots(&mut self) {
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

    fn break_backends(&mut self) {
        let actual = self.actual;
        for (key, id) in std::mem::take(&mut self.not_local) {
            self.push(Phase::Break, Action::Remove, Row::LocalBackend(key, id), Vec::new());
        }
        let elements = &self.elements;
        let goes = |id: &&u32| elements[**id as usize].as_ref().is_some_and(|there| !there.stays);
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

    fn break_nodes(&mut self) {
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

fn add_or_change(there: bool) -> Action {
    if there { Action::Change } else { Action::Add }
}

fn backend_value(key: &EndpointKey, backend: &desired::Backend, node: u32, generation: u32) -> abi::Backend {
    abi::Backend {
        address: key.address,
        network: key.network,
        node,
        generation,
        ifindex: backend.ifindex,
        port: key.port,
        protocol: key.protocol,
        state: match backend.state {
            BackendState::Ready => BACKEND_READY,
            BackendState::Draining => BACKEND_DRAINING,
        },
        mac: backend.mac,
        flags: if backend.local { BACKEND_LOCAL } else { 0 },
    }
}
