//! [`Desired`]: what the tables of this node should hold, by name; numbers come later, in `plan::ids`.
//!
//! Pure, total and deterministic: the same snapshot gives the same value, in whatever order the provider
//! lists things. What cannot be served is left out and said in [`Desired::refused`].

mod compile;

pub(crate) use compile::overlay_mac;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{EndpointKey, VipKey};
use lb_common::address::Address;
use serde::Serialize;

use super::snapshot::{BackendState, Protocol};

/// Where this node's own backends are attached, by network id and address. What is missing is not known yet; in an overlay
/// such a backend gets no new flow, elsewhere it is reached through the node's routes.
pub type Interfaces = BTreeMap<(u32, Address), Reach>;

/// How packets get to a backend of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Index of its interface on the node's side, in the node's own namespace; 0: there is none.
    pub ifindex: u32,
    /// Its MAC address there.
    pub mac: [u8; 6],
    /// Its address there, if it is another one: on the gateway bridge.
    pub delivery: Option<Address>,
    /// It is about to go: what is under way still gets there, nothing new does.
    pub leaving: bool,
}

/// What the tables of one node should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Generation of the snapshot it was compiled from.
    pub generation: u64,
    /// Name of this node.
    pub node: String,
    /// Every node of the cluster, by name.
    pub nodes: BTreeMap<Arc<str>, Node>,
    /// Every address of every node, to the node's name.
    pub addresses: BTreeMap<Address, Arc<str>>,
    /// Every backend of every service in [`Desired::services`].
    pub backends: BTreeMap<EndpointKey, Backend>,
    /// Backends on this node that other nodes may name in the tunnel.
    pub local_backends: BTreeSet<EndpointKey>,
    /// Balanced sets, by [`ServiceKey::identity`].
    pub services: BTreeMap<u64, Service>,
    /// Backends that drain in a service (its identity), while another one gives them new flows.
    pub drained: BTreeSet<(u64, EndpointKey)>,
    /// What clients speak to, to the identity of the service that answers.
    pub frontends: BTreeMap<EndpointKey, u64>,
    /// VIPs and the number of frontends on each.
    pub vips: BTreeMap<VipKey, u32>,
    /// What was left out, and why; sorted.
    pub refused: Vec<Refusal>,
    /// No two services have a backend, a VIP or a frontend in common: what is desired of each does not depend on others.
    pub separate: bool,
}

/// A machine that runs the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its first IPv4 address, or [`Address::ANY`].
    pub tunnel_v4: Address,
    /// Its first IPv6 address, or [`Address::ANY`].
    pub tunnel_v6: Address,
    /// This node itself.
    pub local: bool,
}

/// One task's address and target port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Name of the task.
    pub name: String,
    /// Name of its node.
    pub node: Arc<str>,
    /// Runs on this node.
    pub local: bool,
    /// Whether it takes new flows.
    pub state: BackendState,
    /// Host side of its workload interface if local and known, else 0.
    pub ifindex: u32,
    /// Its MAC address if known, else zero.
    pub mac: [u8; 6],
    /// Its address for packets of published flows on its own node.
    pub delivery: Address,
    /// Network of that address.
    pub delivery_network: u32,
}

/// One balanced set of backends; all its frontends share one round-robin cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ServiceKey,
    /// Target port, where a backend does not name its own.
    pub target: u16,
    /// Backends that new flows are given to, with their weights, in the order of their keys.
    pub shares: Vec<(EndpointKey, u16)>,
    /// Its other backends, in that order: they drain or are about to go, and keep the flows that they have.
    pub resting: Vec<EndpointKey>,
    /// Clients that its published ports answer, as rows of the table without the service's number; `None`: everybody.
    pub sources: Option<BTreeMap<Prefix, u32>>,
    /// Idle timeout of established TCP flows, ticks; 0: the agent's setting.
    pub tcp_timeout: u32,
    /// Idle timeout of UDP flows, ticks; 0: the agent's setting.
    pub udp_timeout: u32,
}

impl Service {
    /// Whether a backend is one of its own.
    pub fn has(&self, key: &EndpointKey) -> bool {
        self.shares.binary_search_by(|(there, _)| there.cmp(key)).is_ok() || self.resting.binary_search(key).is_ok()
    }
}

/// A prefix of addresses: bits as [`SourceKey`](lb_common::abi::SourceKey) counts them, and the first address.
pub type Prefix = (u32, Address);

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// 4 or 6.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    /// The family of `ip`; a mapped IPv4 address is IPv4, as it is in the tables.
    pub fn of(ip: IpAddr) -> Self {
        if Address::from(ip).is_v4() { Self::V4 } else { Self::V6 }
    }
}

/// Names one balanced set: a service's port in one network and family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServiceKey {
    /// Name of the network.
    pub network: String,
    /// Name of the service.
    pub name: String,
    /// Port on the VIP.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Family of frontends and backends.
    pub family: Family,
    /// Holds this node's backends alone: the published side of a service in an encrypted network.
    pub local: bool,
}

impl ServiceKey {
    /// Stable identity, the same on every node and after every restart: FNV-1a (64 bits) over the text
    /// `network/name/port/protocol/family`, with `/local` behind it for [`ServiceKey::local`].
    pub fn identity(&self) -> u64 {
        let Self {
            network,
            name,
            port,
            protocol,
            family,
            local,
        } = self;
        let suffix = if *local { "/local" } else { "" };
        fnv1a(format!("{network}/{name}/{port}/{protocol}/{}{suffix}", family.number()).as_bytes())
    }
}

/// FNV-1a, 64 bits.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}/{}", self.network, self.name, self.port, self.protocol)?;
        if self.family == Family::V6 {
            f.write_str(" ipv6")?;
        }
        if self.local {
            f.write_str(" published")?;
        }
        Ok(())
    }
}

/// Why an encrypted overlay is none of ours.
pub const REFUSED_ENCRYPTED: &str =
    "it is encrypted and the tunnel between nodes is not: never carried there, left to Docker's own overlay";

/// Something of the snapshot that this node does not serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// What was left out.
    pub object: String,
    /// Why, and what happens instead.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)
    }
}

/// This node is not in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {node:?} is not in the cluster (its nodes: {known}); name this node as the cluster does, or add it there"
)]
pub struct UnknownNode {
    /// The name that was looked for.
    pub node: String,
    /// The names that are there, for the message.
    pub known: String,
}

#[cfg(test)]
mod tests;
