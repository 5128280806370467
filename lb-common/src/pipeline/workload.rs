//! Packets that a workload sends and receives.

use super::deliver::{self, turn_back};
use super::tunnel::{self, Outgoing};
use super::{Found, What, Work, find_published, masquerade, proceed, publishes, refusal, unbalanced, unresolved};
use super::{fragments, inside};
use crate::abi::{Backend, Flow, INTERFACE_WORKLOAD, Interface, NETWORK_NODE, REPLY_HAIRPIN, REPLY_VIP, Reply, UDP};
use crate::answer::{arp, echo, neighbour};
use crate::flow;
use crate::pressure;
use crate::tables::{Env, FlowEntry, Tables};
use crate::track::{self, Side};
use crate::verdict::{Action, Reason, Verdict};
use crate::wire::parse::{self, Headers};
use crate::wire::rewrite::{self, Translation};
use crate::wire::{Packet, ethertype, protocol};

/// A frame that a workload sent: tc ingress on the host side of its interface.
#[inline(always)]
pub fn from<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    let interface = match tables.way_in(env) {
        Some(i) if i.flags & INTERFACE_WORKLOAD != 0 => i,
        _ => return Verdict::pass(Reason::PassInterface),
    };
    if let Some((ethertype::ARP, l3, false)) = parse::ethernet(packet) {
        return arp::answer(packet, tables, &interface, l3);
    }
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    work.mask.on = 0;
    let h = &mut work.headers;
    // A workload has no business with tags.
    if h.tagged {
        return Verdict::pass(Reason::PassVlan);
    }
    if !h.balanced() {
        return control(packet, tables, &interface, h);
    }
    h.tuple.network = interface.network;
    if let Some(verdict) = unresolved(packet, tables, env, h) {
        return verdict;
    }
    // Before flows: half of what a workload sends are replies, and they need not look for a flow of their own tuple.
    if let Some(reply) = pressure::reply(tables, env, &work.headers.tuple) {
        if reply.kind == REPLY_VIP && !inside::reaches(tables, env, work, interface.flags) {
            return Verdict::pass(Reason::PassNetwork);
        }
        if let Some(verdict) = reply_out(packet, tables, env, work, reply) {
            return verdict;
        }
    }
    // In the node's own network there are no VIPs.
    let mut found = if interface.network == NETWORK_NODE {
        work.opening.reset();
        Found::NOTHING
    } else {
        tables.find(env, work)
    };
    let mut flags = Some(interface.flags);
    if found.is(What::Nothing) {
        let h = &mut work.headers;
        if forges_tunnel(tables, h) {
            return Verdict::drop(Reason::DropTunnelSource);
        }
        // Published ports are the node's; elsewhere the network carries their packets on.
        if !env.is_node() || !publishes(tables, h) {
            return Verdict::pass(Reason::PassNotService);
        }
        flags = None;
        if interface.network == NETWORK_NODE {
            masquerade::put_on_tuple(tables, work, false);
        }
        found = find_published(tables, env, work);
    }
    proceed::<P, T, true>(packet, tables, env, work, found, flags, 0)
}

/// Whether a workload speaks to a node as nodes speak among themselves. Masqueraded on its way, it would pass for a node.
#[inline(always)]
fn forges_tunnel<T: Tables>(tables: &T, h: &Headers) -> bool {
    h.tuple.protocol == UDP
        && matches!(tables.settings(), Some(s) if s.tunnel_port == h.tuple.destination_port)
        && tables.address(&h.tuple.destination).is_some()
}

/// Echo and neighbour discovery for VIPs.
#[inline(always)]
fn control<P: Packet, T: Tables>(packet: &mut P, tables: &T, interface: &Interface, h: &Headers) -> Verdict {
    let v6 = h.tuple.protocol == protocol::ICMPV6;
    if v6 && h.flags == neighbour::SOLICITATION {
        return neighbour::answer(packet, tables, interface, h);
    }
    let request = if v6 { echo::REQUEST_V6 } else { echo::REQUEST_V4 };
    if h.flags == request && tables.is_vip(&h.tuple.destination, interface.network) {
        return echo::answer(packet, h);
    }
    unbalanced(h)
}

