//! Tells that something about links, addresses, routes or neighbours has changed; what, the caller looks up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourMessage, NeighbourState};
use tokio::sync::Notify;

use super::NetError;
use super::neighbour::neighbour;

/// Changes that follow each other this closely are told once.
const GATHER: Duration = Duration::from_millis(10);

const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Notifies the result of every change, from now on.
///
/// # Errors
/// If the socket cannot be opened.
pub fn watch() -> Result<Arc<Notify>, NetError> {
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(GROUPS)?;
    tokio::spawn(connection);
    let changed = Arc::new(Notify::new());
    let notify = Arc::clone(&changed);
    tokio::spawn(async move {
        let _open = handle;
        let mut known = Known::default();
        while let Some((message, _)) = messages.next().await {
            let mut matters = known.is_news(message.payload);
            let gather = tokio::time::sleep(GATHER);
            tokio::pin!(gather);
            loop {
                tokio::select! {
                    () = &mut gather => break,
                    next = messages.next() => match next {
                        Some((message, _)) => matters |= known.is_news(message.payload),
                        None => break,
                    },
                }
            }
            if matters {
                notify.notify_one();
            }
        }
    });
    Ok(changed)
}

/// Neighbours, with the Ethernet addresses under which they were heard of last. The kernel confirms each of them again and
/// again, which is no news, and everything would be looked up for it.
#[derive(Debug, Default)]
struct Known(HashMap<(u32, IpAddr), [u8; 6]>);

impl Known {
    /// Neighbours go through many states; only what changes what we know of them is news. Entries of bridges have no such
    /// states.
    fn is_news(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) -> bool {
        match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => self.is_new(message),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
                if let Some(gone) = neighbour(message) {
                    self.0.remove(&(gone.ifindex, gone.address));
                }
                false
            }
            NetlinkPayload::InnerMessage(_) => true,
            // Messages were lost, for one.
            _ => {
                self.0.clear();
                true
            }
        }
    }

    fn is_new(&mut self, message: NeighbourMessage) -> bool {
        let state = message.header.state;
        let confirmed = matches!(state, NeighbourState::Reachable | NeighbourState::Permanent);
        let of_bridge = message.header.family == AddressFamily::Bridge;
        match neighbour(message) {
            Some(neighbour) if !of_bridge => {
                let key = (neighbour.ifindex, neighbour.address);
                match neighbour.mac {
                    Some(mac) if confirmed => self.0.insert(key, mac) != Some(mac),
                    Some(_) => false,
                    // It is being resolved anew, or cannot be.
                    None => {
                        self.0.remove(&key);
                        false
                    }
                }
            }
            _ => confirmed,
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};

    use super::*;

    fn message(last: u8, mac: u8, state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 7;
        message.header.state = state;
        let address = NeighbourAddress::Inet([10, 0, 0, last].into());
        message.attributes = vec![
            NeighbourAttribute::Destination(address),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac]),
        ];
        message
    }

    #[test]
    fn a_neighbour_that_is_confirmed_again_is_no_news() {
        let mut known = Known::default();
        let mut told = |message| known.is_news(NetlinkPayload::InnerMessage(message));
        let new = |last, mac, state| RouteNetlinkMessage::NewNeighbour(message(last, mac, state));
        let reachable = NeighbourState::Reachable;
        assert!(told(new(1, 1, reachable)));
        assert!(!told(new(1, 1, NeighbourState::Stale)));
        assert!(!told(new(1, 1, NeighbourState::Probe)));
        assert!(!told(new(1, 1, reachable)));
        assert!(told(new(2, 1, reachable)), "another address");
        assert!(told(new(1, 2, reachable)), "another machine");
        assert!(!told(new(1, 2, NeighbourState::Failed)));
        assert!(told(new(1, 2, reachable)), "it is back");
        let gone = RouteNetlinkMessage::DelNeighbour(message(1, 2, NeighbourState::Stale));
        assert!(!told(gone));
        assert!(told(new(1, 2, reachable)));
    }

    #[test]
    fn what_was_lost_may_have_been_news() {
        let mut known = Known::default();
        let reachable = || RouteNetlinkMessage::NewNeighbour(message(1, 1, NeighbourState::Reachable));
        assert!(known.is_news(NetlinkPayload::InnerMessage(reachable())));
        assert!(known.is_news(NetlinkPayload::Overrun(Vec::new())));
        assert!(known.is_news(NetlinkPayload::InnerMessage(reachable())));
    }
}
