//! The packet path: parse -> lookup -> select -> rewrite -> verdict, over any [`Packet`] and any [`Tables`].
//!
//! | entry | where it runs |
//! |---|---|
//! | [`node::ingress`] | XDP and tc ingress of node interfaces: published ports, the tunnel; on tc replies of VIPs' backends on other nodes |
//! | [`workload::from`] | tc ingress on the host side of workload interfaces: VIPs, replies |
//! | [`workload::to`] | tc egress there: replies of VIP flows |
//! | [`host::egress`] | tc egress of the loopback interface: the node's own processes to published ports |
//! | the same, over packets with [`Packet::FRAGMENTS`] | the same places on tc but the last, for fragments |
//! | [`errors`] | the same four places on tc, for ICMP errors: [`Verdict::is_for_errors`] |

mod deliver;
pub mod errors;
mod established;
mod fragments;
pub mod host;
mod inside;
mod kept;
mod masquerade;
pub mod node;
pub mod path_mtu;
mod refusal;
mod tunnel;
pub mod workload;

use crate::abi::{EndpointKey, FLOW_FLAG_REFUSED, FRONTEND_FILTERED, NETWORK_NODE, NODE_LOCAL, SOURCE_ALLOWED, TCP};
use crate::address::Address;
use crate::answer::refuse;
use crate::flow::{self, Known, Opening};
use crate::pressure;
use crate::tables::{Env, FlowEntry, Tables};
use crate::track;
use crate::tuple::Tuple;
use crate::verdict::{Reason, Verdict};
use crate::wire::icmp::{self, Quote};
use crate::wire::parse::Headers;
use crate::wire::rewrite::{self, Translation};
use crate::wire::{Hook, Packet};

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

/// What is left undone of a fragment; see [`fragments::resolve`].
#[inline(always)]
fn unresolved<P: Packet, T: Tables>(packet: &P, tables: &T, env: &Env, h: &mut Headers) -> Option<Verdict> {
    if !P::FRAGMENTS {
        return None;
    }
    match fragments::resolve(packet, tables, env, h) {
        None => None,
        Some(Reason::DropFragment) => Some(Verdict::drop(Reason::DropFragment)),
        Some(reason) => Some(Verdict::pass(reason)),
    }
}

/// What becomes of a packet that is neither TCP nor UDP.
#[inline(always)]
fn unbalanced(h: &Headers) -> Verdict {
    Verdict::pass(if icmp::is_error(h) {
        Reason::PassIcmpError
    } else {
        Reason::PassProtocol
    })
}

/// What the tables say about a packet from a client.
///
/// Flat, and every field set: what a variant of an enum leaves unset the compiler may keep on the stack all the same, and the
/// verifier refuses that.
#[derive(Clone, Copy)]
pub struct Found {
    what: What,
    /// Of [`What::Refused`].
    reason: Reason,
}

/// See [`Found`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum What {
    /// It has a flow, and the backend that is noted as chosen in [`Work::opening`].
    Flow,
    /// It has none, or its flow needs another backend of the opening's service; or it moves to the table itself: then the opening
    /// says so.
    Service,
    /// It is refused.
    Refused,
    /// It is not for a frontend.
    Nothing,
}

impl Found {
    /// It is not for a frontend.
    pub const NOTHING: Self = Self {
        what: What::Nothing,
        reason: Reason::PassNotService,
    };

    const FLOW: Self = Self {
        what: What::Flow,
        ..Self::NOTHING
    };

    const SERVICE: Self = Self {
        what: What::Service,
        ..Self::NOTHING
    };

    #[inline(always)]
    const fn refused(reason: Reason) -> Self {
        Self {
            what: What::Refused,
            reason,
        }
    }

    /// As a number, for whoever can carry nothing else.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        self.what as u32 | (self.reason.code() as u32) << 8
    }

    /// What [`Found::code`] has made of it.
    #[inline(always)]
    pub const fn from_code(code: u32, reason: Reason) -> Self {
        let what = match code & 0xff {
            0 => What::Flow,
            1 => What::Service,
            2 => What::Refused,
            _ => What::Nothing,
        };
        Self { what, reason }
    }

    /// Whether this is what was found.
    #[inline(always)]
    fn is(&self, what: What) -> bool {
        self.what == what
    }
}

