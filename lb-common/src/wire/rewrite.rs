//! Changes of addresses, ports, TTL and Ethernet header, with their checksums.

use super::checksum::{Diff, pseudo};
use super::parse::Headers;
use super::{ETHERNET, Packet, plain};
use crate::abi::{Reply, UDP};
use crate::address::Address;
use crate::tuple::Tuple;

/// Source and destination as they shall be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Translation {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
}

impl Translation {
    /// A tuple's own source and destination.
    #[inline(always)]
    pub fn of(tuple: &Tuple) -> Self {
        Self {
            source: tuple.source,
            destination: tuple.destination,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
        }
    }

    /// Source and destination of a backend's packet as the client knows them.
    #[inline(always)]
    pub fn back(reply: &Reply) -> Self {
        Self {
            source: reply.frontend,
            destination: reply.client,
            source_port: reply.frontend_port,
            destination_port: reply.client_port,
        }
    }
}

/// Rewrites addresses and ports, and keeps `h` in step.
///
/// A function of its own in the object: inlined at each of its callers it would overflow their stack.
#[inline(never)]
pub fn translate<P: Packet>(packet: &mut P, h: &mut Headers, to: &Translation) -> Option<()> {
    let addresses = Diff::ZERO
        .change_address(&h.tuple.source, &to.source, h.tuple.v6)
        .change_address(&h.tuple.destination, &to.destination, h.tuple.v6);
    if h.is_later::<P>() {
        readdress(packet, h, to, addresses)?;
        keep(h, to);
        return Some(());
    }
    let ports = Diff::ZERO
        .change_port(h.tuple.source_port, to.source_port)
        .change_port(h.tuple.destination_port, to.destination_port);
    packet.store_addresses(h.l3, &to.source, &to.destination, h.tuple.v6)?;
    let (s, d) = (to.source_port.to_be_bytes(), to.destination_port.to_be_bytes());
    packet.store(h.l4, [s[0], s[1], d[0], d[1]])?;
    if !h.tuple.v6 {
        packet.update_l3_checksum(h.l3 + 10, addresses)?;
    }
    packet.update_l4_checksum(
        h.checksum_offset(),
        addresses,
        ports,
        h.tuple.protocol == UDP,
        h.tuple.v6,
    )?;
    keep(h, to);
    Some(())
}

#[inline(always)]
fn keep(h: &mut Headers, to: &Translation) {
    h.tuple.source = to.source;
    h.tuple.destination = to.destination;
    h.tuple.source_port = to.source_port;
    h.tuple.destination_port = to.destination_port;
}

/// Rewrites the addresses of a later fragment: the checksum that they are part of is in the first.
#[inline(always)]
fn readdress<P: Packet>(packet: &mut P, h: &Headers, to: &Translation, addresses: Diff) -> Option<()> {
    if h.tuple.v6 {
        let (s, d) = (to.source.words(), to.destination.words());
        return packet.store_uncovered_words(h.l3 + 8, [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]]);
    }
    packet.store_addresses(h.l3, &to.source, &to.destination, false)?;
    packet.update_l3_checksum(h.l3 + 10, addresses)
}

