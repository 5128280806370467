//! From bytes to [`Headers`], or to the reason why the balancer leaves the frame alone.

use super::{ETHERNET, Packet, ethertype, protocol};
use crate::abi::{TCP, UDP};
use crate::address::Address;
use crate::tuple::Tuple;
use crate::verdict::Reason;

/// What the pipeline needs of a packet's headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the TCP, UDP or ICMP header.
    pub l4: usize,
    /// TCP flags; the type of an ICMP message.
    pub flags: u8,
    /// Length of the TCP header with options; 8 for UDP and ICMP; 0: a later fragment, which has none of them.
    pub l4_length: usize,
    /// Of a first fragment: how many of its datagram came before it and could not be given to anybody.
    pub early: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet, header included.
    pub ip_length: usize,
    /// Carries a VLAN tag.
    pub tagged: bool,
    /// Addresses, ports and protocol; ports are 0 for ICMP. The network is the caller's to set.
    pub tuple: Tuple,
}

impl Headers {
    /// Offset of the TCP, UDP or ICMP checksum.
    #[inline(always)]
    pub fn checksum_offset(&self) -> usize {
        self.l4
            + match self.tuple.protocol {
                TCP => 16,
                UDP => 6,
                _ => 2,
            }
    }

    /// Whether it is a fragment beyond the first: addresses and protocol are all that it tells.
    #[inline(always)]
    pub fn is_later<P: Packet>(&self) -> bool {
        P::FRAGMENTS && self.l4_length == 0
    }

    /// Length of the largest IP packet that is sent of it; `segment`: bytes of each segment, if the kernel carries several in one
    /// buffer, else 0.
    #[inline(always)]
    pub fn sent_length(&self, segment: usize) -> usize {
        match segment {
            0 => self.ip_length,
            _ => self.l4 - self.l3 + self.l4_length + segment,
        }
    }

    /// TCP or UDP.
    #[inline(always)]
    pub fn balanced(&self) -> bool {
        self.tuple.protocol == TCP || self.tuple.protocol == UDP
    }

    /// Ethertype of the packet.
    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        if self.tuple.v6 {
            ethertype::IPV6
        } else {
            ethertype::IPV4
        }
    }
}

/// Ethertype behind at most one VLAN tag, in the frame or beside it, the offset of what follows, and whether there is a tag.
#[inline(always)]
pub fn ethernet<P: Packet>(packet: &P) -> Option<(u16, usize, bool)> {
    let kind = packet.load_u16(12)?;
    if (kind == ethertype::VLAN || kind == ethertype::QINQ) && !packet.tagged() {
        return Some((packet.load_u16(16)?, ETHERNET + 4, true));
    }
    Some((kind, ETHERNET, packet.tagged()))
}

/// Reads the headers of a frame into `headers`. The reason says why the balancer has no use for it.
#[inline(always)]
pub fn frame<P: Packet>(packet: &P, headers: &mut Headers) -> Option<Reason> {
    let Some((kind, l3, tagged)) = ethernet(packet) else {
        return Some(Reason::PassMalformed);
    };
    let v6 = match kind {
        ethertype::IPV4 => false,
        ethertype::IPV6 => true,
        _ => return Some(Reason::PassProtocol),
    };
    let reason = ip(packet, l3, v6, headers);
    headers.tagged = tagged;
    reason
}

/// Reads the IP packet at `l3` into `headers`.
///
/// A function of its own in the object: its many values would fill the stack of its callers.
#[inline(never)]
pub fn ip<P: Packet>(packet: &P, l3: usize, v6: bool, headers: &mut Headers) -> Option<Reason> {
    let reason = if v6 {
        ipv6(packet, l3, headers)
    } else {
        ipv4(packet, l3, headers)
    };
    match reason {
        None if !headers.tuple.source.may_send(v6) => Some(Reason::PassMalformed),
        reason => reason,
    }
}

// What is read goes to its place at once: returned, it would share memory with the reason why there is none, and the compiler
// would take it apart byte by byte.

/// Reads an IPv4 header (RFC 791) at `l3` and what follows it.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, l3: usize, headers: &mut Headers) -> Option<Reason> {
    let (Some(h), Some([source, destination])) = (packet.load::<12>(l3), packet.load_words::<2>(l3 + 12)) else {
        return Some(Reason::PassMalformed);
    };
    if h[0] >> 4 != 4 || h[0] & 15 < 5 {
        return Some(Reason::PassMalformed);
    }
    if h[0] & 15 > 5 {
        return Some(Reason::PassOptions);
    }
    let ip_length = u16::from_be_bytes([h[2], h[3]]) as usize;
    if ip_length < 20 || l3 + ip_length > packet.len() {
        return Some(Reason::PassMalformed);
    }
    // More fragments, or an offset.
    let fragment = u16::from_be_bytes([h[6], h[7]]);
    if !P::FRAGMENTS && fragment & 0x3fff != 0 {
        return Some(Reason::PassFragment);
    }
    headers.l3 = l3;
    headers.l4 = l3 + 20;
    headers.ttl = h[8];
    headers.ip_length = ip_length;
    headers.tagged = false;
    headers.tuple.v6 = false;
    headers.tuple.source = Address::v4_word(source);
    headers.tuple.destination = Address::v4_word(destination);
    headers.tuple.protocol = h[9];
    headers.tuple.network = 0;
    if P::FRAGMENTS && fragment & 0x1fff != 0 {
        return later(headers);
    }
    transport(packet, l3 + 20, h[9], headers, ip_length - 20, protocol::ICMP)
}

