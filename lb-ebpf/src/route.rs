//! Where the kernel would send a packet. What it has said is kept for a moment, on each CPU: asking costs more than all the
//! rest that is done to a packet of a known flow. Programs for rare packets always ask.

use core::mem::size_of;

use aya_ebpf::helpers::bpf_fib_lookup;
use lb_common::abi::ticks;
use lb_common::address::Address;
use lb_common::tables::{NextHop, Route};

use crate::maps::{self, RouteQuery};
use crate::tables::Maps;

/// Ticks for which a route is kept: so late is a neighbour's new MAC, or another way, followed.
const FRESH: u32 = ticks(50);
/// Elements of `routes`, `log2`.
pub(crate) const ROUTES_SHIFT: u32 = 8;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_NOT_FWDED`.
const NOT_FORWARDED: i64 = 4;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`.
const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const FRAGMENTATION_NEEDED: i64 = 8;

/// A route whose next hop is resolved, in the place where its destination's hash falls.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    source: [u32; 4],
    destination: [u32; 4],
    /// Interface that the packet was on; 0: nothing is kept here.
    incoming: u32,
    /// Tick at which the kernel was asked.
    asked: u32,
    ifindex: u32,
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
}

impl Kept {
    #[inline(always)]
    fn answers(&self, source: [u32; 4], destination: [u32; 4], incoming: u32, now: u32) -> bool {
        let (s, d) = (self.source, self.destination);
        let differ = (s[3] ^ source[3]) | (d[3] ^ destination[3]) | (self.incoming ^ incoming);
        let more = (s[0] ^ source[0]) | (s[1] ^ source[1]) | (s[2] ^ source[2]);
        let rest = (d[0] ^ destination[0]) | (d[1] ^ destination[1]) | (d[2] ^ destination[2]);
        differ | more | rest == 0 && now.wrapping_sub(self.asked) <= FRESH
    }
}

#[inline(always)]
fn place(destination: [u32; 4]) -> u32 {
    let d = destination;
    (d[0] ^ d[1] ^ d[2] ^ d[3]).wrapping_mul(0x9e37_79b1) >> (32 - ROUTES_SHIFT)
}

impl<const KEEP: bool> Maps<KEEP> {
    /// As [`lb_common::tables::Tables::route`].
    #[inline(always)]
    pub(crate) fn find_route(&self, source: &Address, destination: &Address, v6: bool) -> Route {
        let (from, to) = (source.words(), destination.words());
        if !KEEP {
            return self.ask(from, to, v6);
        }
        let Some(kept) = maps::routes.get_ptr_mut(place(to)) else {
            return Route::default();
        };
        // SAFETY: this CPU's own elements.
        let (kept, now) = unsafe { (&mut *kept, (*self.scratch).clock.now) };
        if kept.answers(from, to, self.ifindex, now) {
            return Route {
                hop: NextHop::Resolved,
                ifindex: kept.ifindex,
                source: kept.source_mac,
                destination: kept.destination_mac,
            };
        }
        let route = self.ask(from, to, v6);
        if matches!(route.hop, NextHop::Resolved) {
            *kept = Kept {
                source: from,
                destination: to,
                incoming: self.ifindex,
                asked: now,
                ifindex: route.ifindex,
                source_mac: route.source,
                destination_mac: route.destination,
            };
        }
        route
    }

    #[inline(always)]
    fn ask(&self, mut from: [u32; 4], mut to: [u32; 4], v6: bool) -> Route {
        if !v6 {
            (from, to) = ([from[3], 0, 0, 0], [to[3], 0, 0, 0]);
        }
        // SAFETY: this CPU's own element, written whole before the helper reads it.
        let query = unsafe { &mut (*self.scratch).route };
        *query = RouteQuery {
            family: if v6 { AF_INET6 } else { AF_INET },
            ifindex: self.ifindex,
            source: from,
            destination: to,
            ..RouteQuery::default()
        };
        let size = size_of::<RouteQuery>() as i32;
        // SAFETY: the context is the program's own.
        let code = unsafe { bpf_fib_lookup(self.context, (&raw mut *query).cast(), size, 0) };
        let hop = match code {
            0 => NextHop::Resolved,
            NOT_FORWARDED => NextHop::Local,
            NO_NEIGHBOUR | FRAGMENTATION_NEEDED => NextHop::Unresolved,
            _ => NextHop::None,
        };
        Route {
            hop,
            ifindex: query.ifindex,
            source: query.source_mac,
            destination: query.destination_mac,
        }
    }
}
