//! [`Drift`]: how the cluster state differs from what this node's own engine knows of it by gossip.
//!
//! The two are never quite of the same moment: something that is on its way shows up here for some seconds. What stays
//! means that one of them is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::api::node::GossipedNetwork;
use super::engine::Engine;
use super::run::gossip;
use super::translate::address;
use crate::model::snapshot::{BackendState, Snapshot};
use crate::provider::ProviderState;

/// So often the engine is asked: newer ones log an error at each such question.
const INTERVAL: Duration = Duration::from_secs(30);
/// After the start, the first time.
const FIRST: Duration = Duration::from_secs(5);

/// What differs, each as `network/service address`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The engine knows a task or VIP that the cluster state has not.
    pub missing: Vec<String>,
    /// The cluster state has a ready task or a VIP that the engine does not know.
    pub surplus: Vec<String>,
}

impl Drift {
    /// Whether the two agree.
    pub fn is_none(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty()
    }
}

/// Compares `snapshot` with what the engine says of the networks that it has an endpoint in.
pub fn drift(snapshot: &Snapshot, networks: &[GossipedNetwork]) -> Drift {
    let mut drift = Drift::default();
    for gossiped in networks {
        let Some(services) = &gossiped.services else { continue };
        let Some(network) = snapshot.networks.iter().find(|n| n.name == gossiped.network.name) else {
            continue;
        };
        let (mut ready, mut all, mut theirs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for service in snapshot.services.iter().filter(|s| s.network == network.name) {
            let name = service.name.as_str();
            // A VIP on the mesh is nobody's frontend, and no part of the state.
            if service.backends.iter().any(|b| b.state == BackendState::Ready) {
                ready.extend(service.vips.iter().map(|vip| (name, *vip)));
            }
            all.extend(service.vips.iter().map(|vip| (name, *vip)));
            for backend in &service.backends {
                all.extend(backend.addresses.iter().map(|ip| (name, *ip)));
                if backend.state == BackendState::Ready {
                    ready.extend(backend.addresses.iter().map(|ip| (name, *ip)));
                }
            }
        }
        for (name, gossip) in services.iter().filter(|(name, _)| !name.is_empty()) {
            let Some(gossip) = gossip else { continue };
            let vip = address(&gossip.vip).filter(|_| !network.ingress);
            let tasks = gossip.tasks.iter().filter_map(|task| address(&task.address));
            theirs.extend(vip.into_iter().chain(tasks).map(|ip| (name.as_str(), ip)));
        }
        let line = |(service, ip): &(&str, IpAddr)| format!("{}/{service} {ip}", network.name);
        drift.missing.extend(theirs.difference(&all).map(line));
        drift.surplus.extend(ready.difference(&theirs).map(line));
    }
    drift
}

/// Compares now and then until nobody wants to know any more. What differs is told when it has differed twice in a row.
pub(super) async fn watch(
    engine: Arc<Engine>,
    state: watch::Receiver<ProviderState>,
    sender: watch::Sender<Option<Drift>>,
) {
    let start = tokio::time::Instant::now() + FIRST;
    let mut tick = tokio::time::interval_at(start, INTERVAL);
    let mut before = Drift::default();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = sender.closed() => return,
        }
        let Ok(networks) = gossip(&engine).await else { continue };
        let Some(snapshot) = state.borrow().snapshot.clone() else {
            continue;
        };
        let now = drift(&snapshot, &networks);
        let stays = Drift {
            missing: both(&before.missing, &now.missing),
            surplus: both(&before.surplus, &now.surplus),
        };
        before = now;
        sender.send_if_modified(|drift| {
            let news = drift.as_ref() != Some(&stays);
            *drift = Some(stays);
            news
        });
    }
}

fn both(before: &[String], now: &[String]) -> Vec<String> {
    let before: BTreeMap<_, ()> = before.iter().map(|line| (line, ())).collect();
    now.iter().filter(|line| before.contains_key(line)).cloned().collect()
}