/// Reads an IPv6 header (RFC 8200) at `l3` and what follows it.
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, l3: usize, headers: &mut Headers) -> Option<Reason> {
    let Some(h) = packet.load::<8>(l3) else {
        return Some(Reason::PassMalformed);
    };
    let (Some(source), Some(destination)) = (packet.load_v6(l3 + 8), packet.load_v6(l3 + 24)) else {
        return Some(Reason::PassMalformed);
    };
    if h[0] >> 4 != 6 {
        return Some(Reason::PassMalformed);
    }
    let payload = u16::from_be_bytes([h[4], h[5]]) as usize;
    if l3 + 40 + payload > packet.len() {
        return Some(Reason::PassMalformed);
    }
    let (mut next, mut header, mut offset) = (h[6], 40, 0);
    if P::FRAGMENTS && next == FRAGMENT {
        let Some(fragment) = packet.load::<4>(l3 + 40) else {
            return Some(Reason::PassMalformed);
        };
        if payload < 8 {
            return Some(Reason::PassMalformed);
        }
        (next, header) = (fragment[0], 48);
        offset = u16::from_be_bytes([fragment[2], fragment[3]]) >> 3;
    }
    match next {
        // Hop-by-hop, routing, authentication, destination options, mobility.
        0 | 43 | 51 | 60 | 135 => return Some(Reason::PassOptions),
        FRAGMENT => return Some(Reason::PassFragment),
        _ => {}
    }
    headers.l3 = l3;
    headers.l4 = l3 + header;
    headers.ttl = h[7];
    headers.ip_length = payload + 40;
    headers.tagged = false;
    headers.tuple.v6 = true;
    headers.tuple.source = source;
    headers.tuple.destination = destination;
    headers.tuple.protocol = next;
    headers.tuple.network = 0;
    if P::FRAGMENTS && offset != 0 {
        return later(headers);
    }
    transport(
        packet,
        l3 + header,
        next,
        headers,
        payload + 40 - header,
        protocol::ICMPV6,
    )
}

/// Next header number of the fragment header (RFC 8200 4.5).
const FRAGMENT: u8 = 44;

/// Without a TCP or UDP header.
#[inline(always)]
fn later(headers: &mut Headers) -> Option<Reason> {
    headers.flags = 0;
    headers.l4_length = 0;
    headers.tuple.source_port = 0;
    headers.tuple.destination_port = 0;
    None
}

/// `offset`: where the header is; `protocol`: of it.
#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    offset: usize,
    protocol: u8,
    headers: &mut Headers,
    length: usize,
    icmp: u8,
) -> Option<Reason> {
    if protocol == TCP {
        let Some(h) = packet.load::<14>(offset) else {
            return Some(Reason::PassMalformed);
        };
        let l4_length = ((h[12] >> 4) as usize) * 4;
        if l4_length < 20 || l4_length > length {
            return Some(Reason::PassMalformed);
        }
        headers.l4_length = l4_length;
        headers.flags = h[13];
        headers.tuple.source_port = u16::from_be_bytes([h[0], h[1]]);
        headers.tuple.destination_port = u16::from_be_bytes([h[2], h[3]]);
        return None;
    }
    headers.l4_length = 8;
    if protocol == UDP {
        let Some(h) = packet.load::<6>(offset) else {
            return Some(Reason::PassMalformed);
        };
        let udp = u16::from_be_bytes([h[4], h[5]]) as usize;
        // A first fragment holds but the beginning.
        if length < 8 || udp < 8 || udp > length && !P::FRAGMENTS {
            return Some(Reason::PassMalformed);
        }
        headers.flags = 0;
        headers.tuple.source_port = u16::from_be_bytes([h[0], h[1]]);
        headers.tuple.destination_port = u16::from_be_bytes([h[2], h[3]]);
        None
    } else if protocol == icmp {
        let Some(h) = packet.load::<1>(offset) else {
            return Some(Reason::PassMalformed);
        };
        if length < 8 {
            return Some(Reason::PassMalformed);
        }
        headers.flags = h[0];
        headers.tuple.source_port = 0;
        headers.tuple.destination_port = 0;
        None
    } else {
        Some(Reason::PassProtocol)
    }
}
