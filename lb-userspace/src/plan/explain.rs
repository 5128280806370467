//! What a plan changes, in the operator's words: from its ops, grouped by service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lb_common::abi::{self, BACKEND_GONE, EndpointKey, NETWORK_NODE};

use super::actual::key_of;
use super::diff::Diff;
use super::print::{endpoint, prefix, state};
use super::{Action, Change, Op, Row};

pub(super) fn changes(diff: &Diff<'_>) -> Vec<Change> {
    if diff.ops.is_empty() {
        return Vec::new();
    }
    let mut explain = Explain::of(diff);
    let nodes = explain.nodes();
    let services = explain.services();
    let rest = explain.rest();
    let mut changes: Vec<_> = nodes.into_iter().chain(services).chain(rest).collect();
    if changes.is_empty() {
        let detail = "left over from an interruption, or not as written";
        changes.push(Change::new(Action::Change, "rows", diff.ops.len().to_string(), detail));
    }
    changes
}

struct Explain<'a> {
    diff: &'a Diff<'a>,
    names: BTreeMap<u32, &'a Arc<str>>,
    /// Ops on backends, by id.
    backends: BTreeMap<u32, &'a Op>,
    /// Those that some service's change has told.
    told: BTreeSet<u32>,
    /// Ops on frontends, by the service they lead to; of those that go, by the one they led to.
    frontends: BTreeMap<u32, Vec<&'a Op>>,
    /// Ops on services, by id.
    services: BTreeMap<u32, &'a Op>,
}

impl<'a> Explain<'a> {
    fn of(diff: &'a Diff<'a>) -> Self {
        let names = diff.ids.nodes.iter().map(|(name, id)| (*id, name)).collect();
        let mut explain = Self {
            diff,
            names,
            backends: BTreeMap::new(),
            told: BTreeSet::new(),
            frontends: BTreeMap::new(),
            services: BTreeMap::new(),
        };
        for op in &diff.ops {
            match op.row {
                Row::Backend(id, _) => drop(explain.backends.insert(id, op)),
                Row::Service(id, _) => drop(explain.services.insert(id, op)),
                Row::Frontend(_, frontend) => explain.frontends.entry(frontend.service).or_default().push(op),
                _ => {}
            }
        }
        explain
    }

    /// Its name, or of a node that is not desired any more its tunnel address.
    fn node(&self, id: u32) -> String {
        match (self.names.get(&id), self.diff.actual.nodes.get(&id)) {
            (Some(name), _) => name.to_string(),
            (None, Some(node)) => tunnel(node),
            (None, None) => format!("id {id}"),
        }
    }

