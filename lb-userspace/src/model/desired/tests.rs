use std::time::Duration;

use lb_common::abi::ticks;

use super::*;
use crate::model::snapshot::{self, EndpointMode, Network, Port, Snapshot};

fn backend(name: &str, node: &str, addresses: &[&str]) -> snapshot::Backend {
    snapshot::Backend {
        name: name.into(),
        node: node.into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        port: None,
        state: BackendState::Ready,
        weight: 1,
        pending: false,
        aliases: Vec::new(),
    }
}

/// One network, two nodes, one service with a VIP in both families, published; two IPv4 backends.
fn cluster() -> Snapshot {
    let node = |name: &str, addresses: &[&str]| snapshot::Node {
        name: name.into(),
        id: None,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    Snapshot {
        generation: 7,
        nodes: vec![
            node("n1", &["192.0.2.1", "192.0.2.11", "2001:db8::1"]),
            node("n2", &["192.0.2.2"]),
        ],
        networks: vec![Network {
            name: "front".into(),
            id: 5,
            subnets: Vec::new(),
            encrypted: false,
            overlay: false,
            ingress: false,
        }],
        services: vec![snapshot::Service {
            name: "web".into(),
            network: "front".into(),
            mode: EndpointMode::Vip,
            vips: vec!["10.0.1.9".parse().unwrap(), "fd00:1::9".parse().unwrap()],
            aliases: Vec::new(),
            ports: vec![Port {
                protocol: Protocol::Tcp,
                port: 80,
                target: 8080,
                published: Some(30080),
            }],
            any_port: false,
            sources: Default::default(),
            tcp_timeout: Some(Duration::from_secs(30)),
            udp_timeout: None,
            backends: vec![
                backend("web.1", "n1", &["10.0.1.21"]),
                backend("web.2", "n2", &["10.0.1.22"]),
            ],
        }]
        .into(),
    }
}

fn compile(snapshot: &Snapshot) -> Desired {
    Desired::compile(snapshot, "n1", &Interfaces::new()).unwrap()
}

fn frontends(desired: &Desired) -> Vec<String> {
    let name = |(key, identity): (&EndpointKey, &u64)| {
        format!(
            "{} {} ipv{} -> {}",
            key.network, key.address, key.family, desired.services[identity].key
        )
    };
    desired.frontends.iter().map(name).collect()
}

fn shares(desired: &Desired, name: &str) -> Vec<(String, u16)> {
    let service = desired.services.values().find(|s| s.key.to_string() == name).unwrap();
    service
        .shares
        .iter()
        .map(|(key, weight)| (format!("{}:{}", key.address, key.port), *weight))
        .collect()
}

fn share(text: &str) -> (String, u16) {
    (text.into(), 1)
}

#[test]
fn fnv1a_is_the_published_function() {
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn identity_is_stable() {
    let key = compile(&cluster())
        .services
        .into_values()
        .map(|s| s.key)
        .find(|key| key.family == Family::V4)
        .unwrap();
    assert_eq!(key.identity(), fnv1a(b"front/web/80/tcp/4"));
    assert_eq!(
        ServiceKey { local: true, ..key }.identity(),
        fnv1a(b"front/web/80/tcp/4/local")
    );
}

#[test]
fn vip_and_published_port_share_one_set() {
    let desired = compile(&cluster());
    assert_eq!(
        frontends(&desired),
        [
            "0 :: ipv4 -> front/web 80/tcp",
            "5 10.0.1.9 ipv4 -> front/web 80/tcp",
            "5 fd00:1::9 ipv6 -> front/web 80/tcp ipv6"
        ]
    );
    assert_eq!(
        shares(&desired, "front/web 80/tcp"),
        [share("10.0.1.21:8080"), share("10.0.1.22:8080")]
    );
    assert_eq!(shares(&desired, "front/web 80/tcp ipv6"), []);
    assert!(desired.vips.values().all(|frontends| *frontends == 1));
    assert_eq!(desired.local_backends.len(), 1);
    assert_eq!(desired.services.values().next().unwrap().tcp_timeout, ticks(30_000));
    assert_eq!(desired.refused, []);
}

#[test]
fn without_any_backend_both_families_are_refused_at_once() {
    let mut snapshot = cluster();
    snapshot.services[0].backends.clear();
    snapshot.services[0].vips.clear();
    let desired = compile(&snapshot);
    assert_eq!(
        frontends(&desired),
        ["0 :: ipv4 -> front/web 80/tcp", "0 :: ipv6 -> front/web 80/tcp ipv6"]
    );
    assert!(desired.services.values().all(|s| s.shares.is_empty()));
}

#[test]
fn draining_backends_serve_only_while_no_other_does() {
    let mut snapshot = cluster();
    snapshot.services[0].backends[0].state = BackendState::Draining;
    assert_eq!(
        shares(&compile(&snapshot), "front/web 80/tcp"),
        [share("10.0.1.22:8080")]
    );
    snapshot.services[0].backends[1].state = BackendState::Draining;
    assert_eq!(shares(&compile(&snapshot), "front/web 80/tcp").len(), 2);
    assert!(
        compile(&snapshot)
            .backends
            .values()
            .all(|b| b.state == BackendState::Draining)
    );
}

#[test]
fn a_backend_of_two_services_drains_in_one_alone() {
    let mut snapshot = cluster();
    let mut twin = snapshot.services[0].clone();
    twin.name = "twin".into();
    twin.vips.clear();
    twin.ports[0].published = Some(30081);
    snapshot.services.push(twin);
    assert_eq!(compile(&snapshot).drained.len(), 0);
    snapshot.services[0].backends[0].state = BackendState::Draining;
    let desired = compile(&snapshot);
    assert_eq!(shares(&desired, "front/web 80/tcp"), [share("10.0.1.22:8080")]);
    assert_eq!(shares(&desired, "front/twin 80/tcp").len(), 2);
    let drained: Vec<_> = desired.drained.iter().collect();
    let [(identity, key)] = drained[..] else {
        panic!("{drained:?}")
    };
    assert_eq!(desired.services[identity].key.to_string(), "front/web 80/tcp");
    assert_eq!(desired.backends[key].state, BackendState::Ready);
    // Draining in both, it is so for all: nothing is left to be told apart.
    snapshot.services[1].backends[0].state = BackendState::Draining;
    assert_eq!(compile(&snapshot).drained.len(), 0);
}

#[test]
fn dnsrr_has_no_frontend() {
    let mut snapshot = cluster();
    snapshot.services[0].mode = EndpointMode::Dnsrr;
    let desired = compile(&snapshot);
    assert!(desired.frontends.is_empty() && desired.services.is_empty() && desired.vips.is_empty());
}

#[test]
fn several_published_ports_of_one_port_share_its_set() {
    let mut snapshot = cluster();
    let port = snapshot.services[0].ports[0];
    snapshot.services[0].ports.push(Port {
        published: Some(30081),
        ..port
    });
    let desired = compile(&snapshot);
    assert_eq!(
        desired
            .frontends
            .values()
            .filter(|i| **i == fnv1a(b"front/web/80/tcp/4"))
            .count(),
        3
    );
    assert_eq!(
        desired.vips[&VipKey {
            address: "10.0.1.9".parse::<IpAddr>().unwrap().into(),
            network: 5
        }],
        1
    );
}

#[test]
fn an_encrypted_network_is_not_tunnelled() {
    let mut snapshot = cluster();
    snapshot.networks[0].encrypted = true;
    let desired = compile(&snapshot);
    // The VIP stays inside the network, which encrypts by itself.
    assert_eq!(shares(&desired, "front/web 80/tcp").len(), 2);
    assert_eq!(
        shares(&desired, "front/web 80/tcp published"),
        [share("10.0.1.21:8080")]
    );
    assert!(desired.local_backends.is_empty());
    assert_eq!(
        desired.refused[0].to_string(),
        "published port 30080/tcp of front/web 80/tcp published: network front is encrypted and the tunnel between \
         nodes is not: only the backends on this node answer"
    );
    snapshot.services[0].backends.remove(0);
    let desired = compile(&snapshot);
    assert!(desired.frontends.keys().all(|key| key.network == 5));
    assert!(
        desired.refused[0]
            .reason
            .ends_with("it is left to the kernel's own stack")
    );
}

#[test]
fn a_taken_port_is_refused() {
    let mut snapshot = cluster();
    let mut other = snapshot.services[0].clone();
    other.name = "api".into();
    other.vips.clear();
    snapshot.services.push(other);
    let desired = compile(&snapshot);
    assert_eq!(
        desired.refused[0].to_string(),
        "service front/web 80/tcp: published port 30080 is already taken by front/api 80/tcp"
    );
}

#[test]
fn nodes_addresses_and_interfaces() {
    let reach = Reach {
        ifindex: 9,
        mac: [2, 0, 0, 0, 0, 1],
        delivery: None,
        leaving: false,
    };
    let interfaces = [((5, Address::v4([10, 0, 1, 21])), reach)].into();
    let desired = Desired::compile(&cluster(), "n1", &interfaces).unwrap();
    let node = &desired.nodes["n1"];
    assert!(node.local && !desired.nodes["n2"].local);
    assert_eq!(
        (node.tunnel_v4.to_string(), node.tunnel_v6.to_string()),
        ("192.0.2.1".into(), "2001:db8::1".into())
    );
    assert_eq!(desired.nodes["n2"].tunnel_v6, Address::ANY);
    assert_eq!(desired.addresses.len(), 4);
    let attached: Vec<_> = desired
        .backends
        .values()
        .map(|b| (b.local, b.ifindex, b.mac[0]))
        .collect();
    assert_eq!(attached, [(true, 9, 2), (false, 0, 0)]);
}

#[test]
fn what_refers_to_nothing_is_refused_not_a_panic() {
    let mut snapshot = cluster();
    snapshot.services[0].backends[1].node = "n9".into();
    let mut lost = snapshot.services[0].clone();
    lost.network = "nowhere".into();
    snapshot.services.push(lost);
    let desired = compile(&snapshot);
    assert_eq!(
        desired.refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "backend web.2 of front/web 80/tcp: there is no node \"n9\"",
            "service web: there is no network \"nowhere\"",
        ]
    );
    assert_eq!(shares(&desired, "front/web 80/tcp").len(), 1);
}

#[test]
fn an_unknown_node_is_an_error_that_says_what_to_do() {
    let error = Desired::compile(&cluster(), "n3", &Interfaces::new())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "node \"n3\" is not in the cluster (its nodes: n1, n2); name this node as the cluster does, or add it there"
    );
    let error = Desired::compile(&Snapshot::default(), "n3", &Interfaces::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("its nodes: none"), "{error}");
}
