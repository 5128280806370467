//! Echo requests to VIPs (RFC 792, RFC 4443 4).

use crate::verdict::{Reason, Verdict};
use crate::wire::checksum::Diff;
use crate::wire::parse::Headers;
use crate::wire::{Packet, rewrite};

/// Type of a request: ICMP.
pub const REQUEST_V4: u8 = 8;
/// Type of a request: ICMPv6.
pub const REQUEST_V6: u8 = 128;

/// Sends a request back as its reply.
#[inline(never)]
pub fn answer<P: Packet>(packet: &mut P, h: &Headers) -> Verdict {
    match reply(packet, h) {
        Some(()) => Verdict::transmit(Reason::AnswerEcho),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

#[inline(always)]
fn reply<P: Packet>(packet: &mut P, h: &Headers) -> Option<()> {
    let [kind, code] = packet.load::<2>(h.l4)?;
    let reply = if h.tuple.v6 { 129 } else { 0 };
    packet.store(h.l4, [reply])?;
    let diff = Diff::ZERO.change2([kind, code], [reply, code]);
    packet.update_l4_checksum(h.l4 + 2, Diff::ZERO, diff, false, h.tuple.v6)?;
    // The sums of header and pseudo-header do not depend on the order of the addresses.
    packet.store_addresses(h.l3, &h.tuple.destination, &h.tuple.source, h.tuple.v6)?;
    rewrite::swap_macs(packet)
}
