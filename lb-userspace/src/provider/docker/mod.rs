//! Provider `docker`: a Docker Swarm, through the Engine API of this node's dockerd.
//!
//! On a manager it lists the Swarm's objects and follows them ([`Reading`] is what other nodes get of it). A worker's
//! dockerd does not know them: there the state comes from a manager's agent ([`Streamed`]), and from what the nodes'
//! engines tell each other while none answers. On every node it watches the local containers ([`Local`]).
//!
//! [`api`] reads the answers, [`translate`] and [`from_gossip`] put them in the project's own words, without any I/O.
//!
//! What the lists do not hold, and so the snapshot does not either: the data-path address of a node (with
//! `--data-path-addr` it differs from the address that `GET /nodes` shows), its further addresses, which its agent
//! reports, and what matters on the node itself alone: addresses on the gateway bridge, plain containers ([`Local`]).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ProviderState;
use crate::config::Config;
use crate::model::snapshot::Snapshot;

pub mod api;
mod backoff;
pub mod drift;
pub mod engine;
mod gossip;
pub mod local;
mod manager;
mod publish;
mod role;
mod run;
mod services;
mod sources;
pub mod translate;

pub use drift::Drift;
pub use gossip::from_gossip;
pub use local::Local;
pub use publish::Reading;
pub use role::{Part, Role};
pub use translate::{TranslateError, node_names, translate};

/// How the provider is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// dockerd's socket.
    pub socket: PathBuf,
    /// Intervals and patience.
    pub timing: Timing,
}

/// Intervals and patience.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often a manager lists the tasks.
    pub poll: Duration,
    /// A call takes this long at most. The engine answers within milliseconds, or it hangs.
    pub call: Duration,
    /// Everything in the Swarm is listed anew this often, whatever events say.
    pub full: Duration,
    /// Everything on this node is read anew this often, whatever events say.
    pub resync: Duration,
    /// The role of a node that is no manager is looked at this often, and its engine asked this often about the
    /// Swarm while no manager's agent answers.
    pub look: Duration,
    /// So long a worker waits for a manager's agent before it asks its own engine.
    pub grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            call: Duration::from_secs(5),
            full: Duration::from_secs(30),
            resync: Duration::from_secs(10),
            look: Duration::from_secs(5),
            grace: Duration::from_secs(3),
        }
    }
}

impl From<&Config> for Options {
    fn from(config: &Config) -> Self {
        Self {
            socket: config.provider.socket.clone(),
            timing: Timing {
                poll: config.provider.poll,
                ..Timing::default()
            },
        }
    }
}

/// What managers' agents say.
#[derive(Clone, Debug, Default)]
pub struct Streamed {
    /// The last state that came, or was kept on the disk.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Whether it comes from a manager that is connected and reads the Swarm.
    pub live: bool,
}

/// What the provider publishes.
#[derive(Debug)]
pub struct Docker {
    /// The cluster state, on every node.
    pub state: watch::Receiver<ProviderState>,
    /// What this node read itself; `None` while it is no manager.
    pub readings: watch::Receiver<Option<Reading>>,
    /// This node's part in the Swarm.
    pub role: watch::Receiver<Role>,
    /// What runs on this node.
    pub local: watch::Receiver<Arc<Local>>,
    /// IDs of this node's tasks whose containers have died of late, by whatever cause.
    pub died: watch::Receiver<BTreeSet<String>>,
    /// How `state` differs from what this node's engine knows; `None` until that is known.
    pub drift: watch::Receiver<Option<Drift>>,
}

/// Starts the provider within the current tokio runtime. Each half ends when the receivers of what it finds out are
/// gone: `state` for the Swarm, `local` for this node.
pub fn start(options: Options, streamed: watch::Receiver<Streamed>) -> Docker {
    let engine = Arc::new(engine::Engine::new(&options.socket, options.timing.call));
    let (state, states) = watch::channel(ProviderState::default());
    let (reading, readings) = watch::channel(None);
    let (role, roles) = watch::channel(Role::default());
    let (local, locals) = watch::channel(Arc::default());
    let publisher = Arc::new(publish::Publisher::new(state, reading));
    tokio::spawn(run::watch(
        Arc::clone(&engine),
        publisher,
        role,
        streamed,
        options.timing,
    ));
    let (drift, drifts) = watch::channel(None);
    tokio::spawn(drift::watch(Arc::clone(&engine), states.clone(), drift));
    let (died, deaths) = watch::channel(BTreeSet::new());
    let outlets = local::Outlets { local, died };
    tokio::spawn(local::watch(engine, outlets, options.timing.resync));
    Docker {
        state: states,
        readings,
        role: roles,
        local: locals,
        died: deaths,
        drift: drifts,
    }
}

/// The Swarm's id of the task that a backend is, by the backend's name.
pub fn task_id(backend: &str) -> &str {
    backend.rsplit('.').next().unwrap_or(backend)
}

#[cfg(test)]
mod tests;
