//! Packets between nodes: into the tunnel, and out of it.

use super::deliver::{self, by_route, tunnel_address, xdp_can_follow};
use super::{Work, is_local, kept, masquerade, path_mtu, published_key, refusal, unbalanced, unresolved};
use crate::abi::{BACKEND_GONE, BACKEND_LOCAL, Backend, EndpointKey, NETWORK_NODE, NODE_LOCAL, Reply, TCP};
use crate::address::Address;
use crate::answer::too_big;
use crate::flow::{self, Chosen, Opening};
use crate::pressure;
use crate::tables::{Env, FlowEntry, Route, Tables};
use crate::track::{self, Side};
use crate::verdict::{Kind, Reason, Verdict};
use crate::wire::parse::{self, Headers};
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

/// A UDP packet to the tunnel's port on a node interface.
#[inline(always)]
pub(super) fn receive<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    let (label, sender) = match read(packet, tables, work) {
        Ok(read) => read,
        Err(verdict) => return verdict,
    };
    let h = &mut work.headers;
    if !h.balanced() {
        return if icmp::is_error(h) {
            unbalanced(h)
        } else {
            Verdict::drop(Reason::DropTunnelMalformed)
        };
    }
    // The inner packet of a sender on the same machine can still lack its checksum; XDP would send it out without.
    if P::HOOK == Hook::Xdp && rewrite::partial_checksum(packet, h) != Some(false) {
        return Verdict::pass(Reason::PassPartialChecksum);
    }
    h.tuple.network = NETWORK_NODE;
    if unresolved(packet, tables, env, h).is_some() {
        return Verdict::drop(Reason::DropFragment);
    }
    if label.direction == Direction::Forward {
        forward(packet, tables, env, work, &label, sender)
    } else {
        reply(packet, tables, env, work, sender)
    }
}

/// Reads the framing and the headers of the packet inside, which take the place of the outer ones: what the label says, and
/// the id of the node that has sent it.
#[inline(always)]
pub(super) fn read<P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Work) -> Result<(Label, u32), Verdict> {
    let h = &mut work.headers;
    if !is_local(tables, &h.tuple.destination) {
        return Err(Verdict::pass(Reason::PassNotService));
    }
    let Some((label, inner_v6)) = tunnel::label(packet, h.l4) else {
        // Another tunnel may share the port (Swarm's VXLAN).
        return Err(Verdict::pass(Reason::PassNotService));
    };
    let sender = match tables.address(&h.tuple.source) {
        Some(a) if a.flags & NODE_LOCAL == 0 => a.node,
        _ => return Err(Verdict::drop(Reason::DropTunnelSource)),
    };
    if P::HOOK == Hook::Xdp {
        if h.tagged {
            return Err(Verdict::pass(Reason::PassVlan));
        }
        if label.direction == Direction::Forward {
            return Err(Verdict::pass(Reason::PassToTc));
        }
    }
    if rewrite::untag(packet, h).is_none() {
        return Err(Verdict::drop(Reason::DropRewrite));
    }
    let offset = tunnel::inner(h.l4);
    // The outer headers are done with.
    match parse::ip(packet, offset, inner_v6, h) {
        None => {}
        Some(Reason::PassFragment) if !P::FRAGMENTS => return Err(Verdict::pass(Reason::PassFragment)),
        Some(_) => return Err(Verdict::drop(Reason::DropTunnelMalformed)),
    }
    Ok((label, sender))
}

/// Strips everything before the inner packet.
#[inline(always)]
pub(super) fn unwrap<P: Packet>(packet: &mut P, inner: &mut Headers) -> Option<()> {
    packet.remove(inner.l3 - ETHERNET, inner.tuple.v6)?;
    packet.store(12, inner.ethertype().to_be_bytes())?;
    inner.l4 = inner.l4 - inner.l3 + ETHERNET;
    inner.l3 = ETHERNET;
    Some(())
}

