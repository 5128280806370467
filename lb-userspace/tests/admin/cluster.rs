//! One small cluster: a snapshot, and tables in memory that hold it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{self, EndpointKey, SlotKey};
use lb_common::address::Address;
use lb_common::verdict::Reason;
use lb_userspace::admin::inspect::{Inspect, Tables, TrackedFlow};
use lb_userspace::datapath::view::{MapInfo, now_ticks};
use lb_userspace::model::snapshot::{
    Backend, BackendState, EndpointMode, Network, Node, Port, Protocol, Service, Snapshot,
};
use lb_userspace::plan::store::StoreError;

/// The number of network `front`.
pub(crate) const FRONT: u32 = 7;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two nodes, two networks; `web` published with a VIP, `db` dnsrr, and a second `web` in network `back`.
pub(crate) fn snapshot() -> Snapshot {
    let node = |name: &str, address: &str| Node {
        name: name.into(),
        id: None,
        addresses: vec![ip(address)],
    };
    let network = |name: &str, id, subnet: &str| Network {
        name: name.into(),
        id,
        subnets: vec![subnet.parse().unwrap()],
        encrypted: false,
        overlay: false,
        ingress: false,
    };
    let task = |name: &str, node: &str, address: &str, state| Backend {
        name: name.into(),
        node: node.into(),
        addresses: vec![ip(address)],
        port: None,
        state,
        weight: 1,
        pending: false,
        aliases: Vec::new(),
    };
    let service = |name: &str, network: &str| Service {
        name: name.into(),
        network: network.into(),
        mode: EndpointMode::Vip,
        vips: vec![],
        aliases: vec![],
        ports: vec![],
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends: vec![],
    };
    Snapshot {
        generation: 418,
        nodes: vec![node("n1", "192.0.2.1"), node("n2", "192.0.2.2")],
        networks: vec![
            network("front", FRONT, "10.0.1.0/24"),
            network("back", 8, "10.0.2.0/24"),
        ],
        services: vec![
            Service {
                vips: vec![ip("10.0.1.5")],
                aliases: vec!["www".into()],
                ports: vec![Port {
                    protocol: Protocol::Tcp,
                    port: 80,
                    target: 8080,
                    published: Some(30080),
                }],
                backends: vec![
                    task("web.1", "n1", "10.0.1.21", BackendState::Ready),
                    task("web.2", "n2", "10.0.1.22", BackendState::Draining),
                ],
                ..service("web", "front")
            },
            Service {
                mode: EndpointMode::Dnsrr,
                backends: vec![task("db.1", "n2", "10.0.2.21", BackendState::Ready)],
                ..service("db", "back")
            },
            Service {
                vips: vec![ip("10.0.2.5")],
                ..service("web-admin", "back")
            },
            service("api", "front"),
            service("api", "back"),
        ]
        .into(),
    }
}

/// Tables in memory.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) tables: Tables,
    pub(crate) flows: Vec<TrackedFlow>,
    pub(crate) counters: BTreeMap<u8, abi::Counter>,
    pub(crate) services: BTreeMap<u32, abi::ServiceCounter>,
}

/// A flow of `web` that is `idle_seconds` old.
pub(crate) fn flow(client: &str, backend: u32, idle_seconds: u64, timeout_seconds: u64) -> TrackedFlow {
    let seen = now_ticks().wrapping_sub(abi::ticks(idle_seconds * 1000));
    let client: SocketAddr = client.parse().unwrap();
    TrackedFlow {
        client,
        frontend: "10.0.1.5:80".parse().unwrap(),
        network: FRONT,
        protocol: abi::TCP,
        flow: abi::Flow {
            backend,
            generation: 1,
            service: 3,
            origin: 0,
            last_seen: seen,
            timeout: abi::ticks(timeout_seconds * 1000),
            created: seen.wrapping_sub(abi::ticks(60_000)),
            source_port: client.port(),
            state: abi::FLOW_ESTABLISHED,
            flags: 0,
        },
    }
}

