//! ICMP and ICMPv6 errors, and the packet that each of them quotes (RFC 792, RFC 1191, RFC 4443, RFC 4884).

use super::checksum::{Diff, pseudo};
use super::parse::Headers;
use super::rewrite::Translation;
use super::{Packet, protocol};
use crate::abi::{TCP, UDP};
use crate::address::Address;
use crate::tuple::Tuple;

/// Length of an error before its quote.
const HEADER: usize = 8;

/// What an error says of the packet that it is about, as far as that is quoted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quote {
    /// Who spoke to whom. The network is the caller's to set.
    pub tuple: Tuple,
    /// Offset of the checksum from the TCP or UDP header; 0: it is not quoted.
    checksum: usize,
}

/// Whether it is an error that tells a sender what became of its packet: destination unreachable (fragmentation needed among
/// them), packet too big, time exceeded, parameter problem. Not a redirect.
#[inline(always)]
pub fn is_error(h: &Headers) -> bool {
    match h.tuple.protocol {
        protocol::ICMP => matches!(h.flags, 3 | 11 | 12),
        protocol::ICMPV6 => matches!(h.flags, 1..=4),
        _ => false,
    }
}

/// What the next link takes, if an error says that a packet was too big for it.
#[inline(always)]
pub fn next_mtu<P: Packet>(packet: &P, h: &Headers) -> Option<u32> {
    let head = packet.load::<8>(h.l4)?;
    match (h.tuple.v6, head[0], head[1]) {
        (false, 3, 4) => Some(u16::from_be_bytes([head[6], head[7]]).into()),
        (true, 2, _) => Some(u32::from_be_bytes([head[4], head[5], head[6], head[7]])),
        _ => None,
    }
}

/// Offset of the quoted packet's TCP or UDP header.
#[inline(always)]
fn quoted_l4(h: &Headers) -> usize {
    h.l4 + HEADER + if h.tuple.v6 { 40 } else { 20 }
}

/// Reads what an error quotes, and says whether it is TCP or UDP in order, with its ports. An error goes to whom sent the
/// packet: one that goes elsewhere is none.
#[inline(never)]
pub fn quote<P: Packet>(packet: &P, h: &Headers, quote: &mut Quote) -> bool {
    match read(packet, h) {
        Some(found) => {
            *quote = found;
            found.tuple.source == h.tuple.destination
        }
        None => false,
    }
}

#[inline(always)]
fn read<P: Packet>(packet: &P, h: &Headers) -> Option<Quote> {
    let l3 = h.l4 + HEADER;
    let l4 = quoted_l4(h);
    let end = h.l3 + h.ip_length;
    // Eight bytes of TCP or UDP are the least that routers quote (RFC 792).
    if l4 + 8 > end {
        return None;
    }
    let (protocol, source, destination) = if h.tuple.v6 {
        let head = packet.load::<8>(l3)?;
        if head[0] >> 4 != 6 {
            return None;
        }
        (head[6], packet.load_v6(l3 + 8)?, packet.load_v6(l3 + 24)?)
    } else {
        let head = packet.load::<10>(l3)?;
        // No options, and not a later fragment.
        if head[0] != 0x45 || u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0 {
            return None;
        }
        let [source, destination] = packet.load_words::<2>(l3 + 12)?;
        (head[9], Address::v4_word(source), Address::v4_word(destination))
    };
    let checksum = match protocol {
        TCP if l4 + 18 <= end => 16,
        TCP => 0,
        UDP => 6,
        _ => return None,
    };
    let ports = packet.load::<4>(l4)?;
    Some(Quote {
        tuple: Tuple {
            v6: h.tuple.v6,
            source,
            destination,
            source_port: u16::from_be_bytes([ports[0], ports[1]]),
            destination_port: u16::from_be_bytes([ports[2], ports[3]]),
            protocol,
            network: 0,
        },
        checksum,
    })
}

