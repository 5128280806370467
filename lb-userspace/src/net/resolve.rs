//! Where an address is: behind which interface, and with which Ethernet address.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::{Hop, Link, NetError, Netlink};

/// Where an address of this node's own workloads is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Interface that leads to it: of a bridge, the port.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

/// What was found about some addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Addresses of which everything is known.
    pub places: BTreeMap<IpAddr, Place>,
    /// Addresses whose resolution was asked for: the neighbour table will tell.
    pub pending: Vec<IpAddr>,
}

/// How this node reaches some addresses: what was looked up of the routes. None: not at all.
pub type Routes = HashMap<IpAddr, Option<Hop>>;

impl Netlink {
    /// Finds the places of `addresses`, which are on links of this node, and has the kernel resolve those that
    /// it does not know. Routes that are not in `routes` are looked up and put there.
    ///
    /// # Errors
    /// If the kernel refuses to list its tables.
    pub async fn places(
        &self,
        links: &[Link],
        addresses: impl IntoIterator<Item = IpAddr>,
        routes: &mut Routes,
    ) -> Result<Surroundings, NetError> {
        let mut found = Surroundings::default();
        let mut addresses = addresses.into_iter().peekable();
        if addresses.peek().is_none() {
            return Ok(found);
        }
        let neighbours: HashMap<(u32, IpAddr), [u8; 6]> = self
            .neighbours()
            .await?
            .into_iter()
            .filter_map(|n| Some(((n.ifindex, n.address), n.mac?)))
            .collect();
        let bridges: Vec<u32> = links.iter().filter(|l| l.is_bridge()).map(|l| l.ifindex).collect();
        let mut ports = HashMap::new();
        if !bridges.is_empty() {
            ports.extend(
                self.bridge_entries()
                    .await?
                    .into_iter()
                    .map(|e| ((e.bridge, e.mac), e.port)),
            );
        }
        for address in addresses {
            let hop = match routes.get(&address) {
                Some(hop) => *hop,
                None => *routes.entry(address).insert_entry(self.route(address).await?).get(),
            };
            // Only what is on the link: behind a gateway there is no interface of its own to deliver to.
            let Some(hop) = hop.filter(|hop| !hop.local && hop.gateway.is_none()) else {
                continue;
            };
            match neighbours.get(&(hop.ifindex, address)) {
                Some(&mac) if bridges.contains(&hop.ifindex) => {
                    if let Some(&ifindex) = ports.get(&(hop.ifindex, mac)) {
                        found.places.insert(address, Place { ifindex, mac });
                    }
                }
                Some(&mac) => {
                    found.places.insert(
                        address,
                        Place {
                            ifindex: hop.ifindex,
                            mac,
                        },
                    );
                }
                None => {
                    if let Err(error) = self.solicit(hop.ifindex, address).await {
                        tracing::debug!(target: "lb::net", %address, %error, "cannot resolve");
                    }
                    found.pending.push(address);
                }
            }
        }
        Ok(found)
    }

    /// Keeps the next hops towards `addresses` (other nodes) resolved. Best called every few seconds.
    pub async fn keep_warm(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            let result = match self.route(address).await {
                Ok(Some(hop)) if !hop.local => self.solicit(hop.ifindex, hop.gateway.unwrap_or(address)).await,
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::debug!(target: "lb::net", %address, %error, "cannot keep the next hop resolved");
            }
        }
    }
}
