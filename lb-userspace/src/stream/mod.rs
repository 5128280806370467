//! The stream between agents. Where only some nodes can read the cluster state (in a Swarm, the managers), an agent
//! on one of those sends every snapshot to the others ([`Server`]), and every agent tells all managers what only it
//! knows about its own node ([`Client`], [`Report`]).
//!
//! TCP with TLS 1.3; both ends prove who they are ([`Identity`]) before a byte of content is sent. Snapshots are
//! complete, so a reader that is slow misses those in between and nothing else; the server holds one encoded
//! snapshot for all of its connections.
//!
//! **Which view is newer?** Generations count within one agent process and are not comparable between managers. A
//! node stays with its manager while that one is connected and reads its own source. If not, it goes over to another
//! at once if that one's view is not older than the one in force: it has the same content; or its [`View::index`] is
//! not lower; or, where views have no index, it was read later, as the receiver's clock sees both. A view that may be
//! older has to wait until it can be assumed to have caught up ([`Timing::settle`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::snapshot::Snapshot;

mod choose;
mod client;
mod disk;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod identity;
mod link;
mod message;
mod patience;
mod publish;
mod remember;
mod reports;
mod secret;
mod seldom;
mod server;
mod status;
mod trust;

pub use client::{Client, ClientOptions};
pub use identity::{Identity, IdentityError};
pub use message::{PROTOCOL, REPORT_MAX, Report, Reported, SNAPSHOT_MAX};
pub use remember::{remembered, reports_file};
pub use secret::{SECRET_MIN, SecretError};
pub use server::{Server, ServerError, ServerOptions};
pub use status::{ManagerStatus, Role, Source, StreamStatus};

/// The cluster state as a manager sees it.
#[derive(Clone, Debug)]
pub struct View {
    /// The state.
    pub snapshot: Arc<Snapshot>,
    /// How far the source had come when this was read, if it says so: of two views of one cluster, the one with the
    /// lower index is the older one. It must never fall within one process. (The highest object version in a Swarm
    /// does fall when that object is removed: keep the maximum.)
    pub index: Option<u64>,
    /// When the source was last read and found so, taken before the reading began.
    pub read: Instant,
}

/// Intervals and patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Both ends say something at least this often.
    pub alive: Duration,
    /// A peer from which nothing came, or to which nothing could be sent, for so long is gone.
    pub silence: Duration,
    /// A connection must be made, and both ends known, within this time.
    pub handshake: Duration,
    /// Pause before the first new try to connect, and the longest; a random part of it is left out.
    pub backoff: [Duration; 2],
    /// A report stays so long after the connection over which it came: an agent that is away has left its tables in the
    /// kernel as it said, and one that is away for longer is taken to have gone for good.
    pub retain: Duration,
    /// A manager that has not read its source for so long is left if another one has.
    pub stale: Duration,
    /// A view that may be older than the one in force is taken if nothing better has come for so long.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            alive: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            backoff: [Duration::from_millis(100), Duration::from_secs(5)],
            retain: Duration::from_secs(24 * 3600),
            stale: Duration::from_secs(10),
            settle: Duration::from_secs(5),
        }
    }
}

/// Whether two snapshots say the same; their generations are not looked at.
fn same(a: &Snapshot, b: &Snapshot) -> bool {
    let Snapshot {
        generation: _,
        nodes,
        networks,
        services,
    } = a;
    *nodes == b.nodes && *networks == b.networks && *services == b.services
}

#[cfg(test)]
#[path = "tests/wire.rs"]
mod tests;