    fn nodes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for op in &self.diff.ops {
            let change = match op.row {
                Row::Node(id, node) => Change::new(op.action, "node", self.node(id), tunnel(&node)),
                Row::Address(address, value) => Change::new(
                    op.action,
                    "address",
                    address.to_string(),
                    format!("node {}", self.node(value.node)),
                ),
                _ => continue,
            };
            changes.push(change);
        }
        changes
    }

    /// Services that come, change or go, or whose frontends do, by name.
    fn services(&mut self) -> Vec<Change> {
        let ids: BTreeSet<u32> = self.services.keys().chain(self.frontends.keys()).copied().collect();
        let desired = self.diff.desired;
        let id_of = |identity: &u64| self.diff.ids.services.get(identity).copied();
        let names: BTreeMap<u32, _> = desired
            .services
            .iter()
            .filter_map(|(i, s)| Some((id_of(i)?, s)))
            .filter(|(id, _)| ids.contains(id))
            .collect();
        let mut changes: Vec<_> = ids
            .into_iter()
            .map(|id| {
                let service = names.get(&id).copied();
                let new = service.map(|s| self.diff.slots(s)).unwrap_or_default();
                let name = service.map_or_else(|| self.unnamed(id), |s| s.key.to_string());
                self.service(id, name, &new)
            })
            .collect();
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        changes
    }

    /// A service that is not desired any more has only its frontends to be known by.
    fn unnamed(&self, id: u32) -> String {
        let frontends = self.frontends.get(&id).into_iter().flatten();
        let keys = frontends.filter_map(|op| {
            if let Row::Frontend(key, _) = op.row {
                Some(key)
            } else {
                None
            }
        });
        // Its VIP rather than its published port.
        let key = keys.min_by_key(|key| key.network == NETWORK_NODE);
        key.map_or_else(|| format!("id {id}"), |key| endpoint(&key))
    }

    fn service(&mut self, id: u32, name: String, new: &[u32]) -> Change {
        let diff = self.diff;
        let action = self.services.get(&id).map_or(Action::Change, |op| op.action);
        let there = diff.actual.services.get(&id);
        let rows = there.map_or(&[][..], |there| diff.old.generation(id, there.generation));
        let old: Vec<u32> = rows.iter().map(|(_, backend)| *backend).collect();
        let mut change = Change::new(action, "service", name, "");
        for op in self.frontends.remove(&id).unwrap_or_default() {
            if let Row::Frontend(key, _) = op.row {
                change
                    .changes
                    .push(Change::new(op.action, "frontend", endpoint(&key), network(&key)));
            }
        }
        if !self.services.contains_key(&id) {
            return change;
        }
        let (before, after): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), new.iter().collect());
        for backend in before.difference(&after) {
            change.changes.push(self.leaver(**backend));
        }
        for backend in after.difference(&before) {
            change.changes.push(self.newcomer(**backend));
        }
        if before == after && old != new {
            change.changes.extend(self.weights(&old, new));
        }
        if change.changes.is_empty() && action == Action::Change {
            change.detail = if old == new {
                "settings".into()
            } else {
                "order of slots".into()
            };
        }
        change
    }

    /// A backend that a service does not choose any more.
    fn leaver(&mut self, id: u32) -> Change {
        self.told.insert(id);
        match (self.diff.actual.backends.get(&id), self.backends.get(&id)) {
            (Some(there), Some(op)) if op.action == Action::Remove => {
                backend(Action::Remove, there, state(there.state))
            }
            (Some(there), Some(_)) => self.changed(id, there),
            (Some(there), None) if there.state == abi::BACKEND_DRAINING => {
                backend(Action::Change, there, "draining, takes no new flow")
            }
            (Some(there), None) => backend(Action::Remove, there, state(there.state)),
            (None, _) => Change::new(Action::Remove, "backend", format!("id {id}"), "unknown"),
        }
    }

    /// A backend that a service chooses from now on.
    fn newcomer(&mut self, id: u32) -> Change {
        self.told.insert(id);
        match (
            self.diff.actual.backends.get(&id),
            self.backends.get(&id).map(|op| op.row),
        ) {
            (Some(there), Some(Row::Backend(..))) if there.state != BACKEND_GONE => self.changed(id, there),
            (_, Some(Row::Backend(_, value))) => backend(Action::Add, &value, state(value.state)),
            (Some(there), _) => backend(Action::Add, there, state(there.state)),
            (None, _) => Change::new(Action::Add, "backend", format!("id {id}"), "unknown"),
        }
    }

    fn changed(&self, id: u32, there: &abi::Backend) -> Change {
        let Some(Row::Backend(_, value)) = self.backends.get(&id).map(|op| op.row) else {
            return backend(Action::Change, there, "");
        };
        let mut parts = Vec::new();
        if there.state != value.state {
            parts.push(format!("{} -> {}", state(there.state), state(value.state)));
        }
        if there.node != value.node {
            parts.push(format!("node {} -> {}", self.node(there.node), self.node(value.node)));
        }
        if (there.ifindex, there.mac) != (value.ifindex, value.mac) {
            parts.push(format!("interface {} -> {}", there.ifindex, value.ifindex));
        }
        backend(Action::Change, &value, &parts.join(", "))
    }

    fn weights(&self, old: &[u32], new: &[u32]) -> Vec<Change> {
        let share = |slots: &[u32], id: u32| (slots.iter().filter(|slot| **slot == id).count(), slots.len());
        let members: BTreeSet<u32> = new.iter().copied().collect();
        let mut changes = Vec::new();
        for id in members {
            let ((a, b), (c, d)) = (share(old, id), share(new, id));
            if let Some(there) = self.diff.actual.backends.get(&id).filter(|_| a * d != c * b) {
                changes.push(backend(Action::Change, there, &format!("share {a}/{b} -> {c}/{d}")));
            }
        }
        changes
    }

    /// Backends that no service's change has told, and VIPs.
    fn rest(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, op) in self.backends.iter().filter(|(id, _)| !self.told.contains(id)) {
            let Row::Backend(_, value) = op.row else { continue };
            changes.push(match (op.action, self.diff.actual.backends.get(id)) {
                (Action::Change, Some(there)) => self.changed(*id, there),
                (Action::Remove, Some(there)) => backend(Action::Remove, there, state(there.state)),
                _ => backend(op.action, &value, state(value.state)),
            });
        }
        for op in &self.diff.ops {
            if let Row::Source(key, value) = op.row {
                let says = if value == abi::SOURCE_ALLOWED {
                    "allowed"
                } else {
                    "denied"
                };
                let detail = format!("{says}, service {}", key.service);
                changes.push(Change::new(op.action, "source", prefix(&key), detail));
            }
            if let Row::Vip(key, _) = op.row
                && op.action != Action::Change
            {
                changes.push(Change::new(
                    op.action,
                    "vip",
                    key.address.to_string(),
                    format!("network {}", key.network),
                ));
            }
        }
        changes
    }
}

fn backend(action: Action, value: &abi::Backend, detail: &str) -> Change {
    Change::new(action, "backend", endpoint(&key_of(value)), detail)
}

fn tunnel(node: &abi::Node) -> String {
    if node.tunnel_v4.is_v4() {
        node.tunnel_v4.to_string()
    } else {
        node.tunnel_v6.to_string()
    }
}

fn network(key: &EndpointKey) -> String {
    if key.network == NETWORK_NODE {
        "published".into()
    } else {
        format!("network {}", key.network)
    }
}