/// Leads a plain packet ([`super::plain`]) to another destination, one hop on; what `h` says is its old one. The checksum last: on
/// tc the kernel does it, and what was read of the packet before may not be used behind that.
#[inline(always)]
pub fn lead<P: Packet, const V6: bool>(
    packet: &mut P,
    h: &Headers,
    destination: &Address,
    source_port: u16,
    destination_port: u16,
) -> Option<()> {
    let (l3, l4) = (ETHERNET, plain::end(V6));
    let address = Diff::ZERO.change_address(&h.tuple.destination, destination, V6);
    let ports = Diff::ZERO
        .change_port(h.tuple.source_port, source_port)
        .change_port(h.tuple.destination_port, destination_port);
    let words = destination.words();
    if V6 {
        packet.store_words(l3 + 24, words)?;
    } else {
        packet.store_words(l3 + 16, [words[3]])?;
    }
    packet.store_words(
        l4,
        [(u32::from(source_port) << 16 | u32::from(destination_port)).to_be()],
    )?;
    if V6 {
        lower_ttl(packet, l3, h.ttl, true)?;
    } else {
        // Both changes of the checksum at once: who reads again what was only just written in part waits for it.
        let [_, protocol, sum @ ..] = packet.load::<4>(l3 + 8)?;
        let ttl = h.ttl.wrapping_sub(1);
        let sum = address.change2([h.ttl, protocol], [ttl, protocol]).apply(sum);
        packet.store(l3 + 8, [ttl, protocol, sum[0], sum[1]])?;
    }
    let udp = h.tuple.protocol == UDP;
    packet.update_l4_checksum(l4 + if udp { 6 } else { 16 }, address, ports, udp, V6)
}

/// Takes one off the TTL or hop limit; the caller has checked that more than one is left.
#[inline(always)]
pub fn decrement_ttl<P: Packet>(packet: &mut P, h: &mut Headers) -> Option<()> {
    lower_ttl(packet, h.l3, h.ttl, h.tuple.v6)?;
    h.ttl = h.ttl.wrapping_sub(1);
    Some(())
}

/// Takes one off the TTL or hop limit `ttl` of the IP header at `l3`.
#[inline(always)]
pub fn lower_ttl<P: Packet>(packet: &mut P, l3: usize, ttl: u8, v6: bool) -> Option<()> {
    let ttl = ttl.wrapping_sub(1);
    if v6 {
        return packet.store_uncovered(l3 + 7, ttl);
    }
    // The next byte is the protocol, then comes the checksum: what it is one less of it has one more of (RFC 1141).
    let [_, protocol, sum @ ..] = packet.load::<4>(l3 + 8)?;
    let sum = u32::from(u16::from_ne_bytes(sum)) + u32::from(u16::from_ne_bytes([1, 0]));
    let sum = ((sum + u32::from(sum >= 0xffff)) as u16).to_ne_bytes();
    packet.store(l3 + 8, [ttl, protocol, sum[0], sum[1]])
}

/// Writes both MAC addresses.
#[inline(always)]
pub fn set_macs<P: Packet>(packet: &mut P, destination: [u8; 6], source: [u8; 6]) -> Option<()> {
    packet.store(0, destination)?;
    packet.store(6, source)
}

/// Exchanges the MAC addresses, so that the frame goes back where it came from.
#[inline(always)]
pub fn swap_macs<P: Packet>(packet: &mut P) -> Option<()> {
    let destination = packet.load::<6>(0)?;
    let source = packet.load::<6>(6)?;
    set_macs(packet, source, destination)
}

/// Removes a VLAN tag, and keeps `h` in step.
#[inline(always)]
pub fn untag<P: Packet>(packet: &mut P, h: &mut Headers) -> Option<()> {
    if h.tagged {
        packet.remove_tag()?;
        h.l4 = h.l4 - h.l3 + ETHERNET;
        h.l3 = ETHERNET;
        h.tagged = false;
    }
    Some(())
}

/// Whether the checksum field holds only the sum of the pseudo-header, as a sender leaves it to its network card.
///
/// A finished checksum looks like this once in 65,536 packets; those take the slower path, nothing else.
#[inline(always)]
pub fn partial_checksum<P: Packet>(packet: &P, h: &Headers) -> Option<bool> {
    packet.load::<2>(h.checksum_offset()).map(|field| is_partial(h, field))
}

/// As [`partial_checksum`], given the field.
#[inline(always)]
pub fn is_partial(h: &Headers, field: [u8; 2]) -> bool {
    let length = (h.ip_length - (h.l4 - h.l3)) as u16;
    let sum = pseudo(
        &h.tuple.source,
        &h.tuple.destination,
        h.tuple.protocol,
        length,
        h.tuple.v6,
    );
    u16::from_ne_bytes(field) == sum.fold()
}
