//! [`Publisher`]: what was found out about the Swarm, for the rest of the agent.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::model::desired::Refusal;
use crate::model::snapshot::Snapshot;
use crate::provider::{Change, ProviderError, ProviderState};

/// What a manager read itself, for other nodes.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The state, with this agent's own counting of generations.
    pub snapshot: Arc<Snapshot>,
    /// How far the Swarm's log had come, at least. Never falls within one process.
    pub index: u64,
    /// When the state was last found so, taken before the reading began.
    pub read: Instant,
}

/// Both ends of what is published.
pub(super) struct Publisher {
    state: watch::Sender<ProviderState>,
    readings: watch::Sender<Option<Reading>>,
}

impl Publisher {
    pub(super) fn new(state: watch::Sender<ProviderState>, readings: watch::Sender<Option<Reading>>) -> Self {
        Self { state, readings }
    }

    /// Until nobody wants to know any more.
    pub(super) async fn closed(&self) {
        self.state.closed().await;
    }

    /// The state as this manager read it. `node` is the id of this node.
    pub(super) fn read(&self, snapshot: Snapshot, refused: Vec<Refusal>, node: &str, index: u64, read: Instant) {
        self.publish(snapshot, refused, node, "manager", true);
        let Some(snapshot) = self.state.borrow().snapshot.clone() else {
            return;
        };
        self.readings.send_modify(|reading| {
            let before = reading.as_ref().map_or(0, |reading| reading.index);
            *reading = Some(Reading {
                snapshot,
                index: index.max(before),
                read,
            });
        });
    }

    /// A manager has read the same as before.
    pub(super) fn unchanged(&self, read: Instant) {
        self.readings.send_if_modified(|reading| {
            let Some(reading) = reading else { return false };
            reading.read = read;
            true
        });
    }

    /// This node reads the Swarm's state no longer; what it read last, if it did until now.
    pub(super) fn no_manager(&self) -> Option<Arc<Snapshot>> {
        let mut last = None;
        self.readings.send_if_modified(|reading| {
            last = reading.take();
            last.is_some()
        });
        last.map(|reading| reading.snapshot)
    }

    /// A state from elsewhere. `node` is the id of this node; empty if it is not known.
    pub(super) fn accept(&self, snapshot: Snapshot, refused: Vec<Refusal>, node: &str, source: &'static str) {
        self.publish(snapshot, refused, node, source, false);
    }

    fn publish(&self, snapshot: Snapshot, refused: Vec<Refusal>, node: &str, source: &'static str, first_hand: bool) {
        let own = snapshot
            .nodes
            .iter()
            .find(|n| !node.is_empty() && n.id.as_deref() == Some(node));
        let own = own.map(|node| node.name.clone());
        self.state.send_if_modified(|state| {
            let change = state.accept(snapshot, refused, own.as_deref());
            if change == Change::Snapshot
                && let Some(snapshot) = &state.snapshot
            {
                info!(
                    target: "lb::provider",
                    source,
                    generation = snapshot.generation,
                    nodes = snapshot.nodes.len(),
                    networks = snapshot.networks.len(),
                    services = snapshot.services.len(),
                    refused = state.refused.len(),
                    "cluster state changed"
                );
            }
            // With the snapshot, so that nobody takes the one for the other.
            let before = std::mem::replace(&mut state.first_hand, first_hand);
            change != Change::Nothing || before != first_hand
        });
    }

    /// Whether nothing was published yet.
    pub(super) fn is_empty(&self) -> bool {
        self.state.borrow().snapshot.is_none()
    }

    /// Why there is no newer state; the last one stays.
    pub(super) fn reject(&self, message: impl Into<String>) {
        let error = ProviderError::Engine(message.into());
        self.state.send_if_modified(|state| {
            let text = error.to_string();
            let news = state.reject(error);
            if news {
                warn!(target: "lb::provider", error = text, "cluster state cannot be read; the last one stays");
            }
            news
        });
    }
}
