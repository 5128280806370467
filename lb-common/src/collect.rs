//! Removal of flows that are past their time, and of replies that lead nowhere, beside the packets that come meanwhile.
//!
//! Maps are deleted from by key, and between a look and the deletion a packet may have taken the key into use again. So
//! whoever wants to remove or replace an entry ends it first: he changes, in one step, the word that holds when it was
//! last seen and its state ([`FlowEntry::end`], [`Tables::end_reply`]). One alone succeeds, and only he touches the key. For
//! everybody else the entry is not there any more, and the place is not free yet: a packet that opens a flow meanwhile
//! writes it into the overflow table. A packet that finds a flow long silent takes it back in the same way
//! ([`FlowEntry::wake`]): either it or the collector is too late.

use crate::abi::{
    Backend, COLLECT_LEFT, COLLECT_OFFSET, COLLECT_OVERFLOW, COLLECT_REPLY, COLLECT_V6, Collect, FLOW_NEW, Flow, Reply,
    ticks,
};
use crate::address::Address;
use crate::flow::{flow_tuple, is_gone, target, target_port};
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
        || leads_home_in(tables, &reply, back, Table::Main)
        || leads_home_in(tables, &reply, back, Table::Overflow)
        || !tables.end_reply(back, &reply, table)
    {
        return false;
    }
    tables.remove_reply(back, table);
    true
}

/// Removes a flow, however alive, if it is still one of this service to this backend, which has left the service. Whether it
/// did; a packet of the flow at the same moment may be in the way.
#[inline(always)]
pub fn left<T: Tables>(tables: &T, tuple: &Tuple, table: Table, service: u32, backend: u32) -> bool {
    let Some(entry) = tables.flow(tuple, table) else {
        return false;
    };
    let flow = entry.load();
    if entry.ended() || flow.service != service || flow.backend != backend || !entry.end(&flow) {
        return false;
    }
    tables.remove_flow(tuple, table);
    true
}

/// Whether the flow that a reply leads to is in this table and goes to the reply's backend.
#[inline(always)]
fn leads_home_in<T: Tables>(tables: &T, reply: &Reply, back: &Tuple, table: Table) -> bool {
    let Some(entry) = tables.flow(&flow_tuple(reply, back), table) else {
        return false;
    };
    let flow = entry.load();
    match tables.backend(flow.backend) {
        Some(backend) => leads_home(reply, back, &flow, Some(&backend)),
        None => leads_home(reply, back, &flow, None),
    }
}

/// Whether the flow that a reply leads to goes to the reply's backend; `back`: the reply's own tuple. A flow whose backend is
/// gone, or unknown, keeps its reply: it is needed to reset both sides.
#[inline(always)]
pub fn leads_home(reply: &Reply, back: &Tuple, flow: &Flow, backend: Option<&Backend>) -> bool {
    if flow.source_port != back.destination_port {
        return false;
    }
    match backend {
        // What the programs ask before they translate.
        Some(b) if !is_gone(b, flow) => {
            *target(b, reply.network) == back.source && target_port(b, reply.frontend_port) == back.source_port
        }
        _ => true,
    }
}

/// Words of a [`Collect`].
pub const WORDS: usize = size_of::<Collect>() / 4;

impl Collect {
    fn entry(tuple: &Tuple, overflow: bool) -> Self {
        Self {
            source: tuple.source,
            destination: tuple.destination,
            ports: u32::from(tuple.source_port) << 16 | u32::from(tuple.destination_port),
            network_protocol: tuple.network_protocol(),
            unanswered: u32::MAX,
            table: if tuple.v6 { COLLECT_V6 } else { 0 } | if overflow { COLLECT_OVERFLOW } else { 0 },
            ..Self::default()
        }
    }

    /// A flow that looks dead, in the table itself or in the overflow table; see [`dead`].
    #[must_use]
    pub fn dead(tuple: &Tuple, overflow: bool, unanswered: u32) -> Self {
        Self {
            unanswered,
            ..Self::entry(tuple, overflow)
        }
    }

    /// A reply that seems to lead nowhere.
    #[must_use]
    pub fn reply(tuple: &Tuple, overflow: bool) -> Self {
        let entry = Self::entry(tuple, overflow);
        Self {
            table: entry.table | COLLECT_REPLY,
            ..entry
        }
    }

    /// A flow of a service to a backend that has left it; see [`left`].
    #[must_use]
    pub fn left(tuple: &Tuple, overflow: bool, service: u32, backend: u32) -> Self {
        let entry = Self::entry(tuple, overflow);
        Self {
            table: entry.table | COLLECT_LEFT,
            service,
            backend,
            ..entry
        }
    }

    /// The frame that tells the program.
    #[must_use]
    pub fn frame(&self) -> [u8; COLLECT_OFFSET + size_of::<Self>()] {
        let ([a, b, c, d], [e, f, g, h]) = (self.source.words(), self.destination.words());
        let words: [u32; WORDS] = [
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
            self.ports,
            self.network_protocol,
            self.unanswered,
            self.table,
            self.service,
            self.backend,
        ];
        let mut frame = [0; COLLECT_OFFSET + size_of::<Self>()];
        // Of the types for local experiments (IEEE 802): the kernel looks at no header behind it.
        frame[12..14].copy_from_slice(&0x88b5_u16.to_be_bytes());
        for (bytes, word) in frame[COLLECT_OFFSET..].chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        frame
    }
}

/// Does what the words of a [`Collect`] ask for. Whether an entry was removed. `tuple`: where its key is put together; a
/// program's stack has better uses.
#[inline(always)]
pub fn run<T: Tables>(tables: &T, words: &[u32; WORDS], tuple: &mut Tuple, now: u32) -> bool {
    let [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        ports,
        network_protocol,
        unanswered,
        bits,
        service,
        backend,
    ] = *words;
    *tuple = Tuple {
        v6: bits & COLLECT_V6 != 0,
        source: Address::from_words([a, b, c, d]),
        destination: Address::from_words([e, f, g, h]),
        source_port: (ports >> 16) as u16,
        destination_port: ports as u16,
        protocol: network_protocol as u8,
        network: network_protocol >> 8,
    };
    let overflow = bits & COLLECT_OVERFLOW != 0;
    match (bits & (COLLECT_REPLY | COLLECT_LEFT), overflow) {
        (0, false) => flow(tables, tuple, Table::Main, now, unanswered),
        (0, true) => flow(tables, tuple, Table::Overflow, now, unanswered),
        (COLLECT_LEFT, false) => left(tables, tuple, Table::Main, service, backend),
        (COLLECT_LEFT, true) => left(tables, tuple, Table::Overflow, service, backend),
        (_, false) => reply(tables, tuple, Table::Main, now),
        (_, true) => reply(tables, tuple, Table::Overflow, now),
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
