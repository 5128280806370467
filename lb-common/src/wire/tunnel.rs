//! The tunnel's framing: UDP with a Geneve header (RFC 8926), one option of ours, and the IP packet as it came.

use super::checksum::Diff;
use super::{ETHERNET, Packet, ethertype};
use crate::abi::{Backend, UDP};
use crate::address::Address;
use crate::tuple::Tuple;
use crate::way::KeptWay;

/// Geneve header with our option.
const FRAMING: usize = 8 + OPTION;
const OPTION: usize = 28;
/// From the range for experiments (RFC 8926 7.1).
const CLASS: u16 = 0xffb1;
/// Critical: who does not know it must drop the packet.
const KIND: u8 = 0x81;
const VERSION: u8 = 1;

/// First word of the outer IPv4 header, without the length.
const VERSION_V4: u32 = 0x4500_0000;
/// Second word of the outer IPv4 header: no identification, not to be fragmented.
const DO_NOT_FRAGMENT: u32 = 0x4000;
/// Third word, without the checksum: a TTL of 64, and UDP.
const HOPS_UDP_V4: u32 = 64 << 24 | (UDP as u32) << 16;
/// Lower half of the second word of the outer IPv6 header: UDP, and a hop limit of 64.
const HOPS_UDP_V6: u32 = (UDP as u32) << 8 | 64;

/// Bytes that the tunnel adds to an IP packet.
pub const fn overhead(outer_v6: bool) -> usize {
    (if outer_v6 { 40 } else { 20 }) + 8 + FRAMING
}

/// Which way the packet inside goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Direction {
    /// From the entry node to the backend's.
    Forward = 1,
    /// From the backend's node to the entry node.
    Reply = 2,
}

/// What the option says. The frontend is the inner packet's own destination (forward) or source (reply).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label {
    /// Which way.
    pub direction: Direction,
    /// The backend's target port, host byte order.
    pub port: u16,
    /// The backend's network.
    pub network: u32,
    /// The backend's address.
    pub backend: Address,
}

impl Label {
    /// Whether it names this backend.
    #[inline(always)]
    pub fn names(&self, backend: &Backend) -> bool {
        self.backend == backend.address && self.port == backend.port && self.network == backend.network
    }
}

/// Addresses of the outer header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outer {
    /// This node.
    pub source: Address,
    /// The other node.
    pub destination: Address,
    /// Source port: spreads flows over the other node's queues.
    pub source_port: u16,
    /// The tunnel's port.
    pub port: u16,
}

/// Puts the IP packet of `length` bytes at [`ETHERNET`] into the tunnel; the MAC addresses are left to the caller.
#[inline(always)]
pub fn encapsulate<P: Packet>(
    packet: &mut P,
    inner_v6: bool,
    length: usize,
    outer: &Outer,
    label: &Label,
) -> Option<()> {
    let v6 = !outer.destination.is_v4();
    packet.insert(overhead(v6), v6, true)?;
    let udp_length = udp_length(length);
    let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    packet.store(12, kind.to_be_bytes())?;
    // All words of a header are written at once: each write asks for the frame's bounds anew.
    let l4 = if v6 {
        packet.store_words(ETHERNET, header_v6(udp_length, &outer.source, &outer.destination))?;
        ETHERNET + 40
    } else {
        let sum = constant_sum(&outer.source, &outer.destination);
        packet.store_words(ETHERNET, header_v4(udp_length, &outer.source, &outer.destination, sum))?;
        ETHERNET + 20
    };
    packet.store_words(l4, framing(udp_length, outer.source_port, outer.port, inner_v6, label))
}

/// Writes the headers of a way that is kept, Ethernet's among them, where room was made for them; otherwise as [`encapsulate`].
/// What goes into a header is read where it is written: before, it would have to be kept on the stack.
#[inline(always)]
pub fn write_headers<P: Packet, const V6: bool>(
    packet: &mut P,
    length: usize,
    way: &KeptWay,
    source_port: u16,
    label: impl FnOnce() -> Label,
) -> Option<()> {
    let udp_length = udp_length(length);
    let [a, b, c] = way.macs();
    let kind = if V6 { ethertype::IPV6 } else { ethertype::IPV4 };
    // The two bytes behind the type are the IP header's, which comes next.
    packet.store_words(0, [a, b, c, (u32::from(kind) << 16).to_be()])?;
    let (source, destination) = way.addresses();
    let l4 = if V6 {
        packet.store_words(ETHERNET, header_v6(udp_length, &source, &destination))?;
        ETHERNET + 40
    } else {
        packet.store_words(ETHERNET, header_v4(udp_length, &source, &destination, way.sum()))?;
        ETHERNET + 20
    };
    packet.store_words(l4, framing(udp_length, source_port, way.port(), V6, &label()))
}

/// Source port of the outer UDP header: spreads flows over the other node's queues.
#[inline(always)]
pub fn source_port(tuple: &Tuple) -> u16 {
    0xc000 | (tuple.hash() & 0x3fff) as u16
}

// Headers are words in the order of the network.

