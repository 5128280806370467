//! Packets between a VIP's client and backend: translated, and carried on by their network itself.
//!
//! Where the node would route them, between the routed veths of its workloads or from there to another node, it need not: they are
//! put where they go at once, and its stack is spared them, in both directions. Of replies alone the node's connection tracking
//! would make an invalid connection.

use super::deliver::turn_back;
use super::workload::{flow_of, give_back};
use super::{Work, deliver, is_local};
use crate::abi::{
    Backend, INTERFACE_BRIDGED, INTERFACE_PEER, INTERFACE_WORKLOAD, Interface, NETWORK_NODE, REPLY_VIP,
    SETTING_HAND_OVER,
};
use crate::flow::Chosen;
use crate::pressure;
use crate::route::takes_frames;
use crate::tables::{Env, NextHop, Tables};
use crate::verdict::{Action, Reason, Verdict};
use crate::wire::rewrite;
use crate::wire::{Hook, Packet};

/// Whether an interface is a routed veth of a workload.
#[inline(always)]
const fn is_routed(flags: u32) -> bool {
    flags & (INTERFACE_WORKLOAD | INTERFACE_PEER | INTERFACE_BRIDGED) == INTERFACE_WORKLOAD | INTERFACE_PEER
}

/// Whether packets are handed over on this node at all.
#[inline(always)]
fn hands_over<T: Tables>(tables: &T) -> bool {
    matches!(tables.settings(), Some(s) if s.flags & SETTING_HAND_OVER != 0)
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
    work: &mut Work,
    chosen: &Chosen,
    flags: u32,
) -> Verdict {
    let Some(backend) = tables.backend(chosen.backend) else {
        return Verdict::drop(Reason::DropBackendGone);
    };
    let h = &mut work.headers;
    tables.count_service(chosen.service, 0, h.ip_length, false);
    let translation = deliver::forward_translation(h, chosen, &backend);
    if rewrite::translate(packet, h, &translation).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    if chosen.hairpin {
        return turn_back(packet, Reason::Hairpin);
    }
    if flags & INTERFACE_BRIDGED != 0 {
        return match backend.mac {
            [0, 0, 0, 0, 0, 0] => Verdict::continue_(Reason::ForwardNetwork),
            mac if packet.store(0, mac).is_some() => Verdict::continue_(Reason::ForwardNetwork),
            _ => Verdict::drop(Reason::DropRewrite),
        };
    }
    if env.is_node() && is_routed(flags) && h.ttl > 1 && hands_over(tables) {
        if let Some(there) = neighbour(tables, backend.ifindex, h.tuple.network)
            && backend.mac != [0; 6]
        {
            return hand_over(packet, work, &backend, there.mac);
        }
        if find_node(packet, tables, work) {
            return put(packet, work, Action::Redirect, Reason::ForwardNetwork);
        }
    }
    Verdict::continue_(Reason::ForwardNetwork)
}

/// Puts a translated packet into the backend's end of its veth; `mac`: that of the node's end.
#[inline(always)]
fn hand_over<P: Packet>(packet: &mut P, work: &mut Work, backend: &Backend, mac: [u8; 6]) -> Verdict {
    let h = &mut work.headers;
    let done = rewrite::decrement_ttl(packet, h).and_then(|()| rewrite::set_macs(packet, backend.mac, mac));
    match done {
        Some(()) => Verdict::redirect(Action::RedirectPeer, Reason::ForwardLocal, backend.ifindex),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Whether a translated packet leaves for another node by an interface where the reply comes back, and fits what is between.
/// Notes the way. A function of its own, as [`find_client`].
#[inline(never)]
fn find_node<P: Packet, T: Tables>(packet: &P, tables: &T, work: &mut Work) -> bool {
    let h = &work.headers;
    match tables.settings() {
        Some(s) if h.sent_length(packet.segment()) <= s.tunnel_mtu as usize => {}
        _ => return false,
    }
    work.way.route = tables.route(&h.tuple.source, &h.tuple.destination, h.tuple.v6);
    matches!(work.way.route.hop, NextHop::Resolved)
        && matches!(tables.way_out(work.way.route.ifindex), Some(there) if takes_frames(&there))
}

/// Whether a backend's reply, which came from an interface with these `flags`, can be put into its client's end of a veth at once:
/// notes where that is. Else it is translated where its client receives it.
#[inline(always)]
pub(super) fn reaches<T: Tables>(tables: &T, env: &Env, work: &mut Work, flags: u32) -> bool {
    env.is_node()
        && is_routed(flags)
        && hands_over(tables)
        && work.headers.ttl > 1
        && find_client(tables, work) == work.headers.tuple.network
}

/// The network of the workload behind a routed veth that a packet is for; [`NETWORK_NODE`]: it is for no such. Notes the way. A
/// function of its own: its callers have no room for what the kernel is asked.
#[inline(never)]
fn find_client<T: Tables>(tables: &T, work: &mut Work) -> u32 {
    let tuple = &work.headers.tuple;
    work.way.route = tables.route(&tuple.source, &tuple.destination, tuple.v6);
    if !matches!(work.way.route.hop, NextHop::Resolved | NextHop::Unresolved) {
        return NETWORK_NODE;
    }
    match tables.way_out(work.way.route.ifindex) {
        Some(there) if is_routed(there.flags) => there.network,
        _ => NETWORK_NODE,
    }
}

/// Puts a packet where [`find_client`] or [`find_node`] has said.
#[inline(always)]
pub(super) fn put<P: Packet>(packet: &mut P, work: &mut Work, action: Action, reason: Reason) -> Verdict {
    if rewrite::decrement_ttl(packet, &mut work.headers).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    let route = &work.way.route;
    if matches!(route.hop, NextHop::Unresolved) {
        return Verdict::redirect(Action::RedirectNeighbour, reason, route.ifindex);
    }
    match rewrite::set_macs(packet, route.destination, route.source) {
        Some(()) => Verdict::redirect(action, reason, route.ifindex),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Whether [`arrives`] may find something.
#[inline(always)]
pub(super) fn may_arrive<P: Packet, T: Tables>(tables: &T, protocol: u8, source_port: u16) -> bool {
    P::HOOK == Hook::Tc && hands_over(tables) && tables.knows_port(protocol, source_port)
}

/// A packet of no service that comes from outside (tc): it may be the reply of another node's backend to a client here.
#[inline(always)]
pub(super) fn arrives<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    let pass = Verdict::pass(Reason::PassNotService);
    let tuple = &work.headers.tuple;
    if !may_arrive::<P, T>(tables, tuple.protocol, tuple.source_port) {
        return pass;
    }
    if is_local(tables, &work.headers.tuple.destination) || work.headers.tagged || work.headers.ttl <= 1 {
        return pass;
    }
    let network = find_client(tables, work);
    if network == NETWORK_NODE {
        return pass;
    }
    work.headers.tuple.network = network;
    let Some(reply) = pressure::reply(tables, env, &work.headers.tuple) else {
        return pass;
    };
    if reply.kind != REPLY_VIP {
        return pass;
    }
    let h = &mut work.headers;
    let Some((flow, _, again)) = flow_of(packet, tables, env, &reply, h) else {
        return pass;
    };
    let reason = if again { Reason::ReplyRetry } else { Reason::ReplyVip };
    if give_back(packet, tables, h, &flow, &reply).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    put(packet, work, Action::RedirectPeer, reason)
}
