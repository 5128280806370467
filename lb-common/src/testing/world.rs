//! [`World`]: node 1 of a small cluster, with its tables, in which every fixture plays.
//!
//! ```text
//!  client 198.51.100.7, 2001:db8:c::7 -- router --+-- 10 node 1 --+-- 20 backend .11   (veth, routed)
//!  node 2  192.0.2.2, 2001:db8::2  (backend .12) -+   192.0.2.1   +-- 21 client  .20   (veth, bridged), a backend too
//!  node 4  192.0.2.4, 2001:db8::4  (MAC unknown) -+               +-- 23 backend .13   (switch port)
//!  node 3  192.0.2.3, 2001:db8::3  (backend .14) ---- 11          +-- 22 stranger 10.6.0.20 of network 6
//!                                                                +-- 25 clients .21, .22 (MAC unknown)   (veth, routed)
//! ```
//!
//! Each service exists four times, by [`Case`]. Workloads are 10.5.0.0/24 and fd05::/64 of network 5.

use std::net::IpAddr;

pub use super::case::{Case, Place};
use super::frame::Mac;
use super::tables::{MemoryTables, Path};
use crate::abi::{
    BACKEND_LOCAL, BACKEND_READY, Backend, FLOW_ESTABLISHED, Flow, Frontend, INTERFACE_BRIDGED, INTERFACE_PEER,
    INTERFACE_WORKLOAD, Interface, InterfaceKey, NETWORK_NODE, NODE_LOCAL, NODE_PRESENT, Node, NodeAddress,
    REPLY_HAIRPIN, REPLY_PUBLISHED, REPLY_VIP, Reply, SETTING_HAND_OVER, Service, Settings, SlotKey, Vip, VipKey,
};
use crate::address::Address;
use crate::tables::{NextHop, Route};
use crate::tuple::Tuple;

/// Ticks at which a world is made; see [`World::at`].
pub const NOW: u32 = 1_000_000;
/// First interface of the node.
pub const NODE_IF: u32 = 10;
/// Its second.
pub const SECOND_IF: u32 = 11;
/// Host side of the routed workload.
pub const ROUTED_IF: u32 = 20;
/// Host side of the client inside the network.
pub const CLIENT_IF: u32 = 21;
/// Host side of a workload of another network.
pub const STRANGER_IF: u32 = 22;
/// Port of a switch with a workload behind it.
pub const SWITCHED_IF: u32 = 23;
/// Port of the gateway bridge, over which workloads reach the outside: in the node's own network.
pub const GATEWAY_IF: u32 = 24;
/// Host side of another routed workload.
pub const NEIGHBOUR_IF: u32 = 25;
/// Network of the workloads.
pub const NETWORK: u32 = 5;
/// Network of the stranger.
pub const OTHER_NETWORK: u32 = 6;
/// The loopback interface.
pub const LOOPBACK_IF: u32 = 1;
/// UDP port of the tunnel.
pub const TUNNEL_PORT: u16 = 4789;
/// MTU between nodes.
pub const TUNNEL_MTU: u16 = 1500;

/// The node's own MAC on an interface.
pub const fn mac(ifindex: u32) -> Mac {
    [2, 0, 0, 0, 1, ifindex as u8]
}

/// MAC of the workload behind an interface.
pub const fn workload_mac(ifindex: u32) -> Mac {
    [2, 0, 0, 0, 2, ifindex as u8]
}

/// MAC of another node.
pub const fn node_mac(node: u8) -> Mac {
    [2, 0, 0, 0, 3, node]
}

/// MAC of the router before the clients.
pub const ROUTER: Mac = [2, 0, 0, 0, 4, 1];

/// The cluster as node 1 sees it.
#[derive(Clone, Debug)]
pub struct World {
    /// What its tables hold.
    pub tables: MemoryTables,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Every service has the backend [`Place::Here`].
    pub fn new() -> Self {
        let mut tables = MemoryTables::default();
        tables.settings = Settings {
            tunnel_port: TUNNEL_PORT,
            tunnel_mtu: TUNNEL_MTU,
            flags: SETTING_HAND_OVER,
            tcp_syn: 60_000,
            tcp_established: 7_200_000,
            tcp_closing: 120_000,
            tcp_closed: 10_000,
            udp_new: 30_000,
            udp_established: 180_000,
            host: u32::from_ne_bytes([192, 0, 2, 1]),
            masquerade: u32::from_ne_bytes([198, 18, 0, 0]),
            masquerade_mask: u32::from_ne_bytes([255, 255, 0, 0]),
            bridge: u32::from_ne_bytes([172, 18, 0, 0]),
            bridge_mask: u32::from_ne_bytes([255, 255, 0, 0]),
        };
        let mut world = Self { tables };
        world.interfaces();
        world.nodes();
        for case in Case::ALL {
            world.service(case);
        }
        world
    }