/// Length of UDP header and payload. Several segments in one buffer can exceed what the field holds; the kernel writes it anew
/// for each of them.
#[inline(always)]
const fn udp_length(length: usize) -> u16 {
    let length = length + 8 + FRAMING;
    if length > 0xffff { 0xffff } else { length as u16 }
}

/// Sum of the outer IPv4 header without its length, folded.
#[inline(always)]
pub const fn constant_sum(source: &Address, destination: &Address) -> u32 {
    Diff::ZERO
        .address(source, false)
        .address(destination, false)
        .add(VERSION_V4.to_be())
        .add(DO_NOT_FRAGMENT.to_be())
        .add(HOPS_UDP_V4.to_be())
        .fold() as u32
}

/// The outer IPv4 header; `sum`: [`constant_sum`] of the addresses.
#[inline(always)]
fn header_v4(udp_length: u16, source: &Address, destination: &Address, sum: u32) -> [u32; 5] {
    let total = udp_length.saturating_add(20);
    // Two numbers of 16 bits: one carry is all.
    let sum = sum + u32::from(total.to_be());
    let sum = (!((sum & 0xffff) + (sum >> 16)) as u16).to_ne_bytes();
    [
        (VERSION_V4 | u32::from(total)).to_be(),
        DO_NOT_FRAGMENT.to_be(),
        // The lower half is the checksum's.
        HOPS_UDP_V4.to_be() | u32::from_ne_bytes([0, 0, sum[0], sum[1]]),
        source.words()[3],
        destination.words()[3],
    ]
}

/// The outer IPv6 header.
#[inline(always)]
fn header_v6(udp_length: u16, source: &Address, destination: &Address) -> [u32; 10] {
    let (s, d) = (source.words(), destination.words());
    let next = (u32::from(udp_length) << 16 | HOPS_UDP_V6).to_be();
    [
        0x6000_0000_u32.to_be(),
        next,
        s[0],
        s[1],
        s[2],
        s[3],
        d[0],
        d[1],
        d[2],
        d[3],
    ]
}

/// UDP and Geneve headers, and the label.
#[inline(always)]
fn framing(udp_length: u16, source_port: u16, port: u16, inner_v6: bool, label: &Label) -> [u32; 11] {
    let inner = if inner_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    let backend = label.backend.words();
    [
        (u32::from(source_port) << 16 | u32::from(port)).to_be(),
        // No UDP checksum: the inner packet has its own, and only our programs read this one (RFC 8926 3.3, RFC 6935).
        (u32::from(udp_length) << 16).to_be(),
        // Version 0, length in words; critical option present; network identifier.
        (((OPTION / 4) as u32) << 24 | 0x40 << 16 | u32::from(inner)).to_be(),
        (label.network << 8).to_be(),
        (u32::from(CLASS) << 16 | u32::from(KIND) << 8 | ((OPTION - 4) / 4) as u32).to_be(),
        ((label.direction as u32) << 24 | u32::from(VERSION) << 16 | u32::from(label.port)).to_be(),
        label.network.to_be(),
        backend[0],
        backend[1],
        backend[2],
        backend[3],
    ]
}

/// Reads the framing behind the UDP header at `l4`: the label, and whether the inner packet is IPv6.
#[inline(always)]
pub fn label<P: Packet>(packet: &P, l4: usize) -> Option<(Label, bool)> {
    let h = packet.load::<20>(l4 + 8)?;
    let backend = packet.load_v6(l4 + 28)?;
    let inner_v6 = is_v6(u16::from_be_bytes([h[2], h[3]]))?;
    let expected = [
        CLASS.to_be_bytes()[0],
        CLASS.to_be_bytes()[1],
        KIND,
        ((OPTION - 4) / 4) as u8,
    ];
    if h[0] as usize != OPTION / 4 || [h[8], h[9], h[10], h[11]] != expected || h[13] != VERSION {
        return None;
    }
    let direction = match h[12] {
        1 => Direction::Forward,
        2 => Direction::Reply,
        _ => return None,
    };
    let network = u32::from_be_bytes([h[16], h[17], h[18], h[19]]);
    let label = Label {
        direction,
        port: u16::from_be_bytes([h[14], h[15]]),
        network,
        backend,
    };
    Some((label, inner_v6))
}

/// Whether the packet inside is IPv6, by the framing behind the UDP header at `l4`, of which nothing else is read.
#[inline(always)]
pub fn inner_v6<P: Packet>(packet: &P, l4: usize) -> Option<bool> {
    is_v6(packet.load_u16(l4 + 10)?)
}

/// Whether the framing's protocol type is IPv6's; `None`: the packet inside is no IP packet.
#[inline(always)]
const fn is_v6(kind: u16) -> Option<bool> {
    match kind {
        ethertype::IPV4 => Some(false),
        ethertype::IPV6 => Some(true),
        _ => None,
    }
}

/// Offset of the inner packet, given that of the outer UDP header.
#[inline(always)]
pub const fn inner(l4: usize) -> usize {
    l4 + 8 + FRAMING
}
