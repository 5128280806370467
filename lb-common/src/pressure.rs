//! What becomes of new flows when a flow table is full.
//!
//! A full table takes no new flow, and what is in it stays. For a while after ([`HOLD`]) every new flow goes to the overflow
//! table instead, where the least used gives way: a flood that nobody answers displaces itself there, and the table itself
//! is left to empty. The backend of such a flow is a pure function of its tuple and the service's backends
//! ([`crate::select::by_hash`]): a segment of a connection that was displaced finds the same one again. As soon as both
//! sides have spoken and the client speaks again, a flow moves to the table itself, where nothing displaces it.

use crate::abi::{
    FLOW_ESTABLISHED, FLOW_FLAG_ANSWERED, FLOW_FLAG_OVERFLOW, FLOW_NEW, Flow, Pressure, Reply, TCP, ticks,
};
use crate::tables::{Env, FlowEntry, Table, Tables};
use crate::tuple::Tuple;
use crate::wire::parse::Headers;
use crate::wire::tcp;

/// Ticks after the last flow that found no room for which new ones go to the overflow tables.
pub const HOLD: u32 = ticks(10_000);
/// Ticks after the last flow that found no room for which none tries to move to the table itself.
const RETRY: u32 = ticks(50);

/// Whether `stamp` was at most `ticks` ago. Another CPU's clock may be ahead: the difference is signed.
#[inline(always)]
const fn within(stamp: u32, now: u32, ticks: u32) -> bool {
    stamp != 0 && (now.wrapping_sub(stamp) as i32) <= ticks as i32
}

/// Whether new flows go to the overflow tables at tick `now`.
#[inline(always)]
pub const fn holds(pressure: &Pressure, now: u32) -> bool {
    within(pressure.full, now, HOLD)
}

/// Whether new flows go to the overflow tables.
#[inline(always)]
pub fn pressed<T: Tables>(tables: &T, env: &Env) -> bool {
    matches!(tables.pressure(), Some(p) if holds(&p, env.now))
}

/// Whether flows may be in the overflow tables, or have been displaced from there: until the last that was has certainly
/// expired.
#[inline(always)]
pub fn spilled<T: Tables>(tables: &T, env: &Env) -> bool {
    match (tables.pressure(), tables.settings()) {
        (Some(p), Some(s)) => within(p.used, env.now, s.tcp_established),
        _ => false,
    }
}

/// A flow or a reply has found no room.
#[inline(always)]
pub fn note_full<T: Tables>(tables: &T, env: &Env) {
    tables.set_full(env.now | 1);
}

/// An overflow table is written to, or something was found there.
#[inline(always)]
pub fn note_used<T: Tables>(tables: &T, env: &Env) {
    if matches!(tables.pressure(), Some(p) if p.used != env.now | 1) {
        tables.set_used(env.now | 1);
    }
}

/// Whether anything was ever in the overflow tables: asked where every packet comes by.
#[inline(always)]
fn ever_used<T: Tables>(tables: &T) -> bool {
    matches!(tables.pressure(), Some(p) if p.used != 0)
}

/// A flow, in whichever table it is.
#[inline(always)]
pub fn flow<T: Tables>(tables: &T, env: &Env, tuple: &Tuple) -> Option<T::Entry> {
    if let Some(entry) = tables.flow(tuple, Table::Main)
        && !entry.ended()
    {
        return Some(entry);
    }
    if !ever_used(tables) {
        return None;
    }
    overflow_flow(tables, env, tuple)
}

/// As [`flow`], in a function of its own: for programs whose stack has no room for it.
#[inline(never)]
pub fn flow_apart<T: Tables>(tables: &T, env: &Env, tuple: &Tuple) -> Option<T::Entry> {
    flow(tables, env, tuple)
}

// Functions of their own: few packets come here, and the programs' stacks have no room for them.

#[inline(never)]
fn overflow_flow<T: Tables>(tables: &T, env: &Env, tuple: &Tuple) -> Option<T::Entry> {
    if !spilled(tables, env) {
        return None;
    }
    let entry = tables.flow(tuple, Table::Overflow);
    if entry.is_some() {
        note_used(tables, env);
    }
    entry
}

/// A reply, in whichever table it is.
#[inline(never)]
pub fn reply<T: Tables>(tables: &T, env: &Env, tuple: &Tuple) -> Option<T::Ref<Reply>> {
    // Of what a client sends, the port says that it is none.
    if !tables.knows_port(tuple.protocol, tuple.source_port) {
        return None;
    }
    if let Some(reply) = tables.reply(tuple, Table::Main) {
        return Some(reply);
    }
    if !ever_used(tables) || !spilled(tables, env) {
        return None;
    }
    tables.reply(tuple, Table::Overflow)
}

/// The table that a flow is in.
#[inline(always)]
pub const fn table_of(flow: &Flow) -> Table {
    if flow.flags & FLOW_FLAG_OVERFLOW == 0 {
        Table::Main
    } else {
        Table::Overflow
    }
}

/// Whether a flow in the overflow table has earned its place in the table itself with this packet of its client: its backend
/// has answered, and the client goes on. Whoever forges source addresses does not get that far with TCP.
#[inline(always)]
pub fn settles<T: Tables>(tables: &T, env: &Env, flow: &Flow, h: &Headers) -> bool {
    // One that closes stays: in the table itself it would begin without the marks of who has closed.
    let answered = flow.state == FLOW_ESTABLISHED || flow.state == FLOW_NEW && flow.flags & FLOW_FLAG_ANSWERED != 0;
    if flow.flags & FLOW_FLAG_OVERFLOW == 0 || !answered {
        return false;
    }
    // A new source port would be another connection to the backend.
    if flow.source_port != h.tuple.source_port
        || h.tuple.protocol == TCP && h.flags & (tcp::FIN | tcp::RST | tcp::SYN) != 0
    {
        return false;
    }
    matches!(tables.pressure(), Some(p) if !within(p.full, env.now, RETRY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_not_within() {
        assert!(!within(0, 5, HOLD), "shortly after the machine has started");
        assert!(within(1, 5, HOLD));
        assert!(within(5 | 1, 4, HOLD), "another CPU's clock may be ahead");
        assert!(within(u32::MAX, HOLD - 1, HOLD), "across the wrap");
        assert!(!within(u32::MAX, HOLD, HOLD));
    }
}
