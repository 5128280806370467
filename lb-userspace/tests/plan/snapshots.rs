//! What is wanted: random snapshots, and two services by name.

use std::net::IpAddr;

use lb_userspace::model::desired::{Desired, Interfaces};
use lb_userspace::model::snapshot::{
    Backend, BackendState, EndpointMode, Network, Node, Port, Protocol, Service, Snapshot,
};
use proptest::prelude::*;

pub(crate) fn v4(network: usize, host: usize) -> IpAddr {
    format!("10.0.{network}.{host}").parse().unwrap()
}

pub(crate) fn v6(network: usize, host: usize) -> IpAddr {
    format!("fd00:{network}::{host:x}").parse().unwrap()
}

pub(crate) fn addresses(families: u8, network: usize, host: usize) -> Vec<IpAddr> {
    let v4 = (families & 1 != 0).then(|| v4(network, host));
    v4.into_iter()
        .chain((families & 2 != 0).then(|| v6(network, host)))
        .collect()
}

/// Host, node, families, ready, weight.
pub(crate) type Task = (usize, usize, u8, bool, u16);

pub(crate) fn task() -> impl Strategy<Value = Task> {
    (
        1_usize..8,
        0_usize..3,
        1_u8..=3,
        prop::bool::weighted(0.7),
        prop::sample::select(vec![1_u16, 1, 1, 2, 3, 256]),
    )
}

/// Whether it has a VIP, families of the VIP, published ports, tasks, whether it has a timeout of its own.
pub(crate) fn service() -> impl Strategy<Value = (bool, u8, Vec<Option<u16>>, Vec<Task>, bool)> {
    (
        prop::bool::weighted(0.85),
        0_u8..=3,
        prop::collection::vec(prop::option::of(30000_u16..30004), 0..3),
        prop::collection::vec(task(), 0..5),
        any::<bool>(),
    )
}

prop_compose! {
    /// Two networks, the second encrypted; up to four services; addresses from a small range, so that they move
    /// between services and come back, and published ports that clash.
    pub(crate) fn snapshot()(
        nodes in prop::sample::subsequence(vec![1_usize, 2], 0..=2),
        families in 1_u8..=3,
        services in prop::collection::btree_map((0_usize..2, 0_usize..3), service(), 0..5),
    ) -> Snapshot {
        let node = |i: usize| Node {
            name: format!("n{i}"),
            id: None,
            addresses: addresses(if i == 0 { 3 } else { families }, 99, i + 1),
        };
        let network = |i: usize| Network {
            name: format!("net{i}"), id: i as u32 + 1, subnets: Vec::new(), encrypted: i == 1, overlay: false, ingress: false,
        };
        let services = services.into_iter().map(|((net, name), (vip, vips, ports, tasks, timeout))| Service {
            name: format!("s{name}"),
            network: format!("net{net}"),
            mode: if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr },
            vips: addresses(vips, net, 200 + name),
            aliases: Vec::new(),
            ports: ports.into_iter().zip([80, 53]).map(|(published, port)| Port {
                protocol: if port == 80 { Protocol::Tcp } else { Protocol::Udp }, port, target: 8000 + port, published,
            }).collect(),
            any_port: false,
            sources: Default::default(),
            tcp_timeout: timeout.then_some(std::time::Duration::from_secs(60)),
            udp_timeout: None,
            backends: tasks.into_iter().enumerate().map(|(i, (host, node, families, ready, weight))| Backend {
                name: format!("s{name}.{i}"),
                node: format!("n{node}"),
                addresses: addresses(families, net, host),
                port: None,
                state: if ready { BackendState::Ready } else { BackendState::Draining },
                weight,
                pending: false,
                aliases: Vec::new(),
            }).collect(),
        }).collect();
        let nodes = [0].into_iter().chain(nodes).map(node).collect();
        Snapshot { generation: 1, nodes, networks: vec![network(0), network(1)], services }
    }
}

pub(crate) fn compile(snapshot: &Snapshot) -> Desired {
    Desired::compile(snapshot, "n0", &Interfaces::new()).unwrap()
}

/// Services s0 and s1 with a VIP and one backend each.
pub(crate) fn two_services(hosts: [usize; 2]) -> Snapshot {
    let service = |i: usize| Service {
        name: format!("s{i}"),
        network: "net0".into(),
        mode: EndpointMode::Vip,
        vips: vec![v4(0, 200 + i)],
        aliases: Vec::new(),
        ports: vec![Port {
            protocol: Protocol::Tcp,
            port: 80,
            target: 8080,
            published: None,
        }],
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends: vec![Backend {
            name: format!("s{i}.1"),
            node: "n0".into(),
            addresses: vec![v4(0, hosts[i])],
            port: None,
            state: BackendState::Ready,
            weight: 1,
            pending: false,
            aliases: Vec::new(),
        }],
    };
    Snapshot {
        generation: 1,
        nodes: vec![Node {
            name: "n0".into(),
            id: None,
            addresses: addresses(3, 99, 1),
        }],
        networks: vec![Network {
            name: "net0".into(),
            id: 1,
            subnets: Vec::new(),
            encrypted: false,
            overlay: false,
            ingress: false,
        }],
        services: vec![service(0), service(1)].into(),
    }
}