    fn interfaces(&mut self) {
        let workload = INTERFACE_WORKLOAD;
        for (ifindex, network, flags) in [
            (NODE_IF, NETWORK_NODE, 0),
            (SECOND_IF, NETWORK_NODE, 0),
            (ROUTED_IF, NETWORK, workload | INTERFACE_PEER),
            (CLIENT_IF, NETWORK, workload | INTERFACE_PEER | INTERFACE_BRIDGED),
            (STRANGER_IF, OTHER_NETWORK, workload | INTERFACE_PEER),
            (SWITCHED_IF, NETWORK, workload | INTERFACE_BRIDGED),
            (GATEWAY_IF, NETWORK_NODE, workload | INTERFACE_PEER | INTERFACE_BRIDGED),
            (NEIGHBOUR_IF, NETWORK, workload | INTERFACE_PEER),
        ] {
            let interface = Interface {
                network,
                flags,
                mac: mac(ifindex),
                _pad: [0; 2],
            };
            self.tables.interfaces.insert(InterfaceKey::node(ifindex), interface);
        }
    }

    fn nodes(&mut self) {
        let [v4, v6] = [Case::TCP[0], Case::TCP[1]];
        for n in 1..=4u8 {
            let local = if n == 1 { NODE_LOCAL } else { 0 };
            let node = Node {
                tunnel_v4: v4.node(n).into(),
                tunnel_v6: v6.node(n).into(),
                flags: NODE_PRESENT | local,
                _pad: 0,
            };
            let id = u32::from(n) - 1;
            self.tables.nodes.insert(id, node);
            for case in [v4, v6] {
                let owner = NodeAddress { node: id, flags: local };
                self.tables.addresses.insert(case.node(n).into(), owner);
                if n == 1 {
                    continue;
                }
                let known = n != 4;
                let ifindex = if n == 3 { SECOND_IF } else { NODE_IF };
                self.path(case.node(n), 0, None, ifindex, known.then_some(node_mac(n)));
            }
        }
        for case in [v4, v6] {
            let router = case.node(254);
            let prefix = if case.v6 { 64 } else { 8 };
            self.path(case.client().ip(), prefix, Some(router), NODE_IF, Some(ROUTER));
            if !case.v6 {
                self.path(case.gateway().ip(), 0, None, GATEWAY_IF, Some(workload_mac(GATEWAY_IF)));
            }
            let unseen = Some(workload_mac(99));
            self.path(case.backend(Place::Unseen).ip(), 0, None, SWITCHED_IF, unseen);
            let neighbour = Some(workload_mac(NEIGHBOUR_IF));
            self.path(case.neighbour().ip(), 0, None, NEIGHBOUR_IF, neighbour);
            let far = (case.backend(Place::Node2).ip(), case.node(2));
            self.path(far.0, 0, Some(far.1), NODE_IF, Some(node_mac(2)));
            self.path(case.silent().ip(), 0, None, NEIGHBOUR_IF, None);
        }
    }

