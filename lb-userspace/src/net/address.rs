//! The addresses of this namespace.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};

use super::{NetError, Netlink, all};

impl Netlink {
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
}
