//! Who speaks to whom in a [`World`](super::world::World): [`Case`] by family and protocol, [`Place`] by backend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::frame::Frame;
use super::world::{CLIENT_IF, NODE_IF, ROUTED_IF, ROUTER, SWITCHED_IF, mac, workload_mac};
use crate::abi::{EndpointKey, TCP, UDP};
use crate::address::Address;
use crate::tuple::Tuple;

/// Where a backend is.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Here, behind a veth.
    Here = 1,
    /// Here, behind a switch port.
    Switched = 2,
    /// Here, on an interface that the agent does not know yet.
    Unseen = 3,
    /// Here: the client inside the network itself.
    Client = 4,
    /// On node 2.
    Node2 = 5,
    /// On node 3, by the second interface.
    Node3 = 6,
    /// On node 4, whose MAC is not known.
    Node4 = 7,
}

impl Place {
    pub(super) const ALL: [Self; 7] = [
        Self::Here,
        Self::Switched,
        Self::Unseen,
        Self::Client,
        Self::Node2,
        Self::Node3,
        Self::Node4,
    ];

    const fn host(self) -> u8 {
        match self {
            Self::Here => 11,
            Self::Switched => 13,
            Self::Unseen => 16,
            Self::Client => 20,
            Self::Node2 => 12,
            Self::Node3 => 14,
            Self::Node4 => 15,
        }
    }

    /// Id of its node.
    pub const fn node(self) -> u32 {
        match self {
            Self::Here | Self::Switched | Self::Unseen | Self::Client => 0,
            Self::Node2 => 1,
            Self::Node3 => 2,
            Self::Node4 => 3,
        }
    }

    pub(super) const fn ifindex(self) -> u32 {
        match self {
            Self::Here => ROUTED_IF,
            Self::Switched => SWITCHED_IF,
            Self::Client => CLIENT_IF,
            _ => 0,
        }
    }
}

/// Family and protocol of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// IPv6.
    pub v6: bool,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
}

impl Case {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self::new(false, TCP),
        Self::new(false, UDP),
        Self::new(true, TCP),
        Self::new(true, UDP),
    ];
    /// TCP over both families.
    pub const TCP: [Self; 2] = [Self::new(false, TCP), Self::new(true, TCP)];
    /// UDP over both families.
    pub const UDP: [Self; 2] = [Self::new(false, UDP), Self::new(true, UDP)];

    const fn new(v6: bool, protocol: u8) -> Self {
        Self { v6, protocol }
    }

    /// For fixtures' names.
    pub const fn name(self) -> &'static str {
        match (self.v6, self.protocol == TCP) {
            (false, true) => "tcp4",
            (false, false) => "udp4",
            (true, true) => "tcp6",
            (true, false) => "udp6",
        }
    }

    /// Whether it is TCP.
    pub const fn tcp(self) -> bool {
        self.protocol == TCP
    }

    const fn index(self) -> u32 {
        (self.v6 as u32) * 2 + (self.protocol == UDP) as u32
    }

    /// Id of the service behind the published port.
    pub const fn published_service(self) -> u32 {
        1 + self.index()
    }

    /// Id of the service behind the VIP.
    pub const fn vip_service(self) -> u32 {
        11 + self.index()
    }

    /// Address of node `n`.
    pub fn node(self, n: u8) -> IpAddr {
        if self.v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(192, 0, 2, n).into()
        }
    }

    /// Address of host `n` in the workloads' network.
    pub fn host(self, n: u8) -> IpAddr {
        if self.v6 {
            Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(10, 5, 0, n).into()
        }
    }

    /// Client outside.
    pub fn client(self) -> SocketAddr {
        let ip: IpAddr = if self.v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7).into()
        } else {
            Ipv4Addr::new(198, 51, 100, 7).into()
        };
        SocketAddr::new(ip, 40_001)
    }

    /// Client inside the network.
    pub fn inside(self) -> SocketAddr {
        SocketAddr::new(self.host(20), 40_001)
    }

    /// Client inside the network, behind a routed veth.
    pub fn neighbour(self) -> SocketAddr {
        SocketAddr::new(self.host(21), 40_001)
    }

    /// Another one there, whose MAC is not known.
    pub fn silent(self) -> SocketAddr {
        SocketAddr::new(self.host(22), 40_001)
    }

    /// Client behind the gateway bridge (IPv4).
    pub fn gateway(self) -> SocketAddr {
        (Ipv4Addr::new(172, 18, 0, 5), 40_001).into()
    }

    /// The same client as flows, backends and other nodes know it.
    pub fn masked(self) -> SocketAddr {
        (Ipv4Addr::new(198, 18, 0, 5), 40_001).into()
    }

    /// Workload of the other network.
    pub fn stranger(self) -> SocketAddr {
        let ip: IpAddr = if self.v6 {
            Ipv6Addr::new(0xfd06, 0, 0, 0, 0, 0, 0, 20).into()
        } else {
            Ipv4Addr::new(10, 6, 0, 20).into()
        };
        SocketAddr::new(ip, 40_001)
    }

    /// Published port on node `n`.
    pub fn published(self, n: u8) -> SocketAddr {
        SocketAddr::new(self.node(n), 8080)
    }

    /// The VIP's frontend.
    pub fn vip(self) -> SocketAddr {
        SocketAddr::new(self.host(2), 80)
    }

    /// Where a backend listens.
    pub fn backend(self, place: Place) -> SocketAddr {
        SocketAddr::new(self.host(place.host()), 8000)
    }

    /// Its id.
    pub const fn backend_id(self, place: Place) -> u32 {
        place as u32 * 10 + self.index()
    }

    /// A frame between two sockets.
    pub fn frame(self, source: SocketAddr, destination: SocketAddr) -> Frame {
        Frame::new(self.protocol, source, destination)
    }

    /// First packet of a client outside to the published port, as node 1's first interface receives it.
    pub fn opening(self) -> Frame {
        self.first(self.client(), self.published(1)).macs(mac(NODE_IF), ROUTER)
    }

    /// First packet of the client inside the network to the VIP, as its interface receives it.
    pub fn vip_opening(self) -> Frame {
        self.first(self.inside(), self.vip())
            .macs(mac(CLIENT_IF), workload_mac(CLIENT_IF))
    }

    /// SYN with the usual options, or a datagram.
    pub fn first(self, source: SocketAddr, destination: SocketAddr) -> Frame {
        let frame = self.frame(source, destination);
        if self.tcp() {
            // MSS 1460 and SACK permitted, then padding.
            let options = [2, 4, 0x05, 0xb4, 4, 2, 1, 1];
            frame
                .flags(2)
                .numbers(0x0102_0304, 0)
                .tcp_options(&options)
                .payload(b"")
        } else {
            frame
        }
    }

    /// Key of a flow in a network.
    pub fn tuple(self, source: SocketAddr, destination: SocketAddr, network: u32) -> Tuple {
        Tuple {
            v6: self.v6,
            source: source.ip().into(),
            destination: destination.ip().into(),
            source_port: source.port(),
            destination_port: destination.port(),
            protocol: self.protocol,
            network,
        }
    }

    pub(super) fn endpoint(self, address: Address, network: u32, port: u16) -> EndpointKey {
        EndpointKey {
            address,
            network,
            port,
            protocol: self.protocol,
            family: if self.v6 { 6 } else { 4 },
        }
    }
}
