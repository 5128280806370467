//! ICMP errors about packets that were translated: each goes to the end that sent the packet, and quotes it as that end
//! knows it.
//!
//! | the error is about | comes by | goes to |
//! |---|---|---|
//! | a reply that left with the frontend as its source | node or client's interface, or the loopback interface | the backend, here or through the tunnel |
//! | a client's packet that left for its backend | the backend's interface | the client; through the tunnel, if it came through that |
//! | a VIP's packet to its backend | the client's interface, on its way in | the client |
//!
//! An error opens no flow, keeps none alive and ends none, and is never answered. Programs of their own, because most
//! packets are none, and theirs is a stack of its own.

use super::deliver::{self, turn_back};
use super::tunnel::{self, Outgoing};
use super::{Work, host, masquerade, path_mtu};
use crate::abi::{
    BACKEND_LOCAL, Backend, FLOW_FLAG_HAIRPIN, FLOW_FLAG_HOST, Flow, INTERFACE_BRIDGED, INTERFACE_WORKLOAD,
    InterfaceKey, NETWORK_NODE, REPLY_HAIRPIN, REPLY_VIP, Reply, UDP,
};
use crate::flow;
use crate::pressure;
use crate::tables::{Env, FlowEntry, Tables};
use crate::track;
use crate::tuple::Tuple;
use crate::verdict::{Reason, Verdict};
use crate::wire::rewrite::{self, Translation};
use crate::wire::tunnel::Direction;
use crate::wire::{Packet, icmp, parse};

/// What is none of ours.
const PASS: Verdict = Verdict::pass(Reason::PassIcmpError);

/// Reads what the error in the headers is about, in `network`, and gives the tuple of a packet in the other direction.
#[inline(always)]
fn answered<P: Packet>(packet: &P, work: &mut Work, network: u32) -> Option<Tuple> {
    if !icmp::is_error(&work.headers) || !icmp::quote(packet, &work.headers, &mut work.quote) {
        return None;
    }
    work.quote.tuple.network = network;
    Some(work.quote.tuple.reversed())
}

/// The flow of a client's tuple, if it is not past its time, and its backend, if that is still the same.
#[inline(always)]
fn live<T: Tables>(tables: &T, env: &Env, tuple: &Tuple) -> Option<(Flow, T::Ref<Backend>)> {
    let flow = pressure::flow_apart(tables, env, tuple)?.load();
    let backend = tables.backend(flow.backend)?;
    if track::expired(&flow, env.now) || flow::is_gone(&backend, &flow) {
        return None;
    }
    Some((flow, backend))
}

/// On tc ingress of a node interface: from outside, or through the tunnel.
#[inline(always)]
pub fn node<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    let h = &work.headers;
    if h.tuple.protocol == UDP && matches!(tables.settings(), Some(s) if s.tunnel_port == h.tuple.destination_port) {
        return from_tunnel(packet, tables, env, work);
    }
    let Some(tuple) = answered(packet, work, NETWORK_NODE) else {
        return PASS;
    };
    if let Some(verdict) = path_mtu::learn(packet, tables, env, &work.headers, &work.quote.tuple) {
        return verdict;
    }
    // Nobody outside is a masked client.
    if masquerade::covers(tables, &tuple.source) {
        return PASS;
    }
    match live(tables, env, &tuple) {
        Some((flow, backend)) if flow.origin == 0 => to_backend(packet, tables, env, work, &tuple, &flow, backend),
        _ => PASS,
    }
}

/// One that another node has sent on. It says who has chosen the flow's backend, as with every other packet.
#[inline(always)]
fn from_tunnel<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    let (label, sender) = match tunnel::read(packet, tables, work) {
        Ok(read) => read,
        Err(verdict) => return verdict,
    };
    let Some(reversed) = answered(packet, work, NETWORK_NODE) else {
        return Verdict::drop(Reason::DropTunnelMalformed);
    };
    let forward = label.direction == Direction::Forward;
    let tuple = if forward { reversed } else { work.quote.tuple };
    let Some((flow, backend)) = live(tables, env, &tuple) else {
        return Verdict::drop(Reason::DropTunnelFrontend);
    };
    let theirs = if forward {
        flow.origin == sender + 1 && backend.flags & BACKEND_LOCAL != 0 && label.names(&backend)
    } else {
        flow.origin == 0 && backend.node == sender
    };
    if !theirs {
        return Verdict::drop(Reason::DropTunnelFrontend);
    }
    if tunnel::unwrap(packet, &mut work.headers).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    if forward {
        return to_backend(packet, tables, env, work, &tuple, &flow, backend);
    }
    work.to = Translation::of(&tuple);
    to_client(packet, tables, env, work, flow.flags)
}

