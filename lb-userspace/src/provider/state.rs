//! [`ProviderState`]: what a provider publishes.

use std::sync::Arc;
use std::time::Instant;

use super::ProviderError;
use crate::model::desired::Refusal;
use crate::model::snapshot::Snapshot;

/// What a provider knows at this moment.
#[derive(Clone, Debug)]
pub struct ProviderState {
    /// The last valid snapshot; `None` until there has been one. Stays while [`ProviderState::error`] is set.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Name of this node in the snapshot, where the source says which node it was read on; `None`: the configured
    /// name holds.
    pub node: Option<Arc<str>>,
    /// A Swarm's manager has read the snapshot on this node: what nodes report is not in it. What comes from another agent
    /// has it.
    pub first_hand: bool,
    /// What of the source is not in the snapshot, and why; sorted.
    pub refused: Arc<Vec<Refusal>>,
    /// Why the newest state of the source is not in force, if it is not.
    pub error: Option<Arc<ProviderError>>,
    /// When `snapshot` or `error` last changed. No wall clock, which may jump.
    pub last_change: Instant,
}

/// What [`ProviderState::accept`] changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Everything was so before.
    Nothing,
    /// The snapshot was so before; something about it was not.
    Circumstances,
    /// The snapshot, and so its generation.
    Snapshot,
}

impl Default for ProviderState {
    fn default() -> Self {
        Self {
            snapshot: None,
            node: None,
            first_hand: false,
            refused: Arc::default(),
            error: None,
            last_change: Instant::now(),
        }
    }
}

impl ProviderState {
    /// Puts a snapshot in force. Its generation becomes that of the last one, or one more if it says something else.
    pub(crate) fn accept(&mut self, mut snapshot: Snapshot, refused: Vec<Refusal>, node: Option<&str>) -> Change {
        let current = self.snapshot.as_deref();
        let generation = current.map_or(0, |current| current.generation);
        snapshot.generation = generation;
        if let Some(current) = current {
            snapshot.services.share(&current.services);
        }
        let same = current == Some(&snapshot);
        if same && self.error.is_none() && *self.refused == refused && self.node.as_deref() == node {
            return Change::Nothing;
        }
        if !same || self.error.is_some() {
            self.last_change = Instant::now();
        }
        self.error = None;
        if *self.refused != refused {
            self.refused = Arc::new(refused);
        }
        self.node = node.map(Arc::from);
        if same {
            return Change::Circumstances;
        }
        snapshot.generation = generation + 1;
        self.snapshot = Some(Arc::new(snapshot));
        Change::Snapshot
    }

    /// Takes note of why the newest state is not in force; the last snapshot stays. Returns whether that is news.
    pub(crate) fn reject(&mut self, error: ProviderError) -> bool {
        if self.error.as_deref() == Some(&error) {
            return false;
        }
        self.error = Some(Arc::new(error));
        self.last_change = Instant::now();
        true
    }
}
