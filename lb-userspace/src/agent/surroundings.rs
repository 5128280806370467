//! What this node's own interfaces mean for the datapath. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::{self, Interface, NETWORK_NODE, Settings, ticks};
use lb_common::address::Address;

use crate::config::Config;
use crate::datapath::attach::{Interfaces, NodeInterface, WorkloadInterface, choose_xdp};
use crate::datapath::probe::Features;
use crate::model::desired;
use crate::model::snapshot::{Network, Snapshot};
use crate::net::{Link, Place};

/// Interfaces that get programs, and what is odd about them, in the operator's words.
pub(super) fn choose(
    config: &Config,
    snapshot: &Snapshot,
    links: &[Link],
    addresses: &[(u32, IpAddr)],
) -> (Interfaces, Vec<Oddity>) {
    let mut chosen = Interfaces::default();
    let mut odd = Vec::new();
    let own: BTreeSet<IpAddr> = own_addresses(config, snapshot).collect();
    for link in links {
        if let Some(network) = config.workload_network(&link.name) {
            if snapshot.networks.iter().any(|n| n.name == network) {
                chosen.workloads.push(WorkloadInterface {
                    link: link.clone(),
                    network: network.to_owned(),
                });
            } else {
                odd.push(Oddity::new(
                    network,
                    format!(
                        "interface {} is left alone: the cluster has no network of this name",
                        link.name
                    ),
                ));
            }
            continue;
        }
        let node = match config.datapath.interfaces.as_slice() {
            [] => !link.loopback && addresses.iter().any(|(i, ip)| *i == link.ifindex && own.contains(ip)),
            globs => globs.iter().any(|glob| glob.matches(&link.name)),
        };
        if node {
            chosen.nodes.push(NodeInterface {
                xdp: choose_xdp(config.datapath.xdp, link),
                link: link.clone(),
            });
        }
    }
    if chosen.nodes.is_empty() {
        let why = if config.datapath.interfaces.is_empty() {
            "no interface holds an address that the cluster gives this node; name interfaces in datapath.interfaces"
        } else {
            "no interface matches datapath.interfaces"
        };
        odd.push(Oddity::new("", format!("published ports are not answered: {why}")));
    }
    (chosen, odd)
}

/// Something that is not served, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Oddity {
    /// Name of the network; empty for the node itself.
    pub(super) network: String,
    /// One sentence.
    pub(super) reason: String,
}

impl Oddity {
    pub(super) fn new(network: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            reason: reason.into(),
        }
    }
}

/// This node's addresses.
pub(super) fn own_addresses<'a>(config: &Config, snapshot: &'a Snapshot) -> impl Iterator<Item = IpAddr> + use<'a> {
    let own = snapshot.nodes.iter().find(|n| n.name == config.node.name);
    own.into_iter().flat_map(|n| n.addresses.iter().copied())
}

/// Tunnel addresses of the other nodes: the first of each family.
pub(super) fn tunnel_peers(config: &Config, snapshot: &Snapshot) -> Vec<IpAddr> {
    let others = snapshot.nodes.iter().filter(|n| n.name != config.node.name);
    others
        .flat_map(|n| {
            let first = |v4: bool| n.addresses.iter().find(move |ip| ip.is_ipv4() == v4).copied();
            [first(true), first(false)].into_iter().flatten()
        })
        .collect()
}

/// Addresses of this node's own backends, with their networks; each once.
pub(super) fn local_backends<'a>(config: &Config, snapshot: &'a Snapshot) -> Vec<(IpAddr, &'a Network)> {
    let networks: BTreeMap<&str, &Network> = snapshot.networks.iter().map(|n| (n.name.as_str(), n)).collect();
    let mut found = BTreeMap::new();
    for service in &snapshot.services {
        let Some(network) = networks.get(service.network.as_str()) else {
            continue;
        };
        for backend in service.backends.iter().filter(|b| b.node == config.node.name) {
            found.extend(backend.addresses.iter().map(|ip| ((*ip, network.id), *network)));
        }
    }
    found.into_iter().map(|((ip, _), network)| (ip, network)).collect()
}

/// What the planner may know of places: only interfaces that carry our programs, and only veths, into whose far
/// end a packet can be put at once. Others are reached through the routes.
pub(super) fn backend_interfaces(
    places: &BTreeMap<IpAddr, Place>,
    backends: &[(IpAddr, &Network)],
    interfaces: &Interfaces,
    links: &[Link],
) -> (desired::Interfaces, Vec<Oddity>) {
    let mut known = desired::Interfaces::new();
    let mut odd = BTreeSet::new();
    for (ip, network) in backends {
        let Some(place) = places.get(ip) else { continue };
        match interfaces.workloads.iter().find(|w| w.link.ifindex == place.ifindex) {
            Some(workload) if workload.link.is_veth() => {
                known.insert((network.id, Address::from(*ip)), (place.ifindex, place.mac));
            }
            Some(_) => {}
            None if interfaces.nodes.iter().any(|n| n.link.ifindex == place.ifindex) => {}
            None => {
                let name = links
                    .iter()
                    .find(|l| l.ifindex == place.ifindex)
                    .map_or("?", |l| &l.name);
                odd.insert(Oddity::new(
                    &network.name,
                    format!("workloads behind interface {name} cannot be served: no [[workload]] matches it"),
                ));
            }
        }
    }
    (known, odd.into_iter().collect())
}

/// Rows of `interfaces`.
pub(super) fn interface_rows(interfaces: &Interfaces, snapshot: &Snapshot) -> BTreeMap<u32, Interface> {
    let mut rows = BTreeMap::new();
    for node in &interfaces.nodes {
        rows.insert(
            node.link.ifindex,
            Interface {
                network: NETWORK_NODE,
                flags: 0,
                mac: node.link.mac.unwrap_or_default(),
                _pad: [0; 2],
            },
        );
    }
    for workload in &interfaces.workloads {
        let Some(network) = snapshot.networks.iter().find(|n| n.name == workload.network) else {
            continue;
        };
        let bridged = if workload.link.master.is_some() {
            abi::INTERFACE_BRIDGED
        } else {
            0
        };
        rows.insert(
            workload.link.ifindex,
            Interface {
                network: network.id,
                flags: abi::INTERFACE_WORKLOAD | bridged,
                mac: workload.link.mac.unwrap_or_default(),
                _pad: [0; 2],
            },
        );
    }
    rows
}

/// The element of `settings`.
pub(super) fn settings(config: &Config, interfaces: &Interfaces, features: Features) -> Settings {
    let timeouts = &config.datapath.timeouts;
    let ticks = |d: std::time::Duration| ticks(u64::try_from(d.as_millis()).unwrap_or(u64::MAX >> 20));
    let mtu = interfaces.nodes.iter().map(|n| n.link.mtu).min().unwrap_or(1500);
    Settings {
        tunnel_port: config.datapath.tunnel_port,
        tunnel_mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        flags: if features.l4_csum_ipv6 {
            abi::SETTING_L4_CSUM_IPV6
        } else {
            0
        },
        tcp_syn: ticks(timeouts.tcp_syn),
        tcp_established: ticks(timeouts.tcp_established),
        tcp_closing: ticks(timeouts.tcp_closing),
        tcp_closed: ticks(timeouts.tcp_closed),
        udp_new: ticks(timeouts.udp_new),
        udp_established: ticks(timeouts.udp_established),
    }
}