/// On tc ingress of a workload interface: from a client, about what a VIP or a published port has said to it, or from a
/// backend, about what a client has.
#[inline(always)]
pub fn from<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    let interface = match tables.interface(InterfaceKey::new(env.namespace, env.ifindex)) {
        Some(i) if i.flags & INTERFACE_WORKLOAD != 0 => i,
        _ => return Verdict::pass(Reason::PassInterface),
    };
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    let Some(mut tuple) = answered(packet, work, interface.network) else {
        return PASS;
    };
    if interface.network != NETWORK_NODE
        && let Some((flow, backend)) = live(tables, env, &tuple)
    {
        return inside_network(packet, work, &tuple, &flow, &backend, interface.flags);
    }
    if let Some(reply) = pressure::reply(tables, env, &tuple) {
        if reply.kind == REPLY_VIP {
            return Verdict::pass(Reason::PassNetwork);
        }
        if let Some((flow, backend)) = live(tables, env, &flow::flow_tuple(&reply, &tuple))
            && flow::answers(&backend, &flow, &reply, &tuple)
        {
            return back(packet, tables, env, work, reply, &flow, backend);
        }
    }
    tuple.network = NETWORK_NODE;
    // Only we write these addresses.
    if masquerade::covers(tables, &tuple.source) {
        return PASS;
    }
    if interface.network == NETWORK_NODE {
        masquerade::cover(tables, &mut tuple, false);
    }
    match live(tables, env, &tuple) {
        Some((flow, backend)) if flow.origin == 0 => to_backend(packet, tables, env, work, &tuple, &flow, backend),
        _ => PASS,
    }
}

/// On tc egress of a workload interface: from a backend, or from who carries the network, about a packet to a VIP.
#[inline(always)]
pub fn to<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    let interface = match tables.interface(InterfaceKey::new(env.namespace, env.ifindex)) {
        Some(i) if i.flags & INTERFACE_WORKLOAD != 0 => i,
        _ => return Verdict::pass(Reason::PassInterface),
    };
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    let Some(tuple) = answered(packet, work, interface.network) else {
        return PASS;
    };
    let Some(reply) = pressure::reply(tables, env, &tuple) else {
        return PASS;
    };
    match live(tables, env, &flow::flow_tuple(&reply, &tuple)) {
        Some((flow, backend)) if reply.kind == REPLY_VIP && flow::answers(&backend, &flow, &reply, &tuple) => {}
        _ => return PASS,
    }
    work.to = sent(&reply);
    match icmp::translate(packet, &mut work.headers, &mut work.quote, &work.to) {
        Some(()) => Verdict::continue_(Reason::ErrorToClient),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// On tc egress of the loopback interface: from the node itself, about a reply to one of its processes.
#[inline(always)]
pub fn host<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    let Some(mut tuple) = answered(packet, work, NETWORK_NODE) else {
        return PASS;
    };
    masquerade::cover(tables, &mut tuple, true);
    let verdict = match live(tables, env, &tuple) {
        Some((flow, backend)) if flow.origin == 0 && flow.flags & FLOW_FLAG_HOST != 0 => {
            to_backend(packet, tables, env, work, &tuple, &flow, backend)
        }
        _ => return PASS,
    };
    host::from_loopback(packet, verdict)
}

/// A client's packet as the client has sent it.
#[inline(always)]
fn sent(reply: &Reply) -> Translation {
    Translation {
        source: reply.client,
        destination: reply.frontend,
        source_port: reply.client_port,
        destination_port: reply.frontend_port,
    }
}

