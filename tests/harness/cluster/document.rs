//! The cluster file, as the tests write it.

use std::net::IpAddr;

use serde::Serialize;

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Document {
    /// Machines.
    pub node: Vec<Node>,
    /// Scopes of names.
    pub network: Vec<Network>,
    /// Services.
    pub service: Vec<Service>,
}

/// A machine.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Unique.
    pub name: String,
    /// Its addresses on the underlay.
    pub addresses: Vec<IpAddr>,
}

/// A scope of names.
#[derive(Clone, Debug, Serialize)]
pub struct Network {
    /// Unique.
    pub name: String,
    /// 24 bits.
    pub id: u32,
    /// Of its workloads and VIPs.
    pub subnets: Vec<String>,
}

/// A service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Service {
    /// Unique in its network.
    pub name: String,
    /// Its network's name.
    pub network: String,
    /// `vip` or `dnsrr`.
    pub mode: &'static str,
    /// At most one of each family.
    pub vip: Vec<IpAddr>,
    /// Further names.
    pub aliases: Vec<String>,
    /// What it listens on.
    pub ports: Vec<Port>,
    /// Prefixes of the clients that its published ports answer; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Prefixes of those that they do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Its tasks.
    pub backend: Vec<Backend>,
}

/// A port of a service.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// On the VIP.
    pub port: u16,
    /// On the backends.
    pub target: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// On every node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
}

/// Where a port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Published {
    /// On this port.
    On(u16),
    /// On one that the agents choose, if true.
    Automatic(bool),
}

/// A task.
#[derive(Clone, Debug, Serialize)]
pub struct Backend {
    /// Unique in its service.
    pub name: String,
    /// Where it runs.
    pub node: String,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Instead of the port's target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share of new flows.
    pub weight: u16,
    /// `ready` or `draining`.
    pub state: &'static str,
}

impl Document {
    /// As TOML.
    pub fn text(&self) -> String {
        toml::to_string_pretty(self).expect("a document is TOML")
    }

    /// The service of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn service(&mut self, name: &str) -> &mut Service {
        let service = self.service.iter_mut().find(|service| service.name == name);
        service.unwrap_or_else(|| panic!("no service {name}"))
    }
}
