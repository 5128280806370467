//! What agents tell each other. JSON: fields that a reader does not know are passed over, those that it misses have a
//! default, so agents of neighbouring versions understand each other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the protocol. Raised only by what an older agent would misunderstand.
pub const PROTOCOL: u32 = 1;

/// Longest greeting, head or keepalive, bytes.
pub(super) const SMALL_MAX: usize = 4 << 10;
/// Longest report, bytes: room for thousands of addresses.
pub const REPORT_MAX: usize = 256 << 10;
/// Longest snapshot, bytes. A cluster at the limits of the tables describes itself in less.
pub const SNAPSHOT_MAX: usize = 64 << 20;

/// First message of both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub(super) protocol: u32,
    /// Version of its agent.
    pub(super) version: String,
    /// Its node.
    pub(super) node: String,
    /// Whether a node wants snapshots; without, it only reports.
    #[serde(default)]
    pub(super) snapshots: bool,
}

impl Hello {
    pub(super) fn of(node: &str, snapshots: bool) -> Self {
        Self {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            node: node.into(),
            snapshots,
        }
    }

    /// # Errors
    /// The peer speaks another protocol, or does not say who it is.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.protocol != PROTOCOL {
            return Err(format!(
                "the peer (agent {}) speaks protocol {} of the stream, this agent {} speaks {PROTOCOL}: bring both to \
                 one version",
                self.version,
                self.protocol,
                env!("CARGO_PKG_VERSION")
            ));
        }
        match self.node.is_empty() {
            true => Err("the peer does not say which node it is".into()),
            false => Ok(()),
        }
    }
}

/// What a manager has at this moment; sent every second, and before each snapshot, of which it then speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Of the manager's process: generations of different epochs say nothing about each other.
    pub(super) epoch: u64,
    /// Rises with each snapshot of this epoch; 0 while there is none.
    pub(super) generation: u64,
    /// [`super::View::index`].
    #[serde(default)]
    pub(super) index: Option<u64>,
    /// Since the source was last read, milliseconds.
    pub(super) age_ms: u64,
}

impl Head {
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(self.age_ms)
    }
}

/// What an agent reports about its own node, because no manager can know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The node's ID in the cluster.
    pub node: String,
    /// Its host name.
    #[serde(default)]
    pub name: String,
    /// Every address on which the node answers.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// IDs of the tasks to which the node's tables lead what comes for published ports. `None`: an older
    /// agent, which does not say.
    #[serde(default)]
    pub tasks: Option<BTreeSet<String>>,
    /// IDs of the node's tasks whose containers have died, as long as the cluster state may still name them.
    #[serde(default)]
    pub died: BTreeSet<String>,
}

/// The last report of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// What it said.
    pub report: Report,
    /// Whether its agent is connected: what it said is so now.
    pub live: bool,
}

/// Reads a message.
///
/// # Errors
/// It is not what it should be.
pub(super) fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, String> {
    serde_json::from_slice(content).map_err(|error| format!("the peer sent a message that makes no sense: {error}"))
}

/// Writes a message.
pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // These types hold nothing that JSON cannot say.
    serde_json::to_vec(message).unwrap_or_default()
}
