//! Where the kernel would send a packet. What is kept of its answers, and for how long, is [`lb_common::route`]'s; whether they
//! are kept at all is the program's, as a constant: rare packets, and those of other namespaces, always ask.

use core::mem::size_of;

use aya_ebpf::helpers::bpf_fib_lookup;
use lb_common::abi::{Interface, InterfaceKey};
use lb_common::address::Address;
use lb_common::route::{Kept, KeptInterface, Question, interface_place, takes_frames};
use lb_common::tables::{NextHop, Route, Tables as _};
use lb_common::way::{self, KeptWay};

use crate::maps::{self, RouteQuery};
use crate::tables::Maps;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_NOT_FWDED`.
const NOT_FORWARDED: i64 = 4;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`.
const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const FRAGMENTATION_NEEDED: i64 = 8;

impl<const KEEP: bool> Maps<KEEP> {
    /// As [`lb_common::tables::Tables::route`].
    #[inline(always)]
    pub(crate) fn find_route(&self, source: &Address, destination: &Address, v6: bool) -> Route {
        let question = Question::new(source, destination, self.ifindex);
        if !KEEP {
            return self.ask(question, v6);
        }
        let Some(kept) = maps::routes.get_ptr_mut(question.place()) else {
            return Route::default();
        };
        // SAFETY: this CPU's own elements.
        let (kept, now) = unsafe { (&mut *kept, (*self.scratch).clock.now) };
        if kept.answers(question, now) {
            return kept.route();
        }
        let mut route = self.ask(question, v6);
        if Kept::takes(&route) {
            route.takes_frames = match self.interface(InterfaceKey::node(route.ifindex)) {
                Some(interface) => takes_frames(interface),
                None => false,
            };
            route.asked = now;
            *kept = Kept::new(question, &route);
        }
        route
    }

    /// As [`lb_common::tables::Tables::recent_interface`].
    #[inline(always)]
    pub(crate) fn find_interface(&self, key: InterfaceKey) -> Option<&'static Interface> {
        if !KEEP {
            return self.interface(key);
        }
        let kept = maps::recent.get_ptr_mut(interface_place(&key))?;
        // SAFETY: this CPU's own elements.
        unsafe {
            let now = (*self.scratch).clock.now;
            if !(*kept).is(&key, now) {
                let found = self.interface(key)?;
                *kept = KeptInterface::new(*found, &key, now);
            }
            Some((*kept).interface())
        }
    }

    /// As [`lb_common::tables::Tables::kept_way`].
    #[inline(always)]
    pub(crate) fn find_way(&self, node: u32) -> Option<&'static KeptWay> {
        if !KEEP {
            return None;
        }
        let kept = maps::ways.get_ptr_mut(way::place(node))?;
        // SAFETY: this CPU's own element.
        Some(unsafe { &*kept })
    }

    /// As [`lb_common::tables::Tables::keep_way`].
    #[inline(always)]
    pub(crate) fn set_way(&self, node: u32, way: &KeptWay) {
        if KEEP && let Some(kept) = maps::ways.get_ptr_mut(way::place(node)) {
            // SAFETY: this CPU's own element.
            unsafe { *kept = *way }
        }
    }

    #[inline(always)]
    fn ask(&self, question: Question, v6: bool) -> Route {
        let (mut from, mut to) = (question.source, question.destination);
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
            takes_frames: false,
            asked: 0,
        }
    }
}
