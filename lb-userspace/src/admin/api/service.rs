//! [`Service`], [`Backend`] and [`Flow`]: what is balanced.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::snapshot::{BackendState, EndpointMode, Protocol};

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
