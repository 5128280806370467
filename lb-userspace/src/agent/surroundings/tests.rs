use super::*;
use crate::agent::fixtures::{backend, ip, web};
use crate::config::{InterfaceGlob, Workload};
use crate::model::snapshot;

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
    let backend = |node: &str, address: &str| backend(&format!("web.{node}"), node, address);
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
        services: vec![web("app", vec![backend("n1", "10.9.0.2"), backend("n2", "10.9.0.3")])].into(),
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
    let backends = local_backends("n1", &snapshot.networks, &snapshot.services);
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
    let made = |chosen: &Interfaces| settings(&config(&[]), chosen, features, &masquerade);
    let mut routed = chosen.clone();
    let veth = &mut routed.workloads[0].link;
    (veth.master, veth.kind, veth.peer_elsewhere) = (None, Some("veth".into()), true);
    assert_eq!(made(&routed).flags, abi::SETTING_L4_CSUM_IPV6 | abi::SETTING_HAND_OVER);
    let mut carried = config(&[]);
    carried.datapath.hand_over = false;
    let left = settings(&carried, &routed, features, &masquerade);
    assert_eq!(left.flags, abi::SETTING_L4_CSUM_IPV6);
    let settings = made(&chosen);
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