/// Gives the quoted packet other addresses and ports. The error goes to the quote's source, wherever that is now; and if it
/// comes from the quote's destination, it goes on doing so.
#[inline(never)]
pub fn translate<P: Packet>(packet: &mut P, h: &mut Headers, quote: &mut Quote, to: &Translation) -> Option<()> {
    let inside = change_quote(packet, h, quote, to)?;
    let source = if h.tuple.source == quote.tuple.destination {
        to.destination
    } else {
        h.tuple.source
    };
    let around = Diff::ZERO
        .change_address(&h.tuple.source, &source, h.tuple.v6)
        .change_address(&h.tuple.destination, &to.source, h.tuple.v6);
    packet.store_addresses(h.l3, &source, &to.source, h.tuple.v6)?;
    let checksum = h.checksum_offset();
    if h.tuple.v6 {
        packet.update_l4_checksum(checksum, around, inside, false, true)?;
    } else {
        // Of ICMP the addresses are no part.
        packet.update_l3_checksum(h.l3 + 10, around)?;
        packet.update_l4_checksum(checksum, Diff::ZERO, inside, false, false)?;
    }
    h.tuple.source = source;
    h.tuple.destination = to.source;
    quote.tuple.source = to.source;
    quote.tuple.destination = to.destination;
    quote.tuple.source_port = to.source_port;
    quote.tuple.destination_port = to.destination_port;
    Some(())
}

/// Rewrites the quoted packet, its checksums included: what that changes in the sum of the error.
#[inline(always)]
fn change_quote<P: Packet>(packet: &mut P, h: &Headers, quote: &Quote, to: &Translation) -> Option<Diff> {
    let (l3, l4, v6) = (h.l4 + HEADER, quoted_l4(h), h.tuple.v6);
    let from = &quote.tuple;
    let addresses =
        Diff::ZERO
            .change_address(&from.source, &to.source, v6)
            .change_address(&from.destination, &to.destination, v6);
    let ports = Diff::ZERO
        .change_port(from.source_port, to.source_port)
        .change_port(from.destination_port, to.destination_port);
    let mut all = addresses.join(ports);
    packet.store_addresses(l3, &to.source, &to.destination, v6)?;
    let (s, d) = (to.source_port.to_be_bytes(), to.destination_port.to_be_bytes());
    packet.store(l4, [s[0], s[1], d[0], d[1]])?;
    if !v6 {
        let old = packet.load::<2>(l3 + 10)?;
        let new = addresses.apply(old);
        packet.store(l3 + 10, new)?;
        all = all.change2(old, new);
    }
    if quote.checksum != 0 {
        let udp = from.protocol == UDP;
        let old = packet.load::<2>(l4 + quote.checksum)?;
        // UDP without a checksum goes on without one.
        if !udp || old != [0, 0] {
            let sum = addresses.join(ports).apply(old);
            let new = if udp && sum == [0, 0] { [0xff, 0xff] } else { sum };
            packet.store(l4 + quote.checksum, new)?;
            all = all.change2(old, new);
        }
    }
    Some(all)
}

/// Cuts an error's quote to what every sender needs to know its packet again: the IP header and eight bytes of UDP, or TCP's
/// fixed header.
#[inline(never)]
pub fn shorten<P: Packet>(packet: &mut P, h: &mut Headers, quote: &Quote) -> Option<()> {
    match (h.tuple.v6, quote.tuple.protocol == TCP) {
        (false, false) => cut::<P, 28>(packet, h),
        (false, true) => cut::<P, 40>(packet, h),
        (true, false) => cut::<P, 48>(packet, h),
        (true, true) => cut::<P, 60>(packet, h),
    }
}

#[inline(always)]
fn cut<P: Packet, const QUOTE: usize>(packet: &mut P, h: &mut Headers) -> Option<()> {
    let length = (HEADER + QUOTE) as u16;
    packet.truncate(h.l4 + length as usize)?;
    let mut head = packet.load::<8>(h.l4)?;
    let quote = packet.load::<QUOTE>(h.l4 + HEADER)?;
    [head[2], head[3]] = [0, 0];
    // Where the quote's own length was told, extensions followed it; they are gone (RFC 4884 4).
    let v6 = h.tuple.v6;
    if !v6 {
        head[5] = 0;
    } else if matches!(h.flags, 1 | 3) {
        head[4] = 0;
    }
    let sum = if v6 {
        pseudo(&h.tuple.source, &h.tuple.destination, protocol::ICMPV6, length, true)
    } else {
        Diff::ZERO
    };
    [head[2], head[3]] = sum.words(&head).words(&quote).checksum();
    packet.store(h.l4, head)?;
    if v6 {
        packet.store(h.l3 + 4, length.to_be_bytes())?;
        h.ip_length = 40 + length as usize;
    } else {
        let old = packet.load::<2>(h.l3 + 2)?;
        let new = (20 + length).to_be_bytes();
        packet.store(h.l3 + 2, new)?;
        packet.update_l3_checksum(h.l3 + 10, Diff::ZERO.change2(old, new))?;
        h.ip_length = 20 + length as usize;
    }
    Some(())
}
