//! Links, addresses, routes and neighbours of this network namespace, through rtnetlink.

pub mod card;
pub(crate) mod limits;
pub mod memory;
pub mod netns;
pub mod privileges;
mod resolve;
mod watch;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::pin;

use futures::{Stream, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

pub use resolve::{Place, Routes, Surroundings};
pub use watch::watch;

/// rtnetlink refused.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// A request failed.
    #[error("cannot {operation}: {source}")]
    Request {
        /// What was asked.
        operation: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Kind of a virtual interface, as `ip -d link` shows it; `None` for hardware.
    pub kind: Option<String>,
    /// Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Largest packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Its other end lies in another network namespace.
    pub peer_elsewhere: bool,
    /// Interface index of its other end, of a veth.
    pub peer: Option<u32>,
}

impl Link {
    /// Whether it is one end of a veth pair.
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }
}

/// Where a packet to some address leaves this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Interface index.
    pub ifindex: u32,
    /// Next router; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The destination is this node itself.
    pub local: bool,
}

/// One entry of the neighbour tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface index.
    pub ifindex: u32,
    /// Address.
    pub address: IpAddr,
    /// Ethernet address; `None` while it is not resolved.
    pub mac: Option<[u8; 6]>,
}

/// One entry of a bridge's forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeEntry {
    /// The bridge.
    pub bridge: u32,
    /// Its port that leads there.
    pub port: u32,
    /// Ethernet address behind it.
    pub mac: [u8; 6],
}

/// A socket to the kernel.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be opened.
    pub fn connect() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Opens a socket in another network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the socket not be opened.
    pub fn connect_in(namespace: &netns::Namespace) -> Result<Self, NetError> {
        let runtime = tokio::runtime::Handle::current();
        namespace.run(|| {
            let _runtime = runtime.enter();
            Self::connect()
        })?
    }

    /// Every interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn links(&self) -> Result<Vec<Link>, NetError> {
        let messages = all("list interfaces", self.handle.link().get().execute()).await?;
        Ok(messages.into_iter().map(link).collect())
    }

    /// Every address with its interface index.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, NetError> {
        let messages = all("list addresses", self.handle.address().get().execute()).await?;
        let address = |attributes: &[AddressAttribute]| {
            // On point-to-point links IFA_ADDRESS is the far end, IFA_LOCAL this one.
            let local = attributes.iter().find_map(|a| {
                if let AddressAttribute::Local(ip) = a {
                    Some(*ip)
                } else {
                    None
                }
            });
            local.or_else(|| {
                attributes.iter().find_map(|a| {
                    if let AddressAttribute::Address(ip) = a {
                        Some(*ip)
                    } else {
                        None
                    }
                })
            })
        };
        Ok(messages
            .into_iter()
            .filter_map(|m| Some((m.header.index, address(&m.attributes)?)))
            .collect())
    }

    /// The first IPv4 address of an interface with the length of its subnet; `None` if it has none.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn subnet(&self, ifindex: u32) -> Result<Option<Ipv4Net>, NetError> {
        let request = self.handle.address().get().set_link_index_filter(ifindex);
        let messages = all("list addresses", request.execute()).await?;
        let subnet = |message: AddressMessage| {
            let length = message.header.prefix_len;
            message.attributes.into_iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(ip)) => Ipv4Net::new(ip, length).ok(),
                _ => None,
            })
        };
        Ok(messages.into_iter().find_map(subnet))
    }

    /// How this node reaches `destination`; `None` if it has no route.
    ///
    /// # Errors
    /// If the kernel refuses for another reason.
    pub async fn route(&self, destination: IpAddr) -> Result<Option<Hop>, NetError> {
        let length = if destination.is_ipv4() { 32 } else { 128 };
        let Ok(request) = RouteMessageBuilder::<IpAddr>::new().destination_prefix(destination, length) else {
            return Ok(None);
        };
        let mut replies = pin!(self.handle.route().get(request.build()).execute());
        let message = match replies.try_next().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(rtnetlink::Error::NetlinkError(e))
                if matches!(
                    -e.raw_code(),
                    libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL
                ) =>
            {
                return Ok(None);
            }
            Err(source) => {
                return Err(NetError::Request {
                    operation: "look up a route",
                    source,
                });
            }
        };
        let mut hop = Hop {
            ifindex: 0,
            gateway: None,
            local: message.header.kind == RouteType::Local,
        };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(ifindex) => hop.ifindex = ifindex,
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop.gateway = Some(ip.into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => hop.gateway = Some(ip.into()),
                RouteAttribute::Via(via) => hop.gateway = via_address(via),
                _ => {}
            }
        }
        Ok((hop.ifindex != 0).then_some(hop))
    }

    /// The neighbour tables of both families.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NetError> {
        let messages = all("list neighbours", self.handle.neighbours().get().execute()).await?;
        Ok(messages.into_iter().filter_map(neighbour).collect())
    }

    /// The forwarding tables of all bridges.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn bridge_entries(&self) -> Result<Vec<BridgeEntry>, NetError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let messages = all("list bridge entries", request.execute()).await?;
        Ok(messages.into_iter().filter_map(bridge_entry).collect())
    }

    /// Ethernet addresses that tunnel devices of this namespace send to another machine.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn tunnelled(&self) -> Result<BTreeSet<[u8; 6]>, NetError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let messages = all("list tunnel entries", request.execute()).await?;
        Ok(messages.into_iter().filter_map(tunnel_entry).collect())
    }

    /// Makes the kernel resolve a neighbour, or check one that it has not heard of for a while.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn solicit(&self, ifindex: u32, address: IpAddr) -> Result<(), NetError> {
        self.handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute()
            .await
            .map_err(|source| NetError::Request {
                operation: "resolve a neighbour",
                source,
            })
    }
}

