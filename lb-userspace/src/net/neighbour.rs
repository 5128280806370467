//! [`Neighbour`], [`BridgeEntry`]: who is where on the links.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{NetError, Netlink, all};

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

impl Netlink {
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

pub(super) fn neighbour(message: NeighbourMessage) -> Option<Neighbour> {
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
