//! [`Status`]: the node at a glance.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{MapStatus, Traffic, time};
use crate::provider::docker::Drift;
use crate::stream::StreamStatus;

/// The node at a glance. The agent fills in everything but `pressed`, `maps` and `traffic`, which are read when asked
/// for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Maps are loaded and the first synchronisation succeeded.
    pub ready: bool,
    /// None when the answer comes from the maps.
    pub agent: Option<AgentStatus>,
    /// None when the answer comes from the maps.
    pub provider: Option<ProviderStatus>,
    /// None where the cluster is no Swarm.
    pub swarm: Option<SwarmStatus>,
    /// Programs and where they are attached.
    pub datapath: DatapathStatus,
    /// None when names are not served.
    pub dns: Option<DnsStatus>,
    /// Networks whose traffic is left to others.
    pub refused: Vec<Refused>,
    /// New flows go to the overflow tables, because a flow table was full a moment ago.
    pub pressed: bool,
    /// Fill of every map.
    pub maps: Vec<MapStatus>,
    /// Packets by reason since the maps were made.
    pub traffic: Vec<Traffic>,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Process id.
    pub pid: u32,
    /// Version of the package.
    pub version: String,
    /// Name of this node.
    pub node: String,
    /// This node's addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Start of the process.
    #[serde(with = "time")]
    pub started: SystemTime,
}

/// Where cluster state comes from, and how far it has been carried out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderStatus {
    /// `file`, `docker` ...
    pub kind: String,
    /// What it reads: a path, an address.
    pub location: String,
    /// Whether its last reading succeeded.
    pub connected: bool,
    /// Why not; the last good state stays in force.
    pub error: Option<ProviderError>,
    /// Generation of the newest snapshot.
    pub generation: u64,
    /// Generation that the maps hold.
    pub applied: u64,
    /// Why `applied` lags behind.
    pub sync_error: Option<String>,
    /// End of the last successful synchronisation.
    #[serde(with = "time::option")]
    pub last_sync: Option<SystemTime>,
    /// How long it took, milliseconds.
    pub last_sync_ms: Option<f64>,
}

/// What is wrong with the provider's input, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderError {
    /// One sentence.
    pub message: String,
    /// Path of the document.
    pub file: Option<String>,
    /// Counted from 1.
    pub line: Option<u32>,
    /// As `services[0].ports[1].published`.
    pub field: Option<String>,
}

impl std::fmt::Display for ProviderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// This node's part in a Swarm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwarmStatus {
    /// `manager`, `worker`, `none` or `unknown`.
    pub role: String,
    /// Why there is no part, if there is none.
    pub reason: Option<String>,
    /// Its id in the Swarm.
    pub node: String,
    /// Running containers in overlay networks.
    pub containers: u64,
    /// Why the containers are not the newest state, if they are not.
    pub error: Option<String>,
    /// How the state in force differs from what this node's engine knows; none until it was compared.
    pub drift: Option<Drift>,
    /// What agents tell each other.
    pub stream: StreamStatus,
}

/// Programs and maps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatapathStatus {
    /// Version of the map layout.
    pub schema: u32,
    /// Where programs are attached, or should be.
    pub interfaces: Vec<InterfaceStatus>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceStatus {
    /// Its name in its network namespace.
    pub name: String,
    /// Name of that namespace; empty for the agent's own.
    pub namespace: String,
    /// Its index.
    pub ifindex: u32,
    /// `node` or `workload`.
    pub role: String,
    /// Programs on it.
    pub hooks: Vec<HookStatus>,
}

/// One program at one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookStatus {
    /// `xdp`, `tc_ingress`, `tc_egress`.
    pub hook: String,
    /// `native`, `generic`, `tcx`, `clsact`, or `off`.
    pub mode: String,
    /// Why this mode, or why it is off.
    pub why: Option<String>,
}

/// What the name server did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsStatus {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Networks with names.
    pub networks: u64,
    /// Names that it answers itself.
    pub names: u64,
    /// Queries answered, from any source.
    pub queries: u64,
    /// Of these, SERVFAIL.
    pub servfail: u64,
}

/// Something that is deliberately not balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Name of the network.
    pub network: String,
    /// One sentence.
    pub reason: String,
}
