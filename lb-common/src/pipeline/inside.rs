//! Packets between a VIP's client and backend: translated, and carried on by their network itself.
//!
//! Where both are behind veths of this node between which it would route, nobody need carry them: they are put into the far
//! end at once, and the node's stack is spared them, in both directions. Of one direction alone the node's connection tracking
//! would make an invalid connection.

use super::deliver::turn_back;
use super::{Work, deliver};
use crate::abi::{Backend, INTERFACE_BRIDGED, INTERFACE_PEER, INTERFACE_WORKLOAD, Interface};
use crate::flow::Chosen;
use crate::tables::{Env, NextHop, Tables};
use crate::verdict::{Action, Reason, Verdict};
use crate::wire::Packet;
use crate::wire::parse::Headers;
use crate::wire::rewrite;

/// Whether an interface is a routed veth of a workload.
#[inline(always)]
const fn is_routed(flags: u32) -> bool {
    flags & (INTERFACE_WORKLOAD | INTERFACE_PEER | INTERFACE_BRIDGED) == INTERFACE_WORKLOAD | INTERFACE_PEER
}

/// Another routed veth of the same network.
#[inline(always)]
fn neighbour<T: Tables>(tables: &T, ifindex: u32, network: u32) -> Option<T::Ref<Interface>> {
    let there = tables.way_out(ifindex)?;
    if is_routed(there.flags) && there.network == network {
        Some(there)
    } else {
        None
    }
}

/// Translates a client's packet. `flags`: of the interface that it came from.
#[inline(always)]
pub(super) fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    h: &mut Headers,
    chosen: &Chosen,
    flags: u32,
) -> Verdict {
    let Some(backend) = tables.backend(chosen.backend) else {
        return Verdict::drop(Reason::DropBackendGone);
    };
    tables.count_service(chosen.service, 0, h.ip_length, false);
    let translation = deliver::forward_translation(h, chosen, &backend);
    if rewrite::translate(packet, h, &translation).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    if chosen.hairpin {
        return turn_back(packet, Reason::Hairpin);
    }
    if backend.mac == [0; 6] {
        return Verdict::continue_(Reason::ForwardNetwork);
    }
    if flags & INTERFACE_BRIDGED != 0 {
        return match packet.store(0, backend.mac) {
            Some(()) => Verdict::continue_(Reason::ForwardNetwork),
            None => Verdict::drop(Reason::DropRewrite),
        };
    }
    if env.is_node() && is_routed(flags) && h.ttl > 1 {
        return hand_over(packet, tables, h, &backend);
    }
    Verdict::continue_(Reason::ForwardNetwork)
}

/// Puts a translated packet into the backend's end of its veth, if it is behind one.
#[inline(always)]
fn hand_over<P: Packet, T: Tables>(packet: &mut P, tables: &T, h: &mut Headers, backend: &Backend) -> Verdict {
    let (ifindex, mac) = (backend.ifindex, backend.mac);
    let Some(there) = neighbour(tables, ifindex, h.tuple.network) else {
        return Verdict::continue_(Reason::ForwardNetwork);
    };
    let done = rewrite::decrement_ttl(packet, h).and_then(|()| rewrite::set_macs(packet, mac, there.mac));
    match done {
        Some(()) => Verdict::redirect(Action::RedirectPeer, Reason::ForwardLocal, ifindex),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Whether a backend's reply, which came from an interface with these `flags`, can be put into its client's end of a veth at once:
/// notes where that is. Else it is translated where its client receives it.
#[inline(always)]
pub(super) fn reaches<T: Tables>(tables: &T, env: &Env, work: &mut Work, flags: u32) -> bool {
    env.is_node() && is_routed(flags) && work.headers.ttl > 1 && find_client(tables, work)
}

/// As [`reaches`], of a reply between routed veths. A function of its own: its caller has no room for what the kernel is asked.
#[inline(never)]
fn find_client<T: Tables>(tables: &T, work: &mut Work) -> bool {
    let tuple = &work.headers.tuple;
    work.way.route = tables.route(&tuple.source, &tuple.destination, tuple.v6);
    matches!(work.way.route.hop, NextHop::Resolved | NextHop::Unresolved)
        && neighbour(tables, work.way.route.ifindex, tuple.network).is_some()
}

/// Puts a translated reply where [`reaches`] has said.
#[inline(always)]
pub(super) fn put<P: Packet>(packet: &mut P, work: &Work, reason: Reason) -> Verdict {
    let route = &work.way.route;
    if matches!(route.hop, NextHop::Unresolved) {
        return Verdict::redirect(Action::RedirectNeighbour, reason, route.ifindex);
    }
    match rewrite::set_macs(packet, route.destination, route.source) {
        Some(()) => Verdict::redirect(Action::RedirectPeer, reason, route.ifindex),
        None => Verdict::drop(Reason::DropRewrite),
    }
}
