//! What the admin socket answers and `lbctl -o json` prints: the stable, versioned JSON.
//!
//! Fields may be added within [`API_VERSION`]; none is renamed, removed or given another meaning.
//! Numbers are numbers, addresses strings, times RFC 3339, durations seconds or named with their unit.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::snapshot::{BackendState, EndpointMode, Protocol};

/// Version of everything in this file.
pub const API_VERSION: &str = "v1";

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The running agent.
    #[default]
    Agent,
    /// The pinned maps, read without an agent: names are not known.
    Maps,
}

/// Every answer: a list of one kind of item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ServiceList`, `Status` ...
    pub kind: String,
    /// Who answers.
    pub source: Origin,
    /// Generation of the snapshot that the names come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Number of items that match, where a limit cut the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// The answer.
    pub items: Vec<T>,
}

impl<T: Item> List<T> {
    /// An answer from `source`.
    pub fn new(source: Origin, items: Vec<T>) -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: T::KIND.into(),
            source,
            generation: None,
            total: None,
            items,
        }
    }
}

/// Something that lists are made of.
pub trait Item {
    /// Kind of a list of these.
    const KIND: &'static str;
    /// Names that [`Item::field`] knows.
    const FIELDS: &'static [&'static str];
    /// The values to compare with a filter `name=value`; empty for a field that is not set.
    fn field(&self, name: &str) -> Vec<String>;
}

/// `{"error": ...}`: why there is no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// One sentence, lower case, without full stop.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// An error without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Kinds of failure; `lbctl` gives each its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request makes no sense.
    Usage,
    /// Neither agent nor maps can be reached, or the agent cannot answer yet.
    Unavailable,
    /// The caller may not.
    PermissionDenied,
    /// No such object.
    NotFound,
    /// More than one object of that name.
    Ambiguous,
    /// Another API version or map layout.
    Version,
    /// Anything else.
    Internal,
}

/// The body of a failed request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure.
    pub error: Error,
}

/// The node at a glance. The agent fills in everything but `maps` and `traffic`, which are read when asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Maps are loaded and the first synchronisation succeeded.
    pub ready: bool,
    /// None when the answer comes from the maps.
    pub agent: Option<AgentStatus>,
    /// None when the answer comes from the maps.
    pub provider: Option<ProviderStatus>,
    /// Programs and where they are attached.
    pub datapath: DatapathStatus,
    /// None when names are not served.
    pub dns: Option<DnsStatus>,
    /// Networks whose traffic is left to others.
    pub refused: Vec<Refused>,
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
    /// Its name in the agent's network namespace.
    pub name: String,
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

/// Fill of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// The kernel's id.
    pub id: u32,
    /// `hash`, `array`, `percpu_array`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub key_size: u32,
    /// Bytes.
    pub value_size: u32,
    /// In use.
    pub entries: u64,
    /// Most that fit.
    pub max_entries: u32,
    /// Kernel memory, bytes.
    pub memory_bytes: u64,
}

/// Packets that went one way for one reason. A packet that XDP leaves to tc counts at both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Name of the reason.
    pub reason: String,
    /// `forward`, `answer`, `pass`, `drop`.
    pub verdict: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as they came in.
    pub bytes: u64,
}

/// A service with its traffic. Read from the maps alone, every balanced port and family is a service of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// None without an agent.
    pub name: Option<String>,
    /// Name of its network; none without an agent.
    pub network: Option<String>,
    /// Number of its network.
    pub network_id: Option<u32>,
    /// How its name is answered; none without an agent.
    pub mode: Option<EndpointMode>,
    /// Addresses that clients speak to.
    pub vips: Vec<IpAddr>,
    /// Further names.
    pub aliases: Vec<String>,
    /// What it listens on.
    pub ports: Vec<Port>,
    /// Number of its tasks, by state.
    pub backends: BackendCount,
    /// Flows in the flow table.
    pub flows: u64,
    /// Traffic since the maps were made.
    pub traffic: ServiceTraffic,
    /// Keys into the map `services`.
    pub ids: Vec<u32>,
    /// Its tasks; filled in when one service is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Backend>,
}

/// One port of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// Transport protocol.
    pub protocol: Protocol,
    /// On the VIP, if it has one.
    pub port: Option<u16>,
    /// On the backends.
    pub target: Option<u16>,
    /// On every node's addresses.
    pub published: Option<u16>,
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendCount {
    /// Take new flows.
    pub ready: u32,
    /// Keep their flows.
    pub draining: u32,
    /// All.
    pub total: u32,
}

/// Traffic of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceTraffic {
    /// Flows begun.
    pub flows_total: u64,
    /// Packets to backends.
    pub packets_total: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Packets to clients.
    pub reply_packets_total: u64,
    /// Their bytes.
    pub reply_bytes_total: u64,
}

