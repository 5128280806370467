//! Tells that something about links, addresses, routes or neighbours has changed; what, the caller looks up.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourState;
use tokio::sync::Notify;

use super::NetError;

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
        while let Some((message, _)) = messages.next().await {
            let mut matters = is_news(&message.payload);
            let gather = tokio::time::sleep(GATHER);
            tokio::pin!(gather);
            loop {
                tokio::select! {
                    () = &mut gather => break,
                    next = messages.next() => match next {
                        Some((message, _)) => matters |= is_news(&message.payload),
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

/// Neighbours go through many states; only those that change what we know of them are news.
fn is_news(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(m)) => {
            matches!(m.header.state, NeighbourState::Reachable | NeighbourState::Permanent)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(_)) => false,
        _ => true,
    }
}