impl Memory {
    /// What the maps hold once [`snapshot`] is applied on node `n1`, with three live flows and an expired one.
    pub(crate) fn new() -> Self {
        let mut memory = Self::default();
        let tables = &mut memory.tables;
        let key = |address, network, port| EndpointKey {
            address,
            network,
            port,
            protocol: abi::TCP,
            family: 4,
        };
        let frontend = abi::Frontend { service: 3, flags: 0 };
        tables
            .frontends
            .insert(key(Address::from(ip("10.0.1.5")), FRONT, 80), frontend);
        tables.frontends.insert(key(Address::ANY, 0, 30080), frontend);
        tables.services.insert(
            3,
            abi::Service {
                generation: 2,
                count: 1,
                ..Default::default()
            },
        );
        tables.slots.insert(
            SlotKey {
                service: 3,
                generation: 2,
                index: 0,
            },
            1,
        );
        // Of a generation that is no longer in force: must not count.
        tables.slots.insert(
            SlotKey {
                service: 3,
                generation: 1,
                index: 0,
            },
            2,
        );
        for (id, address, node, state, flags) in [
            (1, "10.0.1.21", 0, abi::BACKEND_READY, abi::BACKEND_LOCAL),
            (2, "10.0.1.22", 1, abi::BACKEND_DRAINING, 0),
        ] {
            let backend = abi::Backend {
                address: Address::from(ip(address)),
                network: FRONT,
                node,
                generation: 1,
                port: 8080,
                protocol: abi::TCP,
                state,
                flags,
                ..Default::default()
            };
            tables.backends.insert(id, backend);
        }
        for (id, address, flags) in [
            (0, "192.0.2.1", abi::NODE_PRESENT | abi::NODE_LOCAL),
            (1, "192.0.2.2", abi::NODE_PRESENT),
        ] {
            let node = abi::Node {
                tunnel_v4: Address::from(ip(address)),
                flags,
                ..Default::default()
            };
            tables.nodes.insert(id, node);
        }
        let mut through = flow("198.51.100.9:4003", 1, 1, 900);
        through.flow.origin = 2;
        through.flow.source_port = 5003;
        let mut moved = flow("198.51.100.9:4004", 2, 1, 900);
        moved.flow.generation = 0;
        memory.flows = vec![
            flow("198.51.100.9:4001", 1, 2, 900),
            through,
            moved,
            flow("198.51.100.9:4002", 2, 1000, 900),
        ];
        memory.counters.insert(
            Reason::ForwardLocal.code(),
            abi::Counter {
                packets: 21_400,
                bytes: 2_000_000,
            },
        );
        memory
            .counters
            .insert(Reason::DropNoRoute.code(), abi::Counter { packets: 3, bytes: 300 });
        memory.services.insert(
            3,
            abi::ServiceCounter {
                flows: 12,
                packets: 100,
                bytes: 64_000,
                reply_packets: 90,
                reply_bytes: 900_000,
            },
        );
        memory
    }
}

impl Inspect for Memory {
    fn tables(&self) -> Result<Tables, StoreError> {
        Ok(self.tables.clone())
    }

    fn for_each_flow(&self, each: &mut dyn FnMut(TrackedFlow)) -> Result<(), StoreError> {
        self.flows.iter().copied().for_each(each);
        Ok(())
    }

    fn pressed(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn counters(&self) -> Result<BTreeMap<u8, abi::Counter>, StoreError> {
        Ok(self.counters.clone())
    }

    fn service_counters(&self) -> Result<BTreeMap<u32, abi::ServiceCounter>, StoreError> {
        Ok(self.services.clone())
    }

    fn map_info(&self) -> Result<Vec<MapInfo>, StoreError> {
        Ok(vec![MapInfo {
            name: "flows4".into(),
            id: 40,
            kind: "hash".into(),
            key_size: 16,
            value_size: 32,
            entries: self.flows.len() as u64,
            max_entries: 1024,
            memory: 1_048_576,
        }])
    }
}