/// The live flow behind a reply whose sender is its backend, the backend, and whether the reply makes the client ask again. Counts
/// what came before the first fragment of it.
#[inline(always)]
pub(super) fn flow_of<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    reply: &Reply,
    h: &mut Headers,
) -> Option<(Flow, T::Ref<Backend>, bool)> {
    let entry = pressure::flow_apart(tables, env, &flow::flow_tuple(reply, &h.tuple))?;
    let flow = entry.load();
    let backend = tables.backend(flow.backend)?;
    if track::expired(&flow, env.now) || !flow::answers(&backend, &flow, reply, &h.tuple) {
        return None;
    }
    // A flow of another node's is chosen again there.
    let again = refusal::may_be(h) && flow.origin == 0 && refusal::retries(packet, tables, env, h, &entry);
    if !again && !track::observe(tables, env, &entry, &flow, h, Side::Backend) {
        return None;
    }
    fragments::count_early::<P, T>(tables, h);
    Some((flow, backend, again))
}

/// Counts a backend's reply, and makes it the frontend's.
#[inline(always)]
pub(super) fn give_back<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    h: &mut Headers,
    flow: &Flow,
    reply: &Reply,
) -> Option<()> {
    tables.count_service(flow.service, 0, h.ip_length, true);
    rewrite::translate(packet, h, &Translation::back(reply))
}

/// Translates a backend's reply, and sends it on: of a VIP's flow, where [`inside::reaches`] has said. `None`: its flow is gone, or
/// it is not for this namespace.
#[inline(always)]
fn reply_out<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    reply: T::Ref<Reply>,
) -> Option<Verdict> {
    // Elsewhere no packet leaves by a route: only what goes back inside the network.
    if !env.is_node() && (reply.kind != REPLY_HAIRPIN || reply.network == NETWORK_NODE) {
        return None;
    }
    let (flow, backend, again) = flow_of(packet, tables, env, &reply, &mut work.headers)?;
    if env.is_node() && flow.origin != 0 {
        let out = Outgoing {
            backend,
            reply: Some(reply),
            node: flow.origin - 1,
            service: flow.service,
        };
        return Some(tunnel::send(packet, tables, env, work, &out));
    }
    let h = &mut work.headers;
    if h.ttl <= 1 {
        return Some(Verdict::drop(Reason::DropTtl));
    }
    if give_back(packet, tables, h, &flow, &reply).is_none() {
        return Some(Verdict::drop(Reason::DropRewrite));
    }
    if reply.kind == REPLY_HAIRPIN || !env.is_node() {
        let reason = if again { Reason::ReplyRetry } else { Reason::Hairpin };
        return Some(turn_back(packet, reason));
    }
    if reply.kind == REPLY_VIP {
        let reason = if again { Reason::ReplyRetry } else { Reason::ReplyVip };
        return Some(inside::put(packet, work, Action::RedirectPeer, reason));
    }
    if rewrite::decrement_ttl(packet, h).is_none() {
        return Some(Verdict::drop(Reason::DropRewrite));
    }
    let reason = if again { Reason::ReplyRetry } else { Reason::ReplyDirect };
    Some(deliver::to_client(packet, tables, env, work, flow.flags, reason))
}

/// A frame on its way to a workload: tc egress on the host side of its interface.
#[inline(always)]
pub fn to<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    let interface = match tables.way_in(env) {
        Some(i) if i.flags & INTERFACE_WORKLOAD != 0 => i,
        _ => return Verdict::pass(Reason::PassInterface),
    };
    if let Some(reason) = parse::frame(packet, &mut work.headers) {
        return Verdict::pass(reason);
    }
    let h = &mut work.headers;
    if !h.balanced() {
        return unbalanced(h);
    }
    h.tuple.network = interface.network;
    if let Some(verdict) = unresolved(packet, tables, env, h) {
        return verdict;
    }
    let h = &mut work.headers;
    let Some(reply) = pressure::reply(tables, env, &h.tuple) else {
        return Verdict::pass(Reason::PassNotService);
    };
    if reply.kind != REPLY_VIP {
        return Verdict::pass(Reason::PassNotService);
    }
    let Some((flow, _, again)) = flow_of(packet, tables, env, &reply, h) else {
        return Verdict::pass(Reason::PassNotService);
    };
    if give_back(packet, tables, h, &flow, &reply).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    Verdict::continue_(if again { Reason::ReplyRetry } else { Reason::ReplyVip })
}
