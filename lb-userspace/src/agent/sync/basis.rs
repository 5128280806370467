//! [`Basis`]: from what the tables' content is made.

use std::sync::Arc;

use crate::model::desired::{self, Desired, UnknownNode};
use crate::model::snapshot::{Service, Snapshot};

/// From what [`Desired`] is made. It is large, and nobody needs it between two synchronisations.
#[derive(Debug, Default, PartialEq)]
pub(in crate::agent) struct Basis {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) node: String,
    pub(super) known: Arc<desired::Interfaces>,
}

impl Basis {
    /// What the tables should hold.
    ///
    /// # Errors
    /// If the snapshot does not know the node.
    pub(in crate::agent) fn desired(&self) -> Result<Desired, UnknownNode> {
        Desired::compile(&self.snapshot, &self.node, &self.known)
    }

    /// The same of these services alone.
    pub(super) fn part(&self, services: &[Arc<Service>]) -> Result<Desired, UnknownNode> {
        let Snapshot {
            generation,
            nodes,
            networks,
            ..
        } = &*self.snapshot;
        let part = Snapshot {
            generation: *generation,
            nodes: nodes.clone(),
            networks: networks.clone(),
            services: services.iter().cloned().collect(),
        };
        Desired::compile(&part, &self.node, &self.known)
    }
}
