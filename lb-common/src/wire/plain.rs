//! The plainest packets, as nearly all are: TCP or UDP behind an IP header without options or extensions, behind an Ethernet header
//! without a tag. A few words say all about them; what [`super::parse`] says of the same packet is the same.

use super::parse::Headers;
use super::{ETHERNET, Packet, tcp};
use crate::abi::{TCP, UDP};
use crate::address::Address;

/// Length of the IP header.
const fn header(v6: bool) -> usize {
    if v6 { 40 } else { 20 }
}

/// Where the IP header ends.
pub const fn end(v6: bool) -> usize {
    ETHERNET + header(v6)
}

/// Protocol and ports, source and destination, where a plain packet of the family has them.
#[inline(always)]
pub fn ports<P: Packet, const V6: bool>(packet: &P) -> Option<(u8, u16, u16)> {
    let (protocol, ports) = if V6 {
        let [next] = packet.load::<1>(ETHERNET + 6)?;
        let [ports] = packet.load_words::<1>(end(V6))?;
        (next, u32::from_be(ports))
    } else {
        let h = packet.load_words::<6>(ETHERNET)?;
        ((u32::from_be(h[2]) >> 16) as u8, u32::from_be(h[5]))
    };
    Some((protocol, (ports >> 16) as u16, ports as u16))
}

/// Reads a plain packet of the family into `headers`. Returns the field of its checksum.
#[inline(always)]
pub fn read<P: Packet, const V6: bool>(packet: &P, headers: &mut Headers) -> Option<[u8; 2]> {
    let (length, protocol) = if V6 {
        ipv6(packet, headers)?
    } else {
        ipv4(packet, headers)?
    };
    headers.l3 = ETHERNET;
    headers.l4 = end(V6);
    headers.ip_length = length;
    headers.tagged = false;
    headers.tuple.v6 = V6;
    headers.tuple.protocol = protocol;
    headers.tuple.network = 0;
    if ETHERNET + length > packet.len() || !headers.tuple.source.may_send(V6) {
        return None;
    }
    transport::<P, V6>(packet, headers)
}

/// Whether it begins or ends nothing: of TCP no SYN, FIN or RST.
#[inline(always)]
pub const fn goes_on(headers: &Headers) -> bool {
    headers.flags & (tcp::SYN | tcp::FIN | tcp::RST) == 0
}

/// Length of the packet, and its protocol. No branch for each word: there is one answer to all that is unusual.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, headers: &mut Headers) -> Option<(usize, u8)> {
    let h = packet.load_words::<5>(ETHERNET)?;
    // Version and header length; more fragments, and an offset.
    let first = u32::from_be(h[0]);
    if first >> 24 != 0x45 || h[1] & 0x3fff_u32.to_be() != 0 {
        return None;
    }
    let third = u32::from_be(h[2]);
    headers.ttl = (third >> 24) as u8;
    headers.tuple.source = Address::v4_word(h[3]);
    headers.tuple.destination = Address::v4_word(h[4]);
    Some(((first & 0xffff) as usize, (third >> 16) as u8))
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, headers: &mut Headers) -> Option<(usize, u8)> {
    let h = packet.load_words::<10>(ETHERNET)?;
    if h[0] & 0xf000_0000_u32.to_be() != 0x6000_0000_u32.to_be() {
        return None;
    }
    let second = u32::from_be(h[1]);
    headers.ttl = second as u8;
    headers.tuple.source = Address::from_words([h[2], h[3], h[4], h[5]]);
    headers.tuple.destination = Address::from_words([h[6], h[7], h[8], h[9]]);
    Some(((second >> 16) as usize + header(true), (second >> 8) as u8))
}

#[inline(always)]
fn transport<P: Packet, const V6: bool>(packet: &P, headers: &mut Headers) -> Option<[u8; 2]> {
    let l4 = end(V6);
    let room = headers.ip_length;
    let [ports, second] = packet.load_words::<2>(l4)?;
    let ports = u32::from_be(ports);
    headers.tuple.source_port = (ports >> 16) as u16;
    headers.tuple.destination_port = ports as u16;
    match headers.tuple.protocol {
        TCP => {
            let [fourth, fifth] = packet.load_words::<2>(l4 + 12)?;
            let fourth = u32::from_be(fourth);
            headers.l4_length = (fourth >> 28) as usize * 4;
            headers.flags = (fourth >> 16) as u8;
            if headers.l4_length < 20 || header(V6) + headers.l4_length > room {
                return None;
            }
            let [a, b, ..] = fifth.to_ne_bytes();
            Some([a, b])
        }
        UDP => {
            let [.., a, b] = second.to_ne_bytes();
            let length = (u32::from_be(second) >> 16) as usize;
            headers.l4_length = 8;
            headers.flags = 0;
            if length < 8 || header(V6) + length > room {
                return None;
            }
            Some([a, b])
        }
        _ => None,
    }
}
