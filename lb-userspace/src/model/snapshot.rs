//! [`Snapshot`]: everything one provider knows at one moment.

mod services;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use services::{Changes, Iter, Services};

/// Everything one provider knows at one moment. Already valid: a provider never publishes anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rises with every change that the provider saw.
    pub generation: u64,
    /// Machines that run the agent.
    pub nodes: Vec<Node>,
    /// Scopes of names and VIPs.
    pub networks: Vec<Network>,
    /// Services, one entry per (network, name).
    pub services: Services,
}

/// A machine that runs the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique.
    pub name: String,
    /// Its id in the cluster that the provider reads, by which an agent finds its own node; `None` where nodes have none.
    #[serde(default)]
    pub id: Option<String>,
    /// Every address on which its published ports are answered. The first of each family carries the tunnel.
    pub addresses: Vec<IpAddr>,
}

/// A scope in which names and VIPs are valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Unique.
    pub name: String,
    /// 24 bits, unique, never 0; the same on every node.
    pub id: u32,
    /// Address ranges of its workloads; a DNS client in one of them asks from this network.
    pub subnets: Vec<IpNet>,
    /// Never carried in clear text through our tunnel.
    pub encrypted: bool,
    /// Carried by Docker's overlay driver, from which workloads have their interfaces and their MAC addresses.
    #[serde(default)]
    pub overlay: bool,
    /// Swarm's routing mesh: published ports lead there, and it has no names.
    #[serde(default)]
    pub ingress: bool,
}

/// How a service's name is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// With its VIP.
    #[default]
    Vip,
    /// With the addresses of its ready backends, shuffled; no VIP, no published port.
    Dnsrr,
}

/// A set of backends under one name in one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Unique within its network.
    pub name: String,
    /// Name of its [`Network`].
    pub network: String,
    /// How its name is answered.
    pub mode: EndpointMode,
    /// At most one of each family; empty with `dnsrr` and for services that are only published.
    pub vips: Vec<IpAddr>,
    /// Further names in its network.
    pub aliases: Vec<String>,
    /// What it listens on.
    pub ports: Vec<Port>,
    /// Every further port of the VIPs leads to the same port of a backend, TCP and UDP (a Swarm's VIPs).
    #[serde(default)]
    pub any_port: bool,
    /// Which clients its published ports answer.
    #[serde(default)]
    pub sources: Sources,
    /// Idle timeout of established TCP flows, if not the agent's.
    pub tcp_timeout: Option<Duration>,
    /// Idle timeout of UDP flows, if not the agent's.
    pub udp_timeout: Option<Duration>,
    /// Its tasks.
    pub backends: Vec<Backend>,
}

/// Clients that published ports answer, by prefix of their addresses; the longest prefix that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// Answered. Empty: all that are not denied.
    pub allow: Vec<IpNet>,
    /// Not answered; also where the same prefix is allowed.
    pub deny: Vec<IpNet>,
}

impl Sources {
    /// Everybody is answered.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => lb_common::abi::TCP,
            Self::Udp => lb_common::abi::UDP,
        }
    }

    /// From an IP protocol number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            lb_common::abi::TCP => Some(Self::Tcp),
            lb_common::abi::UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Protocol.
    pub protocol: Protocol,
    /// On the VIP.
    pub port: u16,
    /// On the backends, unless a backend names its own.
    pub target: u16,
    /// On every address of every node, if published.
    pub published: Option<u16>,
}

/// Whether a backend takes new flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// Takes new flows.
    #[default]
    Ready,
    /// Keeps established TCP flows, takes no new flow while another backend is ready.
    Draining,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Task name, unique within its service; also a DNS name.
    pub name: String,
    /// Name of the [`Node`] it runs on.
    pub node: String,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Replaces [`Port::target`] (services with one port only).
    pub port: Option<u16>,
    /// State.
    pub state: BackendState,
    /// Share of new flows, 1..=256.
    pub weight: u16,
    /// Its node's agent does not have it in its tables, at last word: what another node sends through the tunnel would not
    /// get there. False where nobody says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// Further DNS names of its own, such as its container's id.
    #[serde(default)]
    pub aliases: Vec<String>,
}
