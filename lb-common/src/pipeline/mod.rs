//! The packet path: parse -> lookup -> select -> rewrite -> verdict, over any [`Packet`] and any [`Tables`].
//!
//! | entry | where it runs |
//! |---|---|
//! | [`node::ingress`] | XDP and tc ingress of node interfaces: published ports, the tunnel |
//! | [`workload::from`] | tc ingress on the host side of workload interfaces: VIPs, replies of published flows |
//! | [`workload::to`] | tc egress there: replies of VIP flows |

mod deliver;
pub mod node;
mod tunnel;
pub mod workload;

use crate::abi::{EndpointKey, NETWORK_NODE, NODE_LOCAL};
use crate::address::Address;
use crate::answer::refuse;
use crate::flow::{self, Chosen, Known, Opening};
use crate::tables::{Env, FlowEntry, Tables};
use crate::track;
use crate::tuple::Tuple;
use crate::verdict::{Reason, Verdict};
use crate::wire::parse::Headers;
use crate::wire::{Hook, Packet, rewrite};

/// What XDP leaves to tc, of packets that are a service's: tagged frames and unfinished checksums.
#[inline(always)]
fn leave_to_tc<P: Packet>(packet: &P, h: &Headers) -> Option<Reason> {
    if P::HOOK != Hook::Xdp {
        return None;
    }
    if h.tagged {
        return Some(Reason::PassVlan);
    }
    match rewrite::partial_checksum(packet, h) {
        Some(false) => None,
        Some(true) => Some(Reason::PassPartialChecksum),
        None => Some(Reason::PassMalformed),
    }
}

/// What the tables say about a packet from a client.
enum Found {
    /// It has a flow, and this backend.
    Flow(Chosen),
    /// It has none, or its flow needs another backend of this service.
    Service(u32),
    /// It is refused.
    Refused(Reason),
    /// It is not for a frontend.
    Nothing,
}

/// Looks for the packet's flow, then for its frontend.
#[inline(always)]
fn find<T: Tables>(tables: &T, env: &Env, h: &Headers, frontend: &EndpointKey) -> Found {
    if let Some(entry) = tables.flow(&h.tuple) {
        let flow = entry.load();
        if !track::expired(&flow, env.now) {
            return match flow::continues(tables, env, &entry, &flow, h) {
                Known::Keep(chosen) => Found::Flow(chosen),
                Known::Select(service) => Found::Service(service),
                Known::Refuse(reason) => Found::Refused(reason),
            };
        }
    }
    match tables.frontend(frontend) {
        Some(frontend) => Found::Service(frontend.service),
        None => Found::Nothing,
    }
}

/// What the pipeline works on for one packet; given from outside, because a program's stack has no room for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// The packet's headers.
    pub headers: Headers,
    /// The flow that it opens, if any.
    pub opening: Opening,
    /// Its way through the tunnel, if it takes that.
    pub way: tunnel::Way,
}

/// Opens a flow to a service.
#[inline(always)]
fn open<T: Tables>(tables: &T, env: &Env, work: &mut Work, service: u32) -> Result<Chosen, Reason> {
    work.opening.service = service;
    work.opening.origin = 0;
    match flow::open(tables, env, &mut work.headers, &mut work.opening) {
        None => Ok(work.opening.chosen),
        Some(reason) => Err(reason),
    }
}

/// Key of the frontend that publishes the port that a packet is for.
#[inline(always)]
fn published_key(tuple: &Tuple) -> EndpointKey {
    EndpointKey {
        address: Address::ANY,
        network: NETWORK_NODE,
        port: tuple.destination_port,
        protocol: tuple.protocol,
        family: if tuple.v6 { 6 } else { 4 },
    }
}

/// A packet to a published port, if it is one: on an address of this node.
#[inline(always)]
fn published<P: Packet, T: Tables>(packet: &mut P, tables: &T, env: &Env, work: &mut Work) -> Verdict {
    work.headers.tuple.network = NETWORK_NODE;
    // Before anything is written down.
    let unfinished = leave_to_tc(packet, &work.headers);
    let chosen = match find(tables, env, &work.headers, &published_key(&work.headers.tuple)) {
        Found::Nothing => return Verdict::pass(Reason::PassNotService),
        Found::Refused(reason) => Err(reason),
        Found::Flow(chosen) => Ok(chosen),
        Found::Service(service) => {
            if !is_local(tables, &work.headers.tuple.destination) {
                return Verdict::pass(Reason::PassNotService);
            }
            if let Some(reason) = unfinished {
                return Verdict::pass(reason);
            }
            open(tables, env, work, service)
        }
    };
    if let Some(reason) = unfinished {
        return Verdict::pass(reason);
    }
    match chosen {
        Ok(chosen) => deliver::to_backend(packet, tables, env, work, &chosen),
        Err(reason) => refuse(packet, &mut work.headers, reason),
    }
}

/// Whether the address is this node's.
#[inline(always)]
fn is_local<T: Tables>(tables: &T, address: &Address) -> bool {
    matches!(tables.address(address), Some(a) if a.flags & NODE_LOCAL != 0)
}
