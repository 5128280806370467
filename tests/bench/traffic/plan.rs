//! Who has which address: services, their frontends and backends, the same for every contender; and this balancer's
//! cluster file.

use std::net::IpAddr;

use lb_tests::cluster::{Backend, Cluster, Document, Family, Port, Published, Service, Workload};
use lb_tests::netns::Netns;

/// Ports of the two backends of each service.
pub(super) const BACKENDS: [u16; 2] = [7000, 7001];
/// First published port of services that only fill the tables.
pub(super) const FILLERS: u16 = 12_000;

/// Where a client is, and what it speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A published port whose backends are on the node.
    PublishedHere,
    /// A published port whose backends are on the other node.
    PublishedThere,
    /// A VIP whose backends are on the client's node.
    VipHere,
    /// A VIP whose backends are on the other node.
    VipThere,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::PublishedHere, Self::PublishedThere, Self::VipHere, Self::VipThere];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PublishedHere => "published port, backend on the node",
            Self::PublishedThere => "published port, backend on another node",
            Self::VipHere => "VIP, backend on the node",
            Self::VipThere => "VIP, backend on another node",
        }
    }

    pub(super) const fn published(self) -> bool {
        matches!(self, Self::PublishedHere | Self::PublishedThere)
    }

    pub(super) const fn here(self) -> bool {
        matches!(self, Self::PublishedHere | Self::VipHere)
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(super) const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

pub(super) fn v4(workload: &Workload) -> IpAddr {
    workload.address(Family::V4)
}

/// Where the backends of services that are `here`, or not, run.
pub(super) fn backend(cluster: &Cluster, here: bool) -> &Workload {
    if here {
        cluster.workloads(0, "shop")[1]
    } else {
        cluster.workload(1, "shop")
    }
}

pub(super) fn node(cluster: &Cluster) -> &Netns {
    cluster.node(0).netns()
}

pub(super) fn number(here: bool, protocol: Protocol) -> u8 {
    1 + 2 * u8::from(!here) + u8::from(protocol == Protocol::Udp)
}

pub(super) fn published(here: bool, protocol: Protocol) -> u16 {
    8000 + u16::from(number(here, protocol))
}

pub(super) fn vip(here: bool, protocol: Protocol) -> IpAddr {
    [10, 1, 0, 10 + number(here, protocol)].into()
}

/// The services, of the client's side and the backend's: every combination.
pub(super) fn services() -> impl Iterator<Item = (bool, Protocol)> {
    [true, false]
        .into_iter()
        .flat_map(|here| Protocol::BOTH.map(|protocol| (here, protocol)))
}

/// Frontends of a service that only fills the tables.
pub(super) fn filler(index: u16) -> (IpAddr, u16) {
    let [high, low] = (index + 256).to_be_bytes();
    ([10, 1, 128 + high, low].into(), FILLERS + index)
}

/// Frontends of a service: its published port and its VIP.
pub(super) fn frontends(cluster: &Cluster, here: bool, protocol: Protocol) -> [(IpAddr, u16); 2] {
    let node = cluster.node(0).address(Family::V4);
    [(node, published(here, protocol)), (vip(here, protocol), 80)]
}

/// This balancer's cluster file.
pub(super) fn describe(document: &mut Document, cluster: &Cluster, fillers: u16) {
    for (here, protocol) in services() {
        let workload = backend(cluster, here);
        let name = format!("{}-{}", if here { "here" } else { "there" }, protocol.name());
        let backends = BACKENDS.map(|port| Backend {
            name: format!("{name}.{port}"),
            node: cluster.node(workload.node()).name().to_owned(),
            addresses: vec![v4(workload)],
            port: Some(port),
            weight: 1,
            state: "ready",
        });
        document.service.push(Service {
            network: "shop".to_owned(),
            mode: "vip",
            vip: vec![vip(here, protocol)],
            ports: vec![Port {
                port: 80,
                target: BACKENDS[0],
                protocol: protocol.name(),
                published: Some(Published::On(published(here, protocol))),
            }],
            backend: backends.into(),
            name,
            ..Service::default()
        });
    }
    for index in 0..fillers {
        let (vip, port) = filler(index);
        document.service.push(Service {
            name: format!("filler{index}"),
            network: "shop".to_owned(),
            mode: "vip",
            vip: vec![vip],
            ports: vec![Port {
                port: 80,
                target: BACKENDS[0],
                protocol: "tcp",
                published: Some(Published::On(port)),
            }],
            backend: vec![Backend {
                name: format!("filler{index}.1"),
                node: cluster.node(1).name().to_owned(),
                addresses: vec![v4(backend(cluster, false))],
                port: None,
                weight: 1,
                state: "ready",
            }],
            ..Service::default()
        });
    }
}
