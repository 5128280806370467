//! Removal of flows that are past their time, and of replies that lead nowhere, beside the packets that come meanwhile.
//!
//! Maps are deleted from by key, and between a look and the deletion a packet may have taken the key into use again. So
//! whoever wants to remove or replace an entry ends it first: he changes, in one step, the word that holds when it was
//! last seen and its state ([`FlowEntry::end`], [`Tables::end_reply`]). One alone succeeds, and only he touches the key. For
//! everybody else the entry is not there any more, and the place is not free yet: a packet that opens a flow meanwhile
//! writes it into the overflow table. A packet that finds a flow long silent takes it back in the same way
//! ([`FlowEntry::wake`]): either it or the collector is too late.

use crate::abi::{BACKEND_GONE, FLOW_NEW, Flow, Reply, ticks};
use crate::flow::{flow_tuple, target, target_port};
use crate::tables::{FlowEntry, Table, Tables};
use crate::track::SILENT;
use crate::tuple::Tuple;

/// Ticks that an expired flow is kept, so that clocks read on different CPUs never matter; and a reply, whose flow is
/// written after it.
pub const SLACK: u32 = ticks(2_000);

/// Ticks since `earlier`. A stamp from another CPU that is a little ahead of `now` counts as zero.
const fn since(earlier: u32, now: u32) -> u32 {
    let elapsed = now.wrapping_sub(earlier);
    if elapsed > u32::MAX - (1 << 16) { 0 } else { elapsed }
}

/// Whether a flow is past its time. One that nobody has answered has `unanswered` ticks at most.
#[inline(always)]
pub fn dead(flow: &Flow, now: u32, unanswered: u32) -> bool {
    let timeout = if flow.state == FLOW_NEW && flow.timeout > unanswered {
        unanswered
    } else {
        flow.timeout
    };
    let silent = since(flow.last_seen, now);
    silent > timeout.saturating_add(SLACK) && silent > SILENT
}

/// Removes a flow if it is dead. Whether it did.
#[inline(always)]
pub fn flow<T: Tables>(tables: &T, tuple: &Tuple, table: Table, now: u32, unanswered: u32) -> bool {
    let Some(entry) = tables.flow(tuple, table) else {
        return false;
    };
    let flow = entry.load();
    if entry.ended() || !dead(&flow, now, unanswered) || !entry.end(&flow) {
        return false;
    }
    tables.remove_flow(tuple, table);
    true
}

/// Removes a reply if it leads to no flow. Whether it did.
#[inline(always)]
pub fn reply<T: Tables>(tables: &T, back: &Tuple, table: Table, now: u32) -> bool {
    let Some(reply) = tables.reply(back, table) else {
        return false;
    };
    if since(reply.bound, now) <= SLACK
        || leads_home(tables, &reply, back, Table::Main)
        || leads_home(tables, &reply, back, Table::Overflow)
        || !tables.end_reply(back, &reply, table)
    {
        return false;
    }
    tables.remove_reply(back, table);
    true
}

/// Whether the flow that a reply leads to exists and goes to the reply's backend. A flow whose backend is gone keeps its
/// reply: it is needed to reset both sides.
#[inline(always)]
fn leads_home<T: Tables>(tables: &T, reply: &Reply, back: &Tuple, table: Table) -> bool {
    let Some(entry) = tables.flow(&flow_tuple(reply, back), table) else {
        return false;
    };
    let flow = entry.load();
    if flow.source_port != back.destination_port {
        return false;
    }
    match tables.backend(flow.backend) {
        Some(b) if b.generation == flow.generation && b.state != BACKEND_GONE => {
            *target(&b, reply.network) == back.source && target_port(&b, reply.frontend_port) == back.source_port
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::FLOW_ESTABLISHED;

    fn flow(last_seen: u32, timeout: u32) -> Flow {
        Flow {
            last_seen,
            timeout,
            ..Flow::default()
        }
    }

    #[test]
    fn a_flow_dies_after_timeout_and_slack() {
        let dead = |flow: &Flow, now| dead(flow, now, u32::MAX);
        assert!(!dead(&flow(100, 5000), 5100));
        assert!(!dead(&flow(100, 5000), 5100 + SLACK));
        assert!(dead(&flow(100, 5000), 5101 + SLACK));
        assert!(!dead(&flow(u32::MAX - 10, 5000), 20), "across the wrap");
        assert!(!dead(&flow(100, u32::MAX), 99 + SLACK), "no overflow");
        assert!(!dead(&flow(100, 0), 100 + SILENT), "a packet of it may be on its way");
        assert!(!dead(&flow(100, 0), 98), "a stamp of another CPU that is ahead");
    }

    #[test]
    fn while_room_is_short_only_answered_flows_keep_theirs() {
        let idle = |state| Flow {
            state,
            ..flow(100, 50_000)
        };
        let now = 100 + 3_000 + SLACK + 1;
        assert!(dead(&idle(FLOW_NEW), now, 3_000));
        assert!(!dead(&idle(FLOW_NEW), now - 1, 3_000));
        assert!(!dead(&idle(FLOW_NEW), now, u32::MAX));
        assert!(!dead(&idle(FLOW_ESTABLISHED), now, 3_000));
    }
}