    /// A route; the last `wild` bits of the destination do not matter.
    fn path(&mut self, to: IpAddr, wild: u8, gateway: Option<IpAddr>, ifindex: u32, next: Option<Mac>) {
        let bits = if to.is_ipv4() { 32 - wild } else { 128 - wild };
        let destination: Address = match to {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) >> wild << wild).into()).into(),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> wild << wild).into()).into(),
        };
        let route = match next {
            Some(next) => Route {
                hop: NextHop::Resolved,
                ifindex,
                source: mac(ifindex),
                destination: next,
                takes_frames: false,
                asked: NOW,
            },
            None => Route {
                hop: NextHop::Unresolved,
                ifindex,
                ..Route::default()
            },
        };
        self.tables.paths.push(Path {
            destination,
            bits,
            gateway: gateway.map(Address::from),
            route,
        });
    }

    /// Makes the kernel refuse to route to `to`.
    #[must_use]
    pub fn unroutable(mut self, to: IpAddr) -> Self {
        let bits = if to.is_ipv4() { 32 } else { 128 };
        self.tables.paths.push(Path {
            destination: to.into(),
            bits,
            gateway: None,
            route: Route::default(),
        });
        self
    }

    fn service(&mut self, case: Case) {
        for place in Place::ALL {
            let local = place.node() == 0;
            let id = case.backend_id(place);
            let address: Address = case.backend(place).ip().into();
            let port = case.backend(place).port();
            let known = place.ifindex() != 0;
            let backend = Backend {
                address,
                delivery: address,
                network: NETWORK,
                delivery_network: NETWORK,
                node: place.node(),
                generation: 7,
                ifindex: place.ifindex(),
                port,
                protocol: case.protocol,
                state: BACKEND_READY,
                mac: if known { workload_mac(place.ifindex()) } else { [0; 6] },
                flags: if local { BACKEND_LOCAL } else { 0 },
            };
            self.tables.backends.insert(id, backend);
            if local {
                self.tables
                    .local_backends
                    .insert(case.endpoint(address, NETWORK, port), id);
            }
        }
        for (key, id) in [
            (
                case.endpoint(Address::ANY, NETWORK_NODE, case.published(1).port()),
                case.published_service(),
            ),
            (
                case.endpoint(case.vip().ip().into(), NETWORK, case.vip().port()),
                case.vip_service(),
            ),
        ] {
            self.tables.frontends.insert(key, Frontend { service: id, flags: 0 });
            self.slots(id, &[case.backend_id(Place::Here)]);
        }
        let vip = VipKey {
            address: case.vip().ip().into(),
            network: NETWORK,
        };
        self.tables.vips.insert(vip, Vip { frontends: 2 });
    }

    /// Gives a service a new generation of slots.
    pub fn slots(&mut self, service: u32, backends: &[u32]) {
        let generation = self.tables.services.get(&service).map_or(1, |s| s.generation + 1);
        for (index, backend) in backends.iter().enumerate() {
            let key = SlotKey {
                service,
                generation,
                index: index as u32,
            };
            self.tables.slots.insert(key, *backend);
        }
        let entry = Service {
            identity: service.into(),
            generation,
            count: backends.len() as u32,
            ..Service::default()
        };
        self.tables.services.insert(service, entry);
    }

    /// Both services of a case have these backends, in this order of slots.
    #[must_use]
    pub fn serve(mut self, case: Case, places: &[Place]) -> Self {
        let ids: std::vec::Vec<u32> = places.iter().map(|place| case.backend_id(*place)).collect();
        for service in [case.published_service(), case.vip_service()] {
            self.slots(service, &ids);
        }
        self
    }

    /// A backend in another state; as gone, its element is given to nobody yet.
    #[must_use]
    pub fn backend_state(mut self, case: Case, place: Place, state: u8) -> Self {
        let backend = self.tables.backends.get_mut(&case.backend_id(place));
        backend.expect("every place has a backend").state = state;
        self
    }

    /// A flow to the backend at `place`, established 1000 ticks ago and quiet for 500; its port is the client's own.
    /// `origin`: the node that it came from through the tunnel.
    #[must_use]
    pub fn flow(self, case: Case, tuple: Tuple, place: Place, origin: Option<u32>) -> Self {
        let published = tuple.network == NETWORK_NODE;
        let service = if published {
            case.published_service()
        } else {
            case.vip_service()
        };
        let backend = self.tables.backends[&case.backend_id(place)];
        let hairpin = backend.address == tuple.source;
        let settings = &self.tables.settings;
        let flow = Flow {
            backend: case.backend_id(place),
            generation: backend.generation,
            service,
            origin: origin.map_or(0, |node| node + 1),
            last_seen: NOW - 500,
            timeout: if case.tcp() {
                settings.tcp_established
            } else {
                settings.udp_established
            },
            created: NOW - 1000,
            source_port: tuple.source_port,
            state: FLOW_ESTABLISHED,
            flags: if hairpin { crate::abi::FLOW_FLAG_HAIRPIN } else { 0 },
        };
        self.tables.put_flow(tuple, flow);
        if backend.flags & BACKEND_LOCAL != 0 || !published {
            let back = Tuple {
                source: backend.address,
                destination: if hairpin { tuple.destination } else { tuple.source },
                source_port: backend.port,
                destination_port: tuple.source_port,
                network: backend.network,
                ..tuple
            };
            self.tables.put_reply(back, reply_of(&tuple, hairpin));
        }
        self
    }

    /// Changes a flow that is there.
    #[must_use]
    pub fn change(self, tuple: Tuple, change: impl FnOnce(&mut Flow)) -> Self {
        let mut flow = self.tables.flows()[&tuple];
        change(&mut flow);
        self.tables.put_flow(tuple, flow);
        self
    }

    /// The same world at another time.
    #[must_use]
    pub fn at(self, now: u32) -> Self {
        self.tables.shift(now.wrapping_sub(NOW));
        self
    }
}

/// The way back to a flow.
pub fn reply_of(tuple: &Tuple, hairpin: bool) -> Reply {
    Reply {
        frontend: tuple.destination,
        client: tuple.source,
        frontend_port: tuple.destination_port,
        client_port: tuple.source_port,
        network: tuple.network,
        kind: match (hairpin, tuple.network) {
            (true, _) => REPLY_HAIRPIN,
            (false, NETWORK_NODE) => REPLY_PUBLISHED,
            (false, _) => REPLY_VIP,
        },
        bound: NOW,
    }
}
