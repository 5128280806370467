//! A backend refuses a connection that another one may take: nobody listens any more in a container that is about to go.
//!
//! The client does not get the RST, but is made to ask again, and another backend is chosen. Once: the second refusal is
//! the client's, so nobody goes round in circles. What it gets is an acknowledgement of nothing (RFC 9293 3.10.7.3: a client
//! that waits for a SYN's answer discards it). Linux, since 5.6, sends its SYN again at once; others do when their timer says so,
//! as if the RST had been lost.

use crate::abi::{BACKEND_READY, FLOW_CLOSED, FLOW_FLAG_ANSWERED, FLOW_FLAG_REFUSED, FLOW_NEW, SlotKey};
use crate::flow;
use crate::tables::{Env, FlowEntry, Tables};
use crate::track;
use crate::wire::checksum::Diff;
use crate::wire::parse::Headers;
use crate::wire::{Packet, tcp};

/// Slots in which another backend is looked for: in the order of the slots even one of a tenth of the weight is among them.
const SLOTS: u32 = 12;

/// Whether a backend's packet may refuse a connection: most do not.
#[inline(always)]
pub(super) fn may_be(h: &Headers) -> bool {
    h.flags & tcp::RST != 0
}

/// Whether a backend's RST refuses a connection that another one may take. If so, the flow waits for the client's next SYN, and
/// the packet is what brings that about.
#[inline(never)]
pub(super) fn retries<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    env: &Env,
    h: &mut Headers,
    entry: &T::Entry,
) -> bool {
    let flow = entry.load();
    // The answer to a SYN that was repeated before the first refusal came.
    let repeated = flow::refused_by(&flow) != 0;
    let first = flow.state == FLOW_NEW && flow.flags & (FLOW_FLAG_ANSWERED | FLOW_FLAG_REFUSED) == 0;
    if h.flags & tcp::ACK == 0 || !(repeated || first && another(tables, flow.service, flow.backend)) {
        return false;
    }
    let Some(settings) = tables.settings() else {
        return false;
    };
    if !track::seen(entry, &flow, env.now) || ask_again(packet, h).is_none() {
        return false;
    }
    let flags = flow.flags | FLOW_FLAG_REFUSED;
    entry.set_state(
        FLOW_CLOSED,
        flags,
        track::timeout(FLOW_CLOSED, h.tuple.protocol, &settings, None),
    );
    true
}

/// Whether a backend that takes new flows is among the service's first slots, beside the one that refuses.
#[inline(always)]
fn another<T: Tables>(tables: &T, service: u32, refusing: u32) -> bool {
    let Some(entry) = tables.service(service) else {
        return false;
    };
    let generation = entry.generation;
    for index in 0..SLOTS {
        let Some(id) = tables.slot(&SlotKey {
            service,
            generation,
            index,
        }) else {
            return false;
        };
        if id != refusing && matches!(tables.backend(id), Some(b) if b.state == BACKEND_READY) {
            return true;
        }
    }
    false
}

/// Makes a RST that acknowledges a SYN one that acknowledges nothing, and no RST.
#[inline(always)]
fn ask_again<P: Packet>(packet: &mut P, h: &mut Headers) -> Option<()> {
    let old = packet.load::<6>(h.l4 + 8)?;
    let number = u32::from_be_bytes([old[0], old[1], old[2], old[3]]).wrapping_sub(1);
    let flags = h.flags & !tcp::RST;
    let n = number.to_be_bytes();
    let new = [n[0], n[1], n[2], n[3], old[4], flags];
    let diff = Diff::ZERO
        .change2([old[0], old[1]], [new[0], new[1]])
        .change2([old[2], old[3]], [new[2], new[3]])
        .change2([old[4], old[5]], [new[4], new[5]]);
    packet.store(h.l4 + 8, new)?;
    packet.update_l4_checksum(h.checksum_offset(), Diff::ZERO, diff, false, h.tuple.v6)?;
    h.flags = flags;
    Some(())
}