/// A reply as the backend has sent it; `tuple`: the flow's.
#[inline(always)]
fn replied(tuple: &Tuple, flow: &Flow, backend: &Backend) -> Translation {
    Translation {
        source: *flow::target(backend, tuple.network),
        destination: if flow.flags & FLOW_FLAG_HAIRPIN != 0 {
            tuple.destination
        } else {
            tuple.source
        },
        source_port: flow::target_port(backend, tuple.destination_port),
        destination_port: flow.source_port,
    }
}

/// About a reply of a published flow, `tuple`: to its backend, here or through the tunnel.
#[inline(always)]
fn to_backend<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    tuple: &Tuple,
    flow: &Flow,
    backend: T::Ref<Backend>,
) -> Verdict {
    if backend.flags & BACKEND_LOCAL == 0 {
        // As every other node knows the reply.
        let reply = tuple.reversed();
        work.to = Translation::of(&reply);
        let node = backend.node;
        let out = Outgoing {
            backend,
            reply: None,
            node,
            service: flow.service,
        };
        return tunnel::send_error(packet, tables, env, work, &out);
    }
    work.to = replied(tuple, flow, &backend);
    if let Some(reason) = finish(packet, work) {
        return Verdict::drop(reason);
    }
    if flow.flags & FLOW_FLAG_HAIRPIN != 0 && backend.ifindex == env.ifindex {
        return turn_back(packet, Reason::ErrorToBackend);
    }
    deliver::hand_over(packet, tables, env, &work.headers, &backend, Reason::ErrorToBackend)
}

/// Translates as `work.to` says, one hop on. The reason says why it cannot be.
#[inline(always)]
fn finish<P: Packet>(packet: &mut P, work: &mut Work) -> Option<Reason> {
    let h = &mut work.headers;
    if h.ttl <= 1 {
        return Some(Reason::DropTtl);
    }
    let done = rewrite::untag(packet, h)
        .and_then(|()| icmp::translate(packet, h, &mut work.quote, &work.to))
        .and_then(|()| rewrite::decrement_ttl(packet, h));
    match done {
        Some(()) => None,
        None => Some(Reason::DropRewrite),
    }
}

/// About a VIP's reply: to its backend inside the network, whose own business the way is.
#[inline(always)]
fn inside_network<P: Packet>(
    packet: &mut P,
    work: &mut Work,
    tuple: &Tuple,
    flow: &Flow,
    backend: &Backend,
    interface_flags: u32,
) -> Verdict {
    work.to = replied(tuple, flow, backend);
    if icmp::translate(packet, &mut work.headers, &mut work.quote, &work.to).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    if flow.flags & FLOW_FLAG_HAIRPIN != 0 {
        return turn_back(packet, Reason::ErrorToBackend);
    }
    if interface_flags & INTERFACE_BRIDGED != 0 && backend.mac != [0; 6] && packet.store(0, backend.mac).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    Verdict::continue_(Reason::ErrorToBackend)
}

/// About a client's packet, at its backend: to the client.
#[inline(always)]
fn back<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    reply: T::Ref<Reply>,
    flow: &Flow,
    backend: T::Ref<Backend>,
) -> Verdict {
    work.to = sent(&reply);
    if flow.origin != 0 {
        let out = Outgoing {
            backend,
            reply: Some(reply),
            node: flow.origin - 1,
            service: flow.service,
        };
        return tunnel::send_error(packet, tables, env, work, &out);
    }
    if reply.kind == REPLY_HAIRPIN {
        return match icmp::translate(packet, &mut work.headers, &mut work.quote, &work.to) {
            Some(()) => turn_back(packet, Reason::ErrorToClient),
            None => Verdict::drop(Reason::DropRewrite),
        };
    }
    to_client(packet, tables, env, work, flow.flags)
}

/// About a client's packet, which was as `work.to` says: to the client, who may be masked. `flags`: the flow's.
#[inline(always)]
fn to_client<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work, flags: u8) -> Verdict {
    if masquerade::covers(tables, &work.to.source) {
        let Some((frontend, client)) = masquerade::behind(tables, &work.to.destination, &work.to.source) else {
            return Verdict::drop(Reason::DropNoRoute);
        };
        work.to.source = client;
        work.to.destination = frontend;
    }
    if let Some(reason) = finish(packet, work) {
        return Verdict::drop(reason);
    }
    deliver::leave(packet, tables, env, &work.headers, flags, Reason::ErrorToClient)
}
