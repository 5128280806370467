//! What this node's own interfaces mean for the datapath. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use lb_common::abi::{self, Interface, InterfaceKey, NETWORK_NODE, Settings, ticks};
use lb_common::address::Address;

use crate::config::Config;
use crate::datapath::attach::{Interfaces, NodeInterface, WorkloadInterface, choose_xdp};
use crate::datapath::probe::Features;
use crate::model::desired;
use crate::model::snapshot::{Network, Service, Snapshot};
use crate::net::netns::Namespace;
use crate::net::{Link, Place};

/// Interfaces that get programs, and what is odd about them, in the operator's words.
pub(super) fn choose(
    config: &Config,
    node: &str,
    snapshot: &Snapshot,
    links: &[Link],
    addresses: &[(u32, IpAddr)],
) -> (Interfaces, Vec<Oddity>) {
    let mut chosen = Interfaces::default();
    let mut odd = Vec::new();
    let own: BTreeSet<IpAddr> = own_addresses(node, snapshot).collect();
    let bridge = gateway_bridge(config, links).map(|bridge| bridge.ifindex);
    for link in links {
        if bridge.is_some() && link.master == bridge && link.is_veth() {
            chosen.workloads.push(WorkloadInterface {
                namespace: Namespace::NODE,
                link: link.clone(),
                network: String::new(),
            });
            continue;
        }
        if let Some(network) = config.workload_network(&link.name) {
            if snapshot.networks.iter().any(|n| n.name == network) {
                chosen.workloads.push(WorkloadInterface {
                    namespace: Namespace::NODE,
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
        let towards_nodes = match config.datapath.interfaces.as_slice() {
            [] => !link.loopback && addresses.iter().any(|(i, ip)| *i == link.ifindex && own.contains(ip)),
            globs => globs.iter().any(|glob| glob.matches(&link.name)),
        };
        if towards_nodes {
            chosen.nodes.push(NodeInterface {
                xdp: choose_xdp(config.datapath.xdp, link),
                link: link.clone(),
            });
        }
    }
    if !chosen.nodes.is_empty() {
        chosen.host = links.iter().find(|link| link.loopback).cloned();
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

/// The bridge over which workloads of any network reach the outside, if there is one.
pub(super) fn gateway_bridge<'a>(config: &Config, links: &'a [Link]) -> Option<&'a Link> {
    let name = &config.datapath.gateway_bridge;
    links.iter().find(|link| link.is_bridge() && link.name == *name)
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
pub(super) fn own_addresses<'a>(node: &str, snapshot: &'a Snapshot) -> impl Iterator<Item = IpAddr> + use<'a> {
    let own = snapshot.nodes.iter().find(|n| n.name == node);
    own.into_iter().flat_map(|n| n.addresses.iter().copied())
}

/// Tunnel addresses of the other nodes: the first of each family.
pub(super) fn tunnel_peers(node: &str, snapshot: &Snapshot) -> Vec<IpAddr> {
    let others = snapshot.nodes.iter().filter(|n| n.name != node);
    others
        .flat_map(|n| {
            let first = |v4: bool| n.addresses.iter().find(move |ip| ip.is_ipv4() == v4).copied();
            [first(true), first(false)].into_iter().flatten()
        })
        .collect()
}

/// Addresses of this node's own backends of `services`, with their networks; each once. Those in overlays are not on this node's links.
pub(super) fn local_backends<'a, 's>(
    node: &str,
    networks: &'a [Network],
    services: impl IntoIterator<Item = &'s Service>,
) -> Vec<(IpAddr, &'a Network)> {
    let networks: BTreeMap<&str, &Network> = networks
        .iter()
        .filter(|n| !n.overlay)
        .map(|n| (n.name.as_str(), n))
        .collect();
    let mut found = BTreeMap::new();
    for service in services {
        let Some(network) = networks.get(service.network.as_str()) else {
            continue;
        };
        for backend in service.backends.iter().filter(|b| b.node == node) {
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
        let leads_there = |w: &&WorkloadInterface| w.namespace == Namespace::NODE && w.link.ifindex == place.ifindex;
        match interfaces.workloads.iter().find(leads_there) {
            Some(workload) if workload.link.is_veth() => {
                let port = desired::Reach {
                    ifindex: place.ifindex,
                    mac: place.mac,
                    delivery: None,
                    leaving: false,
                };
                known.insert((network.id, Address::from(*ip)), port);
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
pub(super) fn interface_rows(interfaces: &Interfaces, snapshot: &Snapshot) -> BTreeMap<InterfaceKey, Interface> {
    let mut rows = BTreeMap::new();
    for node in &interfaces.nodes {
        rows.insert(
            InterfaceKey::node(node.link.ifindex),
            Interface {
                network: NETWORK_NODE,
                flags: 0,
                mac: node.link.mac.unwrap_or_default(),
                _pad: [0; 2],
            },
        );
    }
    for workload in &interfaces.workloads {
        let network = if workload.network.is_empty() {
            NETWORK_NODE
        } else if let Some(network) = snapshot.networks.iter().find(|n| n.name == workload.network) {
            network.id
        } else {
            continue;
        };
        let bridged = if workload.link.master.is_some() {
            abi::INTERFACE_BRIDGED
        } else {
            0
        };
        // The kernel drops what is delivered to a peer in its own namespace.
        let peer = if workload.link.is_veth() && workload.link.peer_elsewhere {
            abi::INTERFACE_PEER
        } else {
            0
        };
        rows.insert(
            InterfaceKey::new(workload.namespace.cookie(), workload.link.ifindex),
            Interface {
                network,
                flags: abi::INTERFACE_WORKLOAD | bridged | peer,
                mac: workload.link.mac.unwrap_or_default(),
                _pad: [0; 2],
            },
        );
    }
    rows
}

/// What the programs shall know of clients whose addresses other nodes have too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Masquerade {
    host: Option<Ipv4Addr>,
    bridge: Option<Ipv4Net>,
}

impl Masquerade {
    /// `own`: this node's addresses; `bridge`: the subnet of the gateway bridge, if there is one.
    pub(super) fn new(
        config: &Config,
        own: impl Iterator<Item = IpAddr>,
        bridge: Option<Ipv4Net>,
    ) -> (Self, Option<Oddity>) {
        let v4 = |ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None };
        let host = own.filter_map(v4).next();
        let range = config.datapath.masquerade;
        let fits = bridge.filter(|bridge| bridge.prefix_len() >= range.prefix_len());
        let odd = (fits != bridge).then(|| {
            let bridge = bridge.map(|bridge| bridge.to_string()).unwrap_or_default();
            Oddity::new(
                "",
                format!(
                    "containers behind {} are not answered on published ports of their own node: its subnet {bridge} does \
                     not fit into datapath.masquerade = \"{range}\"; choose a larger range",
                    config.datapath.gateway_bridge
                ),
            )
        });
        (Self { host, bridge: fits }, odd)
    }
}

/// Whether a workload of a network is on a veth between which and others the node itself routes.
fn is_routed(workload: &WorkloadInterface) -> bool {
    let link = &workload.link;
    let of_network = workload.namespace == Namespace::NODE && !workload.network.is_empty();
    of_network && link.master.is_none() && link.is_veth() && link.peer_elsewhere
}

/// An IPv4 address as it lies in memory.
fn word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// The element of `settings`.
pub(super) fn settings(
    config: &Config,
    interfaces: &Interfaces,
    features: Features,
    masquerade: &Masquerade,
) -> Settings {
    let range = config.datapath.masquerade;
    let timeouts = &config.datapath.timeouts;
    let ticks = |d: std::time::Duration| ticks(u64::try_from(d.as_millis()).unwrap_or(u64::MAX >> 20));
    let mtu = interfaces.nodes.iter().map(|n| n.link.mtu).min().unwrap_or(1500);
    let mut flags = 0;
    if features.l4_csum_ipv6 {
        flags |= abi::SETTING_L4_CSUM_IPV6;
    }
    if config.datapath.hand_over && interfaces.workloads.iter().any(is_routed) {
        flags |= abi::SETTING_HAND_OVER;
    }
    Settings {
        tunnel_port: config.datapath.tunnel_port,
        tunnel_mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        flags,
        tcp_syn: ticks(timeouts.tcp_syn),
        tcp_established: ticks(timeouts.tcp_established),
        tcp_closing: ticks(timeouts.tcp_closing),
        tcp_closed: ticks(timeouts.tcp_closed),
        udp_new: ticks(timeouts.udp_new),
        udp_established: ticks(timeouts.udp_established),
        host: masquerade.host.map_or(0, word),
        masquerade: word(range.network()),
        masquerade_mask: word(range.netmask()),
        bridge: masquerade.bridge.map_or(0, |bridge| word(bridge.network())),
        bridge_mask: masquerade.bridge.map_or(0, |bridge| word(bridge.netmask())),
    }
}

#[cfg(test)]
mod tests;