/// Looks for the packet's flow, then for its frontend, whose `FRONTEND_*` bits it notes. The network must be set.
#[inline(always)]
pub fn find<T: Tables>(tables: &T, env: &Env, work: &mut Work) -> Found {
    let h = &work.headers;
    work.opening.reset();
    let inside = h.tuple.network != NETWORK_NODE;
    // To most ports of clients no flow leads.
    if (!inside || tables.knows_port(h.tuple.protocol, h.tuple.destination_port))
        && let Some(entry) = pressure::flow(tables, env, &h.tuple)
    {
        let flow = entry.load();
        work.opening.meet(&flow);
        if track::expired(&flow, env.now) {
            work.opening.avoid = 0;
        } else {
            match flow::continues(tables, env, &entry, &flow, h) {
                Known::Keep => return Found::FLOW,
                Known::Settle => {
                    work.opening.settle(entry.clone());
                    // Who was let in stays in.
                    work.frontend = 0;
                    return Found::SERVICE;
                }
                // Of whose service the frontend is now: the number of the old one may have been given to another.
                Known::Select => {}
                Known::Refuse => return Found::refused(Reason::ResetBackendGone),
            }
        }
    }
    let tuple = &work.headers.tuple;
    // Most of what workloads send and begins nothing is for no VIP at all.
    if inside && !tables.is_vip(&tuple.destination, tuple.network) {
        return Found::NOTHING;
    }
    let mut key = frontend_key(tuple);
    let mut frontend = tables.frontend(&key);
    if inside && frontend.is_none() {
        // Every port that has none of its own.
        key.port = 0;
        frontend = tables.frontend(&key);
    }
    match frontend {
        Some(frontend) => {
            work.frontend = frontend.flags;
            work.opening.service = frontend.service;
            Found::SERVICE
        }
        None if !inside => Found::NOTHING,
        None if tuple.protocol == TCP => Found::refused(Reason::ResetNoPort),
        None => Found::refused(Reason::UnreachableNoPort),
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
    /// Its own addresses, if its client is masked.
    pub mask: masquerade::Mask,
    /// What it is about, if it is an ICMP error.
    pub quote: Quote,
    /// What the packet is to be that it quotes.
    pub to: Translation,
    /// `FRONTEND_*` bits of its frontend, if that was looked for.
    pub frontend: u32,
}

/// Key of the frontend that a packet is for, in its network.
#[inline(always)]
pub fn frontend_key(tuple: &Tuple) -> EndpointKey {
    if tuple.network == NETWORK_NODE {
        return published_key(tuple);
    }
    EndpointKey {
        address: tuple.destination,
        network: tuple.network,
        port: tuple.destination_port,
        protocol: tuple.protocol,
        family: if tuple.v6 { 6 } else { 4 },
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

/// Whether there may be a frontend, or a flow to one, on the port that a packet is for: of most there is none, and this costs
/// less than to look.
#[inline(always)]
fn publishes<T: Tables>(tables: &T, h: &Headers) -> bool {
    tables.publishes(h.tuple.protocol, h.tuple.destination_port)
}

/// Looks for the flow or the service of a packet to a published port on an address of this node. The caller has asked
/// [`publishes`].
#[inline(always)]
fn find_published<T: Tables>(tables: &T, env: &Env, work: &mut Work) -> Found {
    let h = &mut work.headers;
    h.tuple.network = NETWORK_NODE;
    // Only we write these addresses: nobody else may reach the flows of whom they stand for.
    if work.mask.on == 0 && masquerade::covers(tables, &h.tuple.source) {
        return match tables.frontend(&published_key(&h.tuple)) {
            Some(_) if is_local(tables, &h.tuple.destination) => Found::refused(Reason::DropForgedSource),
            _ => Found::NOTHING,
        };
    }
    match tables.find(env, work) {
        found if found.is(What::Service) && !is_local(tables, &work.headers.tuple.destination) => Found::NOTHING,
        found
            if found.is(What::Service)
                && work.frontend & FRONTEND_FILTERED != 0
                && !admits(tables, work.opening.service, work) =>
        {
            Found::refused(Reason::DropSourceDenied)
        }
        found => found,
    }
}

/// Whether a service that does not answer everybody answers this client, who goes by his own address.
#[inline(never)]
fn admits<T: Tables>(tables: &T, service: u32, work: &Work) -> bool {
    let client = match work.mask.on {
        0 => &work.headers.tuple.source,
        _ => work.mask.client(),
    };
    tables.source(service, client) == SOURCE_ALLOWED
}

/// Opens a flow if one is to be opened, and sends the packet on to its backend; `interface_flags`: of the workload interface
/// whose VIP the packet is for; `flow_flags`: what the flow begins with. `MASKED`: its client may be masked.
#[inline(always)]
fn proceed<P: Packet, T: Tables, const MASKED: bool>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    work: &mut Work,
    found: Found,
    interface_flags: Option<u32>,
    flow_flags: u8,
) -> Verdict {
    // Of what the first one has not opened, nothing is left to begin.
    if work.headers.is_later::<P>() && (found.is(What::Service) && !work.opening.settles() || found.is(What::Refused)) {
        return Verdict::drop(Reason::DropFragment);
    }
    if !found.is(What::Nothing) {
        fragments::count_early::<P, T>(tables, &work.headers);
    }
    match found.what {
        What::Nothing => return Verdict::pass(Reason::PassNotService),
        What::Flow => {}
        What::Refused => {
            if matches!(found.reason, Reason::ResetBackendGone) {
                flow::forget(tables, &work.headers.tuple);
            }
            if MASKED {
                masquerade::forget(work);
            }
            return refuse(packet, &mut work.headers, found.reason);
        }
        What::Service => {
            if !work.opening.settles() {
                work.opening.origin = 0;
                let again = if work.opening.avoid != 0 { FLOW_FLAG_REFUSED } else { 0 };
                work.opening.flags = flow_flags | again;
            }
            if let Some(reason) = flow::begin(tables, env, &mut work.headers, &mut work.opening) {
                if MASKED {
                    masquerade::forget(work);
                }
                return refuse(packet, &mut work.headers, reason);
            }
        }
    }
    let chosen = work.opening.chosen;
    if MASKED && masquerade::put_on(packet, work).is_none() {
        return Verdict::drop(Reason::DropRewrite);
    }
    match interface_flags {
        Some(flags) => inside::forward(packet, tables, env, work, &chosen, flags),
        None => deliver::to_backend(packet, tables, env, work, &chosen),
    }
}

/// Whether the address is this node's. The first one is in the settings: most ask for it, and need no look-up.
#[inline(always)]
fn is_local<T: Tables>(tables: &T, address: &Address) -> bool {
    matches!(tables.settings(), Some(s) if s.host != 0 && *address == Address::v4_word(s.host))
        || matches!(tables.address(address), Some(a) if a.flags & NODE_LOCAL != 0)
}
