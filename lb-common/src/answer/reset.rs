//! A TCP segment turned into the RST that answers it (RFC 9293 3.5.2).

use crate::abi::TCP;
use crate::verdict::{Reason, Verdict};
use crate::wire::checksum::{Diff, pseudo};
use crate::wire::parse::Headers;
use crate::wire::{Packet, rewrite, tcp};

/// Answers a segment with a RST. A RST is never answered.
#[inline(always)]
pub fn answer<P: Packet>(packet: &mut P, h: &Headers, reason: Reason) -> Verdict {
    if h.flags & tcp::RST != 0 {
        return Verdict::drop(reason);
    }
    match reset(packet, h) {
        Some(()) => Verdict::transmit(reason),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

#[inline(always)]
fn reset<P: Packet>(packet: &mut P, h: &Headers) -> Option<()> {
    let partial = rewrite::partial_checksum(packet, h)?;
    let segment = packet.load::<12>(h.l4)?;
    let payload = h.ip_length - (h.l4 - h.l3) - h.l4_length;
    let length = payload as u32 + (h.flags & tcp::SYN != 0) as u32 + (h.flags & tcp::FIN != 0) as u32;
    let (sequence, acknowledgement, flags) = if h.flags & tcp::ACK != 0 {
        ([segment[8], segment[9], segment[10], segment[11]], [0; 4], tcp::RST)
    } else {
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        ([0; 4], sequence.wrapping_add(length).to_be_bytes(), tcp::RST | tcp::ACK)
    };
    packet.truncate(h.l4 + 20)?;

    let (s, d) = (
        h.tuple.destination_port.to_be_bytes(),
        h.tuple.source_port.to_be_bytes(),
    );
    let (q, a) = (sequence, acknowledgement);
    let head = [
        s[0], s[1], d[0], d[1], q[0], q[1], q[2], q[3], a[0], a[1], a[2], a[3], 0x50, flags, 0, 0, 0, 0, 0, 0,
    ];
    let pseudo = pseudo(&h.tuple.destination, &h.tuple.source, TCP, 20, h.tuple.v6);
    // Where the sender left the checksum to its card, the card still finishes it.
    let check = if partial {
        pseudo.fold().to_ne_bytes()
    } else {
        pseudo.words(&head).checksum()
    };
    packet.store(h.l4, head)?;
    packet.store(h.l4 + 16, check)?;
    ip_header(packet, h, 20)?;
    rewrite::swap_macs(packet)
}

/// Writes the IP header of an answer that carries `payload` bytes of TCP back to the sender.
#[inline(always)]
fn ip_header<P: Packet>(packet: &mut P, h: &Headers, payload: u16) -> Option<()> {
    let (source, destination) = (&h.tuple.destination, &h.tuple.source);
    if h.tuple.v6 {
        let n = payload.to_be_bytes();
        packet.store(h.l3, [0x60, 0, 0, 0, n[0], n[1], h.tuple.protocol, 64])?;
    } else {
        let n = (payload + 20).to_be_bytes();
        let mut head = [0x45, 0, n[0], n[1], 0, 0, 0x40, 0, 64, h.tuple.protocol, 0, 0];
        let sum = Diff::ZERO.address(source, false).address(destination, false);
        [head[10], head[11]] = sum.words(&head).checksum();
        packet.store(h.l3, head)?;
    }
    packet.store_addresses(h.l3, source, destination, h.tuple.v6)
}
