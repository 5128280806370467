//! The last steps to a backend or a client: rewrite, and choose the way out.

use super::tunnel::{self, Outgoing};
use super::{Work, masquerade};
use crate::abi::{BACKEND_LOCAL, Backend, FLOW_FLAG_HOST, INTERFACE_PEER, Node};
use crate::address::Address;
use crate::flow::{self, Chosen};
use crate::tables::{Env, NextHop, Route, Tables};
use crate::verdict::{Action, Reason, Verdict};
use crate::wire::parse::Headers;
use crate::wire::rewrite::{self, Translation};
use crate::wire::{Hook, Packet};

/// Index of the loopback interface, the same in every namespace (`LOOPBACK_IFINDEX`).
pub(super) const LOOPBACK: u32 = 1;

/// Sends a client's packet to its backend: here, or through the tunnel.
#[inline(always)]
pub(super) fn to_backend<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    chosen: &Chosen,
) -> Verdict {
    let Some(backend) = tables.backend(chosen.backend) else {
        return Verdict::drop(Reason::DropBackendGone);
    };
    if backend.flags & BACKEND_LOCAL != 0 {
        if P::HOOK == Hook::Xdp {
            return Verdict::pass(Reason::PassToTc);
        }
        return to_local(packet, tables, env, &mut work.headers, chosen, &backend);
    }
    let node = backend.node;
    tunnel::send(
        packet,
        tables,
        env,
        work,
        &Outgoing {
            backend,
            reply: None,
            node,
            service: chosen.service,
        },
    )
}

/// What becomes of the addresses on the way to the backend.
#[inline(always)]
pub(super) fn forward_translation(h: &Headers, chosen: &Chosen, backend: &Backend) -> Translation {
    Translation {
        source: if chosen.hairpin {
            h.tuple.destination
        } else {
            h.tuple.source
        },
        destination: *flow::target(backend, h.tuple.network),
        source_port: chosen.source_port,
        destination_port: flow::target_port(backend, h.tuple.destination_port),
    }
}

/// Delivers to a backend on this node (tc).
#[inline(always)]
pub(super) fn to_local<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    h: &mut Headers,
    chosen: &Chosen,
    backend: &Backend,
) -> Verdict {
    if h.ttl <= 1 {
        return Verdict::drop(Reason::DropTtl);
    }
    tables.count_service(chosen.service, 0, h.ip_length, false);
    let done = rewrite::untag(packet, h)
        .and_then(|()| rewrite::translate(packet, h, &forward_translation(h, chosen, backend)))
        .and_then(|()| rewrite::decrement_ttl(packet, h));
    if done.is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    let ifindex = backend.ifindex;
    if chosen.hairpin && ifindex == env.ifindex {
        return turn_back(packet, Reason::Hairpin);
    }
    hand_over(packet, tables, env, h, backend, Reason::ForwardLocal)
}

/// Sends a finished packet to a backend's interface (tc).
#[inline(always)]
pub(super) fn hand_over<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    h: &Headers,
    backend: &Backend,
    reason: Reason,
) -> Verdict {
    let ifindex = backend.ifindex;
    if ifindex != 0
        && backend.mac != [0; 6]
        && let Some(interface) = tables.way_out(ifindex)
    {
        if rewrite::set_macs(packet, backend.mac, interface.mac).is_none() {
            return Verdict::drop(Reason::DropRewrite);
        }
        return if interface.flags & INTERFACE_PEER != 0 {
            Verdict::redirect(Action::RedirectPeer, reason, ifindex)
        } else {
            Verdict::redirect(Action::Redirect, reason, ifindex)
        };
    }
    // A workload whose interface the agent does not know yet: the kernel's own route leads there.
    let route = tables.route(&h.tuple.source, &h.tuple.destination, h.tuple.v6);
    by_route(packet, env, &route, reason)
}

/// Sends a complete reply to its client (tc): outside, behind the gateway bridge, or on this node itself. `flags`: the flow's.
#[inline(always)]
pub(super) fn to_client<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    flags: u8,
    reason: Reason,
) -> Verdict {
    if masquerade::covers(tables, &work.headers.tuple.destination)
        && let Some(reason) = masquerade::uncover(packet, tables, work)
    {
        return Verdict::drop(reason);
    }
    leave(packet, tables, env, &work.headers, flags, reason)
}

/// Sends what is addressed to the client itself on its way (tc).
#[inline(always)]
pub(super) fn leave<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    h: &Headers,
    flags: u8,
    reason: Reason,
) -> Verdict {
    let route = tables.route(&h.tuple.source, &h.tuple.destination, h.tuple.v6);
    if !matches!(route.hop, NextHop::Local) {
        return by_route(packet, env, &route, reason);
    }
    // Whoever writes an address of ours as his own must not be able to send something to our own sockets.
    if flags & FLOW_FLAG_HOST == 0 {
        return Verdict::drop(Reason::DropForgedSource);
    }
    to_host(packet, reason)
}

/// Delivers to this node's own stack (tc). The kernel drops what comes from one of its own addresses, unless it comes from
/// the loopback interface.
#[inline(always)]
pub(super) fn to_host<P: Packet>(packet: &mut P, reason: Reason) -> Verdict {
    match rewrite::set_macs(packet, [0; 6], [0; 6]) {
        Some(()) => Verdict::redirect(Action::DeliverHost, reason, LOOPBACK),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Back out of the interface that the packet came from.
#[inline(always)]
pub(super) fn turn_back<P: Packet>(packet: &mut P, reason: Reason) -> Verdict {
    match rewrite::swap_macs(packet) {
        Some(()) => Verdict::transmit(reason),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Follows a route.
#[inline(always)]
pub(super) fn by_route<P: Packet>(packet: &mut P, env: &Env, route: &Route, reason: Reason) -> Verdict {
    match route.hop {
        NextHop::Resolved => {
            if rewrite::set_macs(packet, route.destination, route.source).is_none() {
                return Verdict::drop(Reason::DropRewrite);
            }
            if route.ifindex == env.ifindex {
                Verdict::transmit(reason)
            } else {
                Verdict::redirect(Action::Redirect, reason, route.ifindex)
            }
        }
        NextHop::Unresolved => Verdict::redirect(Action::RedirectNeighbour, reason, route.ifindex),
        NextHop::Local => Verdict::continue_(reason),
        NextHop::None => Verdict::drop(Reason::DropNoRoute),
    }
}

/// Whether XDP can follow the route by itself: the neighbour is known, and the frame leaves by an interface that takes
/// frames from XDP.
#[inline(always)]
pub(super) fn xdp_can_follow(env: &Env, route: &Route) -> Result<(), Reason> {
    match route.hop {
        NextHop::Resolved if route.takes_frames || route.ifindex == env.ifindex => Ok(()),
        NextHop::Resolved => Err(Reason::PassToTc),
        NextHop::Unresolved => Err(Reason::PassUnresolved),
        NextHop::Local | NextHop::None => Err(Reason::PassToTc),
    }
}

/// An address of `node` in the wanted family, else in the other.
#[inline(always)]
pub(super) fn tunnel_address(node: &Node, v6: bool) -> Option<Address> {
    let (first, second) = if v6 {
        (node.tunnel_v6, node.tunnel_v4)
    } else {
        (node.tunnel_v4, node.tunnel_v6)
    };
    if first != Address::ANY {
        Some(first)
    } else if second != Address::ANY {
        Some(second)
    } else {
        None
    }
}
