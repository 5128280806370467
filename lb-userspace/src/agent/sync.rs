//! [`Synchronizer`]: makes the kernel hold what the newest snapshot says. Level-triggered: a run looks
//! at everything, whatever the reason for it, unless nothing but a few services has changed (`follow`).
//!
//! Order: what programs need to know of interfaces, then the programs, then the tables, then what is left over.
//! So nobody is sent to a backend whose interface cannot translate its replies yet; programs whose tables are
//! still empty pass everything.

mod basis;
mod follow;
mod look;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use lb_common::abi::{EndpointKey, Interface, InterfaceKey, Settings};

use super::containers::Finder;
use super::surroundings::Oddity;
use crate::config::Config;
use crate::datapath::attach::{Attacher, Attachment, Interfaces};
use crate::datapath::collect::Census;
use crate::datapath::probe::Features;
use crate::datapath::store::Store;
use crate::model::snapshot::Snapshot;
use crate::net::{Link, Netlink, Routes};
use crate::plan::{Mirror, Resting, Reusable};
use crate::provider::docker::Local;
pub(super) use basis::Basis;
use follow::Removals;

/// What one synchronisation did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Programs and where they are.
    pub(super) attachments: Vec<Attachment>,
    /// What is not served, and why.
    pub(super) odd: Vec<Oddity>,
    /// What went wrong, if something did: some services may be as they were before.
    pub(super) problems: Vec<String>,
    /// Whether the tables hold all that was desired.
    pub(super) complete: bool,
    /// Writes done.
    pub(super) writes: usize,
    /// Time for compiling, for reading and comparing, and for writing.
    pub(super) phases: [Duration; 3],
    /// From what that was made which is in force.
    pub(super) basis: Arc<Basis>,
    /// All tables were read and compared, which takes memory for a moment.
    pub(super) whole: bool,
}

/// Holds everything that changes the kernel's state.
pub(super) struct Synchronizer {
    pub(super) config: Arc<Config>,
    pub(super) features: Features,
    pub(super) attacher: Attacher,
    pub(super) store: Store,
    pub(super) netlink: Netlink,
    /// Finds this node's containers, where a container engine has them.
    pub(super) finder: Option<Finder>,
    /// Something of the last snapshot is held back until the surroundings are ready for it.
    pub(super) waiting: bool,
    /// Numbers that may be given again, and some that may not, as the newest walk over the flows has it.
    reusable: Reusable,
    /// Programs of another version forward by tables of their own: ours are filled before they take over.
    pub(super) fill_first: bool,
    /// Backends that datagrams of a service have left, although another one still uses them.
    shed: BTreeSet<(u64, EndpointKey)>,
    /// Backends without a slot in their service, which was so after the last synchronisation. `None`: it was not complete, or
    /// there was none; what left services meanwhile is found in the flows.
    resting: Option<Resting>,
    /// What the last complete synchronisation was made from: a change of neighbours that changes none of it
    /// needs no reading of the tables.
    last: Option<Last>,
    /// How this node reaches its own backends, as long as nothing is known to have changed.
    routes: Routes,
}

/// The last complete synchronisation.
struct Last {
    inputs: Inputs,
    interfaces: Interfaces,
    attachments: Vec<Attachment>,
    odd: Vec<Oddity>,
    /// What the tables hold since, if a part of it can be planned alone.
    mirror: Option<Mirror>,
    /// What is to be removed when the tables have settled; everything else is in force.
    removals: Removals,
}

#[derive(PartialEq)]
struct Inputs {
    basis: Arc<Basis>,
    links: Vec<Link>,
    rows: BTreeMap<InterfaceKey, Interface>,
    settings: Settings,
}

/// What the kernel shall hold the consequences of.
#[derive(Clone, Copy)]
pub(super) struct Cluster<'a> {
    /// Name of this node.
    pub(super) node: &'a str,
    /// The cluster.
    pub(super) snapshot: &'a Arc<Snapshot>,
    /// This node's containers, where a container engine has them.
    pub(super) local: &'a Local,
}

/// How thorough a synchronisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The snapshot is new; of the surroundings no change is known.
    Snapshot,
    /// Nothing is done if neither snapshot nor surroundings have changed.
    Changes,
    /// The tables are read and compared in any case.
    Full,
}

impl Synchronizer {
    pub(super) fn new(
        config: Arc<Config>,
        features: Features,
        attacher: Attacher,
        store: Store,
        netlink: Netlink,
        finder: Option<Finder>,
    ) -> Self {
        Self {
            config,
            features,
            attacher,
            store,
            netlink,
            finder,
            waiting: false,
            reusable: Reusable::default(),
            fill_first: false,
            shed: BTreeSet::new(),
            resting: None,
            last: None,
            routes: Routes::default(),
        }
    }

    /// Takes note of what a walk over the flows has found.
    pub(super) fn counted(&mut self, census: Census) {
        if let Some(began) = census.began {
            self.reusable.seen(began, &census.services);
        }
        self.reusable.backends = census.unused;
    }

    /// Makes the kernel hold what `snapshot` says. `None`: nothing has changed.
    ///
    /// # Errors
    /// If nothing could be done. Failures of parts are in [`Outcome::problems`].
    pub(super) async fn run(&mut self, cluster: &Cluster<'_>, depth: Depth) -> Result<Option<Outcome>> {
        if depth == Depth::Snapshot
            && let Some(outcome) = self.follow(cluster).await?
        {
            return Ok(Some(outcome));
        }
        let (inputs, interfaces, odd) = self.look(cluster).await?;
        if depth == Depth::Changes && self.last.as_ref().is_some_and(|last| last.inputs == inputs) {
            return Ok(None);
        }
        self.last = None;
        let (outcome, mirror) = tokio::task::block_in_place(|| self.write(&inputs, &interfaces, odd))?;
        if outcome.problems.is_empty() {
            self.last = Some(Last {
                inputs,
                interfaces,
                attachments: outcome.attachments.clone(),
                odd: outcome.odd.clone(),
                mirror,
                removals: Removals::default(),
            });
        }
        Ok(Some(outcome))
    }
}