/// One task's address and port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// Key into the map `backends`; none when the maps do not hold it (dnsrr, refused network, not applied yet).
    pub id: Option<u32>,
    /// Name of the task; none without an agent.
    pub task: Option<String>,
    /// Name of its service, or `id 17` when only the maps know it.
    pub service: Option<String>,
    /// Name of its network; none without an agent.
    pub network: Option<String>,
    /// Number of its network.
    pub network_id: Option<u32>,
    /// Name of its node; its tunnel address without an agent.
    pub node: Option<String>,
    /// Whether it runs on this node.
    pub local: bool,
    /// Where it listens.
    pub address: Option<IpAddr>,
    /// Where it listens.
    pub port: Option<u16>,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Whether it takes new flows; none: the maps alone hold it and its flows are being reset.
    pub state: Option<BackendState>,
    /// Share of new flows; none without an agent.
    pub weight: Option<u16>,
    /// Flows in the flow table.
    pub flows: u64,
}

/// One tracked connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Network of the frontend.
    pub network_id: u32,
    /// Who speaks.
    pub client: SocketAddr,
    /// What it speaks to.
    pub frontend: SocketAddr,
    /// Who answers; none when the backend is gone.
    pub backend: Option<SocketAddr>,
    /// Name of the service, or its number.
    pub service: String,
    /// `new`, `established`, `closing`, `closed`.
    pub state: String,
    /// Seconds since its first packet.
    pub age_seconds: f64,
    /// Seconds until it is forgotten unless a packet comes; 0: at the next collection.
    pub expires_seconds: f64,
    /// Node that it came from through the tunnel; none: it came directly.
    pub origin: Option<String>,
    /// Source port that the backend sees, when it is not the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_port: Option<u16>,
}

/// What separates the maps from the desired state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Steps to take; 0: nothing differs.
    pub steps: u64,
    /// For people.
    pub text: String,
    /// For programs.
    pub plan: serde_json::Value,
}

/// A name to explain, as asked by a client in `network`, or at `client`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsQuestion {
    /// With or without the final dot.
    pub name: String,
    /// Name of the network to ask from.
    pub network: Option<String>,
    /// Address to ask from; its network decides.
    pub client: Option<IpAddr>,
}

/// What would be answered, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsAnswer {
    /// The name asked for.
    pub name: String,
    /// Network that the question comes from, if any is known.
    pub network: Option<String>,
    /// `local`, or `upstream` for a name that is not ours.
    pub source: String,
    /// `NOERROR`, `NXDOMAIN` ...; empty for `upstream`.
    pub rcode: String,
    /// The records.
    pub records: Vec<DnsRecord>,
    /// How it was decided, step by step.
    pub why: Vec<String>,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsRecord {
    /// Its owner.
    pub name: String,
    /// `A`, `AAAA`, `PTR`, `SRV`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Seconds.
    pub ttl: u32,
    /// As in a zone file.
    pub data: String,
}

/// A pinned program, or a pinned link and the program behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Path of the pin below the pin directory.
    pub pin: String,
    /// Name of the program, if it may be known.
    pub name: Option<String>,
    /// The kernel's id, if it may be known.
    pub id: Option<u32>,
    /// Hash of the instructions, hexadecimal.
    pub tag: Option<String>,
    /// `xdp`, `tcx_ingress`, `tcx_egress`; none for a program that is only pinned.
    pub hook: Option<String>,
    /// Interface index; 0 for a link whose interface is gone.
    pub ifindex: Option<u32>,
    /// Name of the interface in the caller's network namespace.
    pub interface: Option<String>,
    /// Times that it ran, if the kernel counts (`kernel.bpf_stats_enabled`).
    pub run_count: Option<u64>,
    /// Nanoseconds that it ran, if the kernel counts.
    pub run_time_ns: Option<u64>,
    /// Why something is not known.
    pub note: Option<String>,
}

/// One entry of a map, field by field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MapEntry {
    /// A number, a text, or an object.
    pub key: serde_json::Value,
    /// A number, or an object.
    pub value: serde_json::Value,
}

/// Outcome of one check of `lbctl doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name.
    pub id: String,
    /// How it went.
    pub level: Level,
    /// What was found.
    pub finding: String,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// As it should be.
    Pass,
    /// Works, but worse than it could, or could not be examined.
    Warn,
    /// Traffic is or will be lost.
    Fail,
}

/// RFC 3339 with milliseconds.
pub mod time {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }

    /// The same for a time that may be missing.
    pub mod option {
        use super::{Deserialize, Deserializer, Serializer, SystemTime};

        /// Writes it.
        pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads it.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|t| humantime::parse_rfc3339(&t).map_err(serde::de::Error::custom))
                .transpose()
        }
    }
}
