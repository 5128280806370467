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
use crate::model::snapshot::{Network, Snapshot};
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

/// Addresses of this node's own backends, with their networks; each once. Those in overlays are not on this node's links.
pub(super) fn local_backends<'a>(node: &str, snapshot: &'a Snapshot) -> Vec<(IpAddr, &'a Network)> {
    let networks: BTreeMap<&str, &Network> = snapshot
        .networks
        .iter()
        .filter(|n| !n.overlay)
        .map(|n| (n.name.as_str(), n))
        .collect();
    let mut found = BTreeMap::new();
    for service in &snapshot.services {
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
        host: masquerade.host.map_or(0, word),
        masquerade: word(range.network()),
        masquerade_mask: word(range.netmask()),
        bridge: masquerade.bridge.map_or(0, |bridge| word(bridge.network())),
        bridge_mask: masquerade.bridge.map_or(0, |bridge| word(bridge.netmask())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InterfaceGlob, Workload};
    use crate::model::snapshot;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn link(ifindex: u32, name: &str, kind: Option<&str>) -> Link {
        Link {
            ifindex,
            name: name.into(),
            kind: kind.map(String::from),
            mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
            mtu: 1500 - ifindex,
            up: true,
            loopback: name == "lo",
            master: None,
            peer_elsewhere: false,
            peer: None,
        }
    }

    fn snapshot() -> Snapshot {
        let node = |name: &str, addresses: &[&str]| snapshot::Node {
            name: name.into(),
            id: None,
            addresses: addresses.iter().map(|a| ip(a)).collect(),
        };
        let backend = |node: &str, address: &str| snapshot::Backend {
            name: format!("web.{node}"),
            node: node.into(),
            addresses: vec![ip(address)],
            port: None,
            state: snapshot::BackendState::Ready,
            weight: 1,
            aliases: Vec::new(),
        };
        Snapshot {
            generation: 1,
            nodes: vec![
                node("n1", &["192.0.2.1", "fd00::1", "192.0.2.11"]),
                node("n2", &["192.0.2.12", "192.0.2.2", "fd00::2"]),
            ],
            networks: vec![Network {
                name: "app".into(),
                id: 77,
                subnets: Vec::new(),
                encrypted: false,
                overlay: false,
                ingress: false,
            }],
            services: vec![snapshot::Service {
                name: "web".into(),
                network: "app".into(),
                mode: snapshot::EndpointMode::Vip,
                vips: Vec::new(),
                aliases: Vec::new(),
                ports: Vec::new(),
                any_port: false,
                tcp_timeout: None,
                udp_timeout: None,
                backends: vec![backend("n1", "10.9.0.2"), backend("n2", "10.9.0.3")],
            }],
        }
    }

    fn config(interfaces: &[&str]) -> Config {
        let mut config = Config::default();
        config.node.name = "n1".into();
        config.datapath.interfaces = interfaces
            .iter()
            .map(|g| InterfaceGlob::new(g).expect("glob"))
            .collect();
        config.workload = [("work*", "app"), ("other*", "unknown")]
            .map(|(glob, network)| Workload {
                interface: InterfaceGlob::new(glob).expect("glob"),
                network: network.into(),
            })
            .to_vec();
        config
    }

    fn links() -> Vec<Link> {
        vec![
            link(1, "lo", None),
            link(2, "eth0", None),
            link(3, "work0", Some("veth")),
            link(4, "other0", Some("veth")),
            link(5, "stray0", Some("veth")),
        ]
    }

    fn names(interfaces: &Interfaces) -> (Vec<&str>, Vec<&str>) {
        (
            interfaces.nodes.iter().map(|n| n.link.name.as_str()).collect(),
            interfaces.workloads.iter().map(|w| w.link.name.as_str()).collect(),
        )
    }

    #[test]
    fn node_interfaces_are_those_that_hold_its_addresses() {
        let addresses = [(2, ip("192.0.2.11")), (1, ip("192.0.2.1")), (5, ip("192.0.2.2"))];
        let (chosen, odd) = choose(&config(&[]), "n1", &snapshot(), &links(), &addresses);
        assert_eq!(names(&chosen), (vec!["eth0"], vec!["work0"]));
        assert_eq!(odd.len(), 1, "{odd:?}");
        assert!(
            odd[0].reason.contains("other0") && odd[0].network == "unknown",
            "{odd:?}"
        );
    }

    #[test]
    fn configured_interfaces_need_no_address() {
        let (chosen, odd) = choose(&config(&["stray*", "work*"]), "n1", &snapshot(), &links(), &[]);
        assert_eq!(
            names(&chosen),
            (vec!["stray0"], vec!["work0"]),
            "a workload interface stays one"
        );
        assert_eq!(odd.len(), 1);
    }

    #[test]
    fn ports_of_the_gateway_bridge_belong_to_no_network() {
        let mut links = links();
        links.push(link(9, "docker_gwbridge", Some("bridge")));
        links[4].master = Some(9);
        let mut config = config(&[]);
        let rows = |config: &Config| {
            let (chosen, _) = choose(config, "n1", &snapshot(), &links, &[]);
            interface_rows(&chosen, &snapshot())
                .get(&InterfaceKey::node(5))
                .copied()
        };
        let row = rows(&config).expect("a row");
        assert_eq!(
            (row.network, row.flags),
            (NETWORK_NODE, abi::INTERFACE_WORKLOAD | abi::INTERFACE_BRIDGED)
        );
        config.datapath.gateway_bridge = "another".into();
        assert_eq!(rows(&config), None);
    }

    #[test]
    fn a_node_without_interface_is_said() {
        let (chosen, odd) = choose(&config(&[]), "n1", &snapshot(), &links(), &[]);
        assert!(chosen.nodes.is_empty());
        assert!(odd.iter().any(|o| o.reason.contains("datapath.interfaces")), "{odd:?}");
    }

    #[test]
    fn tunnel_peers_are_the_first_addresses_of_the_others() {
        assert_eq!(tunnel_peers("n1", &snapshot()), [ip("192.0.2.12"), ip("fd00::2")]);
    }

    #[test]
    fn only_places_behind_our_programs_are_told() {
        let (config, snapshot, links) = (config(&[]), snapshot(), links());
        let (chosen, _) = choose(&config, "n1", &snapshot, &links, &[]);
        let backends = local_backends("n1", &snapshot);
        assert_eq!(
            backends.iter().map(|(ip, n)| (*ip, n.id)).collect::<Vec<_>>(),
            [(ip("10.9.0.2"), 77)]
        );
        let behind = |ifindex| BTreeMap::from([(ip("10.9.0.2"), Place { ifindex, mac: [9; 6] })]);
        let (known, odd) = backend_interfaces(&behind(3), &backends, &chosen, &links);
        assert_eq!(
            known,
            BTreeMap::from([(
                (77, Address::v4([10, 9, 0, 2])),
                desired::Reach {
                    ifindex: 3,
                    mac: [9; 6],
                    delivery: None,
                    leaving: false,
                }
            )])
        );
        assert!(odd.is_empty());
        let (known, odd) = backend_interfaces(&behind(5), &backends, &chosen, &links);
        assert!(known.is_empty());
        assert!(odd[0].reason.contains("stray0"), "{odd:?}");
    }

    #[test]
    fn a_bridge_that_does_not_fit_the_range_is_said_and_left_alone() {
        let bridge = Some("172.16.0.1/12".parse().expect("a subnet"));
        let (masquerade, odd) = Masquerade::new(&config(&[]), own_addresses("n1", &snapshot()), bridge);
        assert_eq!(
            (masquerade.bridge, masquerade.host),
            (None, Some(Ipv4Addr::new(192, 0, 2, 1)))
        );
        let reason = odd.expect("an oddity").reason;
        assert!(
            reason.contains("172.16.0.1/12") && reason.contains("datapath.masquerade"),
            "{reason}"
        );
    }

    #[test]
    fn rows_and_settings_follow_the_interfaces() {
        let mut links = links();
        links[2].master = Some(9);
        let (chosen, _) = choose(&config(&[]), "n1", &snapshot(), &links, &[(2, ip("192.0.2.1"))]);
        let rows = interface_rows(&chosen, &snapshot());
        assert_eq!(
            rows[&InterfaceKey::node(2)],
            Interface {
                mac: [2, 0, 0, 0, 0, 2],
                ..Interface::default()
            }
        );
        assert_eq!(
            (rows[&InterfaceKey::node(3)].network, rows[&InterfaceKey::node(3)].flags),
            (77, abi::INTERFACE_WORKLOAD | abi::INTERFACE_BRIDGED)
        );
        let features = Features {
            tcx: true,
            l4_csum_ipv6: true,
        };
        let snapshot = snapshot();
        let own = own_addresses("n1", &snapshot);
        let bridge = Some("172.18.0.1/16".parse().expect("a subnet"));
        let (masquerade, odd) = Masquerade::new(&config(&[]), own, bridge);
        assert_eq!(odd, None);
        let settings = settings(&config(&[]), &chosen, features, &masquerade);
        let bytes = [
            settings.host,
            settings.masquerade,
            settings.bridge,
            settings.bridge_mask,
        ]
        .map(u32::to_ne_bytes);
        assert_eq!(
            bytes,
            [[192, 0, 2, 1], [198, 18, 0, 0], [172, 18, 0, 0], [255, 255, 0, 0]]
        );
        assert_eq!((settings.tunnel_mtu, settings.tunnel_port), (1498, 4790));
        assert_eq!(settings.flags, abi::SETTING_L4_CSUM_IPV6);
        assert_eq!(settings.tcp_syn, ticks(30_000));
    }
}
