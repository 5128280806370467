//! Packets between nodes: into the tunnel, and out of it (`receive`).

mod receive;

pub(super) use receive::{read, receive, unwrap};

use super::deliver::{by_route, tunnel_address, xdp_can_follow};
use super::{Work, kept, masquerade, path_mtu};
use crate::abi::{Backend, Reply, TCP};
use crate::address::Address;
use crate::answer::too_big;
use crate::tables::{Env, Route, Tables};
use crate::verdict::{Kind, Reason, Verdict};
use crate::wire::parse::Headers;
use crate::wire::rewrite::Translation;
use crate::wire::tunnel::{self, Direction, Label, Outer};
use crate::wire::{ETHERNET, Hook, Packet, icmp, mss, rewrite, tcp};

/// What [`send`] needs to know beside the packet.
pub(super) struct Outgoing<T: Tables> {
    /// The flow's backend.
    pub(super) backend: T::Ref<Backend>,
    /// The way back to the client, if the backend sent the packet; else a client did.
    pub(super) reply: Option<T::Ref<Reply>>,
    /// Id of the node to send to.
    pub(super) node: u32,
    /// Id of the service.
    pub(super) service: u32,
}

/// The way of an encapsulated packet, worked out before the packet is touched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    pub(super) outer: Outer,
    pub(super) route: Route,
    /// Largest IP packet that fits.
    pub(super) room: usize,
}

/// Translates and encapsulates a packet to another node. A packet that does not fit is answered as it came.
#[inline(always)]
pub(super) fn send<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    out: &Outgoing<T>,
) -> Verdict {
    if out.reply.is_none()
        && let Some(verdict) = kept::send(packet, tables, env, work, &out.backend)
    {
        return verdict;
    }
    if let Err(reason) = find_way(packet, tables, env, work, out) {
        return match reason {
            // The first one has been answered.
            Reason::AnswerTooBig if work.headers.is_later::<P>() => Verdict::drop(Reason::DropTooBig),
            Reason::AnswerTooBig => {
                // Who is answered knows the packet as it came.
                if P::HOOK == Hook::Tc && masquerade::take_off(packet, work).is_none() {
                    return Verdict::drop(Reason::DropRewrite);
                }
                too_big(packet, &mut work.headers, work.way.room as u16)
            }
            reason => by_reason(reason),
        };
    }
    if !P::FRAGMENTS && out.reply.is_none() {
        kept::keep(tables, env, work, out.node);
    }
    tables.count_service(out.service, 0, work.headers.ip_length, out.reply.is_some());
    let mut reason = Reason::ForwardTunnel;
    if let Some(reply) = &out.reply {
        reason = Reason::ReplyTunnel;
        let done = rewrite::untag(packet, &mut work.headers)
            .and_then(|()| rewrite::translate(packet, &mut work.headers, &Translation::back(reply)));
        if done.is_none() {
            return Verdict::drop(Reason::DropRewrite);
        }
    }
    match wrap(packet, work, &out.backend, reason) {
        Some(()) => by_route(packet, env, &work.way.route, reason),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Translates an ICMP error as `work.to` says, and encapsulates it to another node. What does not fit is cut: an error is
/// never answered with one.
#[inline(always)]
pub(super) fn send_error<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    out: &Outgoing<T>,
) -> Verdict {
    let done = rewrite::untag(packet, &mut work.headers)
        .and_then(|()| icmp::translate(packet, &mut work.headers, &mut work.quote, &work.to));
    if done.is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    let mut way = find_way(packet, tables, env, work, out);
    if matches!(way, Err(Reason::AnswerTooBig)) {
        if icmp::shorten(packet, &mut work.headers, &work.quote).is_none() {
            return Verdict::drop(Reason::DropRewrite);
        }
        way = find_way(packet, tables, env, work, out);
    }
    match way {
        Ok(()) => {}
        Err(Reason::AnswerTooBig) => return Verdict::drop(Reason::DropTooBig),
        Err(reason) => return by_reason(reason),
    }
    let reason = if out.reply.is_some() {
        Reason::ErrorToClient
    } else {
        Reason::ErrorToBackend
    };
    match wrap(packet, work, &out.backend, reason) {
        Some(()) => by_route(packet, env, &work.way.route, reason),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Pass or drop.
#[inline(always)]
fn by_reason(reason: Reason) -> Verdict {
    match reason.kind() {
        Kind::Pass => Verdict::pass(reason),
        _ => Verdict::drop(reason),
    }
}

/// Works out the outer header and the route.
#[inline(never)]
fn find_way<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    out: &Outgoing<T>,
) -> Result<(), Reason> {
    let h = &work.headers;
    let (Some(settings), Some(node)) = (tables.settings(), tables.node(out.node)) else {
        return Err(Reason::DropNoTunnel);
    };
    let Some(remote) = tunnel_address(&node, h.tuple.v6) else {
        return Err(Reason::DropNoTunnel);
    };
    let v6 = !remote.is_v4();
    let Some(local) = own_address(tables, h, out, v6) else {
        return Err(Reason::DropNoTunnel);
    };
    if h.ttl <= 1 {
        return Err(Reason::DropTtl);
    }
    let width = path_mtu::width(tables, env, out.node, settings.tunnel_mtu);
    let room = width.saturating_sub(tunnel::overhead(v6));
    work.way.room = room;
    if h.sent_length(packet.segment()) > room {
        return Err(Reason::AnswerTooBig);
    }
    work.way.outer = Outer {
        source: local,
        destination: remote,
        source_port: tunnel::source_port(&h.tuple),
        port: settings.tunnel_port,
    };
    work.way.route = tables.route(&local, &remote, v6);
    if P::HOOK == Hook::Xdp {
        return xdp_can_follow(env, &work.way.route);
    }
    Ok(())
}

#[inline(never)]
fn wrap<P: Packet>(packet: &mut P, work: &mut Work, backend: &Backend, reason: Reason) -> Option<()> {
    let h = &mut work.headers;
    rewrite::untag(packet, h)?;
    if h.tuple.protocol == TCP && h.flags & tcp::SYN != 0 {
        let headers = h.l4 - h.l3 + 20;
        mss::clamp(packet, h, work.way.room.saturating_sub(headers) as u16)?;
    }
    rewrite::decrement_ttl(packet, h)?;
    let direction = if matches!(reason, Reason::ReplyTunnel | Reason::ErrorToClient) {
        Direction::Reply
    } else {
        Direction::Forward
    };
    let label = Label {
        direction,
        port: backend.port,
        network: backend.network,
        backend: backend.address,
    };
    tunnel::encapsulate(packet, h.tuple.v6, packet.len() - ETHERNET, &work.way.outer, &label)
}

/// This node's address in the tunnel's family: the one that the client speaks to if it is, else the node's own.
#[inline(always)]
fn own_address<T: Tables>(tables: &T, h: &Headers, out: &Outgoing<T>, v6: bool) -> Option<Address> {
    let node = if out.reply.is_some() {
        out.backend.node
    } else if h.tuple.v6 == v6 {
        return Some(h.tuple.destination);
    } else {
        tables.address(&h.tuple.destination)?.node
    };
    let node = tables.node(node)?;
    let address = if v6 { node.tunnel_v6 } else { node.tunnel_v4 };
    if address == Address::ANY { None } else { Some(address) }
}