async fn all<T>(
    operation: &'static str,
    replies: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetError> {
    replies
        .try_collect()
        .await
        .map_err(|source| NetError::Request { operation, source })
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        kind: None,
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        master: None,
        peer_elsewhere: false,
        peer: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::Link(ifindex) => link.peer = Some(ifindex),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos
                    .into_iter()
                    .find_map(|i| if let LinkInfo::Kind(k) = i { Some(kind(k)) } else { None });
            }
            _ => {}
        }
    }
    link
}

fn kind(kind: InfoKind) -> String {
    kind.to_string()
}

fn neighbour(message: NeighbourMessage) -> Option<Neighbour> {
    let usable = matches!(
        message.header.state,
        NeighbourState::Permanent
            | NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
    );
    let mut found = Neighbour {
        ifindex: message.header.ifindex,
        address: IpAddr::from([0, 0, 0, 0]),
        mac: None,
    };
    let mut addressed = false;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                (found.address, addressed) = (ip.into(), true);
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                (found.address, addressed) = (ip.into(), true);
            }
            NeighbourAttribute::LinkLayerAddress(mac) if usable => found.mac = mac.try_into().ok(),
            _ => {}
        }
    }
    addressed.then_some(found)
}

fn bridge_entry(message: NeighbourMessage) -> Option<BridgeEntry> {
    let mut entry = BridgeEntry {
        bridge: 0,
        port: message.header.ifindex,
        mac: [0; 6],
    };
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => entry.mac = mac.try_into().ok()?,
            NeighbourAttribute::Controller(bridge) => entry.bridge = bridge,
            _ => {}
        }
    }
    (entry.bridge != 0 && entry.port != entry.bridge).then_some(entry)
}

/// An entry with the address of a machine is a tunnel device's own.
fn tunnel_entry(message: NeighbourMessage) -> Option<[u8; 6]> {
    let attributes = &message.attributes;
    let remote = attributes
        .iter()
        .any(|a| matches!(a, NeighbourAttribute::Destination(_)));
    attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(mac) if remote => mac.as_slice().try_into().ok(),
        _ => None,
    })
}

fn via_address(via: rtnetlink::packet_route::route::RouteVia) -> Option<IpAddr> {
    use rtnetlink::packet_route::route::RouteVia;
    match via {
        RouteVia::Inet(ip) => Some(ip.into()),
        RouteVia::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}
