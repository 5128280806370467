//! What an agent says about its streams.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Which end of the stream this agent is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// None: the stream is off.
    #[default]
    Off,
    /// It reads the cluster state itself and sends it.
    Manager,
    /// It receives it.
    Worker,
}

/// Where the state in force came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// There is none yet.
    #[default]
    Nothing,
    /// From this manager's agent.
    Manager {
        /// Where it listens.
        address: SocketAddr,
        /// Which node it is.
        node: String,
    },
    /// From this node's disk: no manager has answered since the agent started.
    Disk,
    /// From the engine of this node.
    Engine,
}

/// A manager, as an agent that follows it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Where its agent listens.
    pub address: SocketAddr,
    /// Which node it is, once it has said so.
    pub node: Option<String>,
    /// Whether there is a connection, with both ends known.
    pub connected: bool,
    /// Whether the state in force is its state.
    pub current: bool,
    /// Generation of its newest snapshot, of its own counting.
    pub generation: Option<u64>,
    /// Since it last read its source, milliseconds.
    pub age_ms: Option<u64>,
    /// Why there is no connection.
    pub error: Option<String>,
}

/// The streams of one agent at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Which end this agent is.
    pub role: Role,
    /// Where the state in force came from.
    pub source: Source,
    /// Since the source of the state in force was last read, milliseconds; none if nobody knows.
    pub age_ms: Option<u64>,
    /// Managers that are followed.
    pub managers: Vec<ManagerStatus>,
    /// Nodes that are connected to this manager.
    pub nodes: Vec<String>,
    /// Nodes whose reports are known to this manager.
    pub reports: u64,
    /// What does not work, if something does not; a manager's own errors are at the manager.
    pub error: Option<String>,
}
