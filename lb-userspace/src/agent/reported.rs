//! What the nodes' agents say of their own nodes, put into the cluster state: their further addresses, which tasks are in
//! their tables, and which have died. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::NETWORK_NODE;

use super::lead::without;
use crate::model::desired::Desired;
use crate::model::snapshot::{Backend, BackendState, Service, Snapshot};
use crate::provider::docker::task_id;
use crate::stream::{Report, Reported};

/// The snapshot with what nodes report.
///
/// - Their addresses come behind those that the Swarm knows. One that is another node's stays that node's, and whose agent
///   is connected has it before one whose agent is away.
/// - Backends of the routing mesh that a node does not report are pending. A node that has never reported says nothing
///   about them: perhaps it has no agent.
pub(super) fn with_reports(snapshot: &Snapshot, reports: &BTreeMap<String, Reported>) -> Snapshot {
    let mut merged = snapshot.clone();
    let mut taken: BTreeSet<IpAddr> = merged.nodes.iter().flat_map(|node| node.addresses.clone()).collect();
    let report = |id: &Option<String>| id.as_ref().and_then(|id| reports.get(id));
    for live in [true, false] {
        for node in &mut merged.nodes {
            let Some(reported) = report(&node.id).filter(|reported| reported.live == live) else {
                continue;
            };
            let addresses = reported.report.addresses.iter();
            node.addresses
                .extend(addresses.filter(|address| taken.insert(**address)));
        }
    }
    let nodes = merged.nodes.iter();
    let tasks: BTreeMap<&str, &BTreeSet<String>> = nodes
        .filter_map(|node| Some((node.name.as_str(), report(&node.id)?.report.tasks.as_ref()?)))
        .collect();
    let networks = merged.networks.iter();
    // The tunnel never carries what is encrypted.
    let mesh: BTreeSet<&str> = networks
        .filter(|network| network.ingress && !network.encrypted)
        .map(|network| network.name.as_str())
        .collect();
    for service in merged.services.iter_mut() {
        if mesh.contains(service.network.as_str()) {
            for backend in &mut service.backends {
                let tasks = tasks.get(backend.node.as_str());
                backend.pending = tasks.is_some_and(|tasks| !tasks.contains(task_id(&backend.name)));
            }
        }
    }
    merged
}

/// Tasks that the cluster state names and whose containers have died. None comes back, so each is remembered for as long as it
/// is named.
#[derive(Debug, Default)]
pub(super) struct Dead(BTreeSet<String>);

impl Dead {
    /// Adds what a report says of its own node's tasks, and forgets what is not named any more. `own` are deaths on this
    /// node, whose name is `node`.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        reports: &BTreeMap<String, Reported>,
        node: Option<&str>,
        own: &BTreeSet<String>,
    ) {
        let nodes = snapshot.nodes.iter();
        let died: BTreeMap<&str, &Report> = nodes
            .filter_map(|node| Some((node.name.as_str(), &reports.get(node.id.as_ref()?)?.report)))
            .collect();
        let before = std::mem::take(&mut self.0);
        let backends = snapshot.services.iter().flat_map(|service| &service.backends);
        let dead = backends.filter_map(|backend| {
            let task = task_id(&backend.name);
            let said = died.get(backend.node.as_str()).is_some_and(|r| r.died.contains(task));
            let here = node == Some(backend.node.as_str()) && own.contains(task);
            (said || here || before.contains(task)).then(|| task.to_owned())
        });
        self.0 = dead.collect();
    }

    /// New flows go to others at once. What is under way is let alone: last answers may be on their way.
    pub(super) fn drain(&self, snapshot: &mut Snapshot) {
        for backend in snapshot.services.iter_mut().flat_map(|service| &mut service.backends) {
            if self.0.contains(task_id(&backend.name)) {
                backend.state = BackendState::Draining;
            }
        }
    }

    /// Those on a node.
    pub(super) fn on<'a>(&'a self, snapshot: &'a Snapshot, node: &'a str) -> impl Iterator<Item = &'a str> {
        let backends = snapshot.services.iter().flat_map(|service| &service.backends);
        backends
            .filter(move |backend| backend.node == node)
            .map(|backend| task_id(&backend.name))
            .filter(|task| self.0.contains(*task))
    }
}

/// IDs of the tasks to which this node's tables lead what comes for published ports.
pub(super) fn serving(desired: &Desired) -> BTreeSet<String> {
    let local = desired.local_backends.iter();
    let backends = local.filter_map(|key| desired.backends.get(key));
    backends
        .filter(|backend| backend.delivery_network == NETWORK_NODE)
        .map(|backend| task_id(&backend.name).to_owned())
        .collect()
}

/// The snapshot without the ready backends on other nodes that are pending, where a service has one that is not: also one that
/// drains serves better. `None`: there are none.
pub(super) fn hold(snapshot: &Snapshot, node: &str) -> Option<Snapshot> {
    let judge = |_: &Service| Some(|backend: &Backend| backend.pending);
    without(snapshot, node, judge, |backend| !backend.pending)
}

/// How many backends [`hold`] has left out, by node.
pub(super) fn held(whole: &Snapshot, rest: &Snapshot) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (whole, rest) in whole.services.iter().zip(&rest.services) {
        let left: BTreeSet<&str> = rest.backends.iter().map(|backend| backend.name.as_str()).collect();
        for backend in whole.backends.iter().filter(|b| !left.contains(b.name.as_str())) {
            *counts.entry(backend.node.clone()).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
pub(super) mod tests;