/// A client's packet that its entry node sends to a backend of ours (tc).
#[inline(always)]
fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    label: &Label,
    sender: u32,
) -> Verdict {
    // A node speaks for its own frontends alone.
    match tables.address(&work.headers.tuple.destination) {
        Some(a) if a.node == sender => {}
        _ => return Verdict::drop(Reason::DropTunnelFrontend),
    }
    let chosen = match known(tables, env, &work.headers, &mut work.opening, label, sender) {
        Some(chosen) => chosen,
        None if work.headers.is_later::<P>() => return Verdict::drop(Reason::DropFragment),
        None => match admit(tables, env, work, label, sender) {
            Ok(chosen) => chosen,
            Err(reason) => return Verdict::drop(reason),
        },
    };
    let Some(backend) = tables.backend(chosen.backend) else {
        return Verdict::drop(Reason::DropBackendGone);
    };
    let inner = &mut work.headers;
    match unwrap(packet, inner) {
        Some(()) => deliver::to_local(packet, tables, env, inner, &chosen, &backend),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

/// Writes down the flow that the entry node has opened.
#[inline(always)]
fn admit<T: Tables>(tables: &T, env: &Env, work: &mut Work, label: &Label, sender: u32) -> Result<Chosen, Reason> {
    let (service, backend) = named(tables, &work.headers, label)?;
    work.opening.service = service;
    work.opening.origin = sender + 1;
    work.opening.flags = 0;
    work.opening.chosen.backend = backend;
    match flow::begin(tables, env, &mut work.headers, &mut work.opening) {
        None => Ok(work.opening.chosen),
        Some(reason) => Err(reason),
    }
}

/// Ids of the service and of the backend that a label names: published, on this node, not gone.
#[inline(always)]
fn named<T: Tables>(tables: &T, inner: &Headers, label: &Label) -> Result<(u32, u32), Reason> {
    let Some(frontend) = tables.frontend(&published_key(&inner.tuple)) else {
        return Err(Reason::DropTunnelFrontend);
    };
    let key = EndpointKey {
        address: label.backend,
        network: label.network,
        port: label.port,
        protocol: inner.tuple.protocol,
        family: if inner.tuple.v6 { 6 } else { 4 },
    };
    let Some(id) = tables.local_backend(&key) else {
        return Err(Reason::DropTunnelBackend);
    };
    match tables.backend(id) {
        Some(b) if b.flags & BACKEND_LOCAL != 0 && b.state != BACKEND_GONE => Ok((frontend.service, id)),
        _ => Err(Reason::DropTunnelBackend),
    }
}

/// The backend of a tunnelled flow that is in the table and is the one that the entry node means.
#[inline(always)]
fn known<T: Tables>(
    tables: &T,
    env: &Env,
    inner: &Headers,
    opening: &mut Opening,
    label: &Label,
    sender: u32,
) -> Option<Chosen> {
    opening.reset();
    let entry = pressure::flow(tables, env, &inner.tuple)?;
    let flow = entry.load();
    opening.meet(&flow);
    if track::expired(&flow, env.now) || flow.origin != sender + 1 || flow::reopens(&flow, inner) {
        return None;
    }
    let backend = tables.backend(flow.backend)?;
    if flow::is_gone(&backend, &flow) || !label.names(&backend) {
        return None;
    }
    if !track::observe(tables, env, &entry, &flow, inner, Side::Client) {
        return None;
    }
    if pressure::settles(tables, env, &flow, inner) {
        opening.settle(entry.clone());
        return None;
    }
    Some(Chosen::of(&flow))
}

/// Works out the route to a client on XDP. The reason says why tc must do it. A function of its own: its caller has no room for
/// what the kernel is asked.
#[inline(never)]
fn find_client<T: Tables>(tables: &T, env: &Env, work: &mut Work) -> Option<Reason> {
    let tuple = &work.headers.tuple;
    if masquerade::covers(tables, &tuple.destination) {
        return Some(Reason::PassToTc);
    }
    work.way.route = tables.route(&tuple.source, &tuple.destination, tuple.v6);
    xdp_can_follow(env, &work.way.route).err()
}

/// A reply that a backend's node sends back for a flow of ours.
#[inline(always)]
fn reply<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work, sender: u32) -> Verdict {
    let inner = &mut work.headers;
    let Some(entry) = pressure::flow(tables, env, &inner.tuple.reversed()) else {
        return Verdict::drop(Reason::DropTunnelFrontend);
    };
    let flow = entry.load();
    if track::expired(&flow, env.now) {
        return Verdict::drop(Reason::DropTunnelFrontend);
    }
    match tables.backend(flow.backend) {
        Some(b) if b.node == sender && b.generation == flow.generation => {}
        _ => return Verdict::drop(Reason::DropTunnelFrontend),
    }
    if inner.ttl <= 1 {
        return Verdict::drop(Reason::DropTtl);
    }
    if P::HOOK == Hook::Xdp
        && let Some(reason) = find_client(tables, env, work)
    {
        return Verdict::pass(reason);
    }
    let inner = &mut work.headers;
    let mut reason = Reason::ReplyFromTunnel;
    if refusal::may_be(inner) && refusal::retries(packet, tables, env, inner, &entry) {
        reason = Reason::ReplyRetry;
    } else if !track::observe(tables, env, &entry, &flow, inner, Side::Backend) {
        return Verdict::drop(Reason::DropTunnelFrontend);
    }
    tables.count_service(flow.service, 0, inner.ip_length, true);
    if unwrap(packet, inner)
        .and_then(|()| rewrite::decrement_ttl(packet, inner))
        .is_none()
    {
        return Verdict::drop(Reason::DropRewrite);
    }
    if P::HOOK == Hook::Xdp {
        return by_route(packet, env, &work.way.route, reason);
    }
    deliver::to_client(packet, tables, env, work, flow.flags, reason)
}
