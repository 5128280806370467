//! [`Hop`]: where a packet leaves this node.

use std::net::IpAddr;
use std::pin::pin;

use futures::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteType, RouteVia};

use super::{NetError, Netlink};

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

impl Netlink {
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
}

fn via_address(via: RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(ip) => Some(ip.into()),
        RouteVia::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}
