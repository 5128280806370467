//! [`diff`]: from desired and actual to a [`Plan`], make before break.
//!
//! Order: nodes, addresses, backends, local backends, sources, slots under a new generation; then one write per service
//! puts them in force; then what drains, frontends and VIPs; then everything that went, from the outside in:
//! frontends, VIPs, services, sources, old slots, local backends, backends, addresses, nodes. After any prefix of that,
//! every frontend leads to a whole set of slots, the old one or the new one, and each slot to a backend that is there.

mod removal;
mod services;
mod sources;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use lb_common::abi::{
    self, BACKEND_DRAINING, BACKEND_GONE, BACKEND_LOCAL, BACKEND_READY, EndpointKey, Frontend, NODE_LOCAL,
    NODE_PRESENT, NodeAddress,
};

use super::actual::{Actual, SlotIndex, key_of};
use super::ids::Ids;
use super::join::join;
use super::{Action, Op, Phase, Plan, Row, explain};
use crate::model::desired::{self, Desired};
use crate::model::snapshot::BackendState;

/// What must be written so that the tables hold what is desired.
pub fn diff(desired: &Desired, actual: &Actual) -> Plan {
    let diff = Diff::of(desired, actual);
    Plan {
        changes: explain::changes(&diff),
        problems: diff.ids.problems,
        ops: diff.ops,
    }
}

/// As [`diff`], without saying what that means to people, which costs as much again.
pub fn writes(desired: &Desired, actual: &Actual) -> Plan {
    let diff = Diff::of(desired, actual);
    Plan {
        changes: Vec::new(),
        problems: diff.ids.problems,
        ops: diff.ops,
    }
}

impl<'a> Diff<'a> {
    fn of(desired: &'a Desired, actual: &'a Actual) -> Self {
        let mut diff = Diff {
            desired,
            actual,
            old: SlotIndex::of(actual),
            ids: Ids::assign(desired, actual),
            ops: Vec::new(),
            made: HashMap::new(),
            elements: Elements::of(actual),
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
        diff.make_sources();
        diff.make_services();
        diff.ops.extend(drained);
        diff.expose();
        diff.close();
        diff.break_sources();
        diff.break_slots();
        diff.break_backends();
        diff.break_nodes();
        diff
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
    elements: Elements,
    /// Services that stay: the generation and number of slots in force at the end.
    in_force: HashMap<u32, (u32, u32)>,
    /// Services whose slots change or that go, to the op from which on nothing leads to the old slots.
    pub(super) cuts: BTreeMap<u32, usize>,
    /// Services that a frontend leaves, to the ops by which that happens.
    leaves: BTreeMap<u32, Vec<usize>>,
    /// Rows of `local_backends` that go.
    not_local: Vec<(EndpointKey, u32)>,
    /// See [`Diff::frontends`].
    frontends: Vec<(EndpointKey, Option<Frontend>, Option<Frontend>)>,
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

/// Backend elements of the table that lead to a backend, by id.
struct Elements {
    /// The lowest id.
    first: u32,
    elements: Vec<Option<There>>,
    /// Where they lie far apart.
    sparse: HashMap<u32, There>,
}

impl Elements {
    fn of(actual: &Actual) -> Self {
        let live = || actual.backends.iter().filter(|(_, value)| value.state != BACKEND_GONE);
        let there = |value: &abi::Backend| There {
            key: key_of(value),
            value: *value,
            stays: false,
        };
        let (first, last) = match (live().next(), live().next_back()) {
            (Some((first, _)), Some((last, _))) => (*first, *last),
            _ => (0, 0),
        };
        let mut elements = Self {
            first,
            elements: Vec::new(),
            sparse: HashMap::new(),
        };
        let span = (last - first) as usize + 1;
        if span > 4 * actual.backends.len() {
            elements.sparse = live().map(|(id, value)| (*id, there(value))).collect();
            return elements;
        }
        elements.elements.resize_with(span, || None);
        for (id, value) in live() {
            elements.elements[(id - first) as usize] = Some(there(value));
        }
        elements
    }

    fn get(&self, id: u32) -> Option<&There> {
        let dense = self.elements.get(id.checked_sub(self.first)? as usize);
        dense.and_then(Option::as_ref).or_else(|| self.sparse.get(&id))
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut There> {
        let dense = self.elements.get_mut(id.checked_sub(self.first)? as usize);
        match dense.and_then(Option::as_mut) {
            Some(there) => Some(there),
            None => self.sparse.get_mut(&id),
        }
    }
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
            match self.elements.get_mut(element.id) {
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
        let there = self.elements.get(id);
        there.is_some_and(|there| there.stays && there.key == *key)
    }
}

fn add_or_change(there: bool) -> Action {
    if there { Action::Change } else { Action::Add }
}

fn backend_value(key: &EndpointKey, backend: &desired::Backend, node: u32, generation: u32) -> abi::Backend {
    abi::Backend {
        address: key.address,
        delivery: backend.delivery,
        network: key.network,
        delivery_network: backend.delivery_network,
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
