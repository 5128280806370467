//! Packets that come out of the tunnel.

use crate::abi::{BACKEND_GONE, BACKEND_LOCAL, EndpointKey, NETWORK_NODE, NODE_LOCAL};
use crate::flow::{self, Chosen, Opening};
use crate::pipeline::deliver::{self, by_route, xdp_can_follow};
use crate::pipeline::{Work, is_local, masquerade, published_key, refusal, unbalanced, unresolved};
use crate::pressure;
use crate::tables::{Env, FlowEntry, Tables};
use crate::track::{self, Side};
use crate::verdict::{Reason, Verdict};
use crate::wire::parse::{self, Headers};
use crate::wire::tunnel::{self, Direction, Label};
use crate::wire::{ETHERNET, Hook, Packet, icmp, rewrite};

/// A UDP packet to the tunnel's port on a node interface.
#[inline(always)]
pub(in crate::pipeline) fn receive<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
) -> Verdict {
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
pub(in crate::pipeline) fn read<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Work,
) -> Result<(Label, u32), Verdict> {
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
pub(in crate::pipeline) fn unwrap<P: Packet>(packet: &mut P, inner: &mut Headers) -> Option<()> {
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
