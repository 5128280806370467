//! The tunnel's framing: UDP with a Geneve header (RFC 8926), one option of ours, and the IP packet as it came.

use super::checksum::Diff;
use super::{ETHERNET, Packet, ethertype};
use crate::abi::{Backend, UDP};
use crate::address::Address;

/// Geneve header with our option.
const FRAMING: usize = 8 + OPTION;
const OPTION: usize = 28;
/// From the range for experiments (RFC 8926 7.1).
const CLASS: u16 = 0xffb1;
/// Critical: who does not know it must drop the packet.
const KIND: u8 = 0x81;
const VERSION: u8 = 1;

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
    // Several segments in one buffer can exceed what the field holds; the kernel writes it anew for each of them.
    let udp_length = if length + 8 + FRAMING > 0xffff {
        0xffff
    } else {
        (length + 8 + FRAMING) as u16
    };
    let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    packet.store(12, kind.to_be_bytes())?;
    // Words in the order of the network, all of them written at once: each write asks for the frame's bounds anew.
    let (s, d) = (outer.source.words(), outer.destination.words());
    let l4 = if v6 {
        let [first, next] = [
            0x6000_0000_u32.to_be(),
            (u32::from(udp_length) << 16 | HOPS_UDP_V6).to_be(),
        ];
        packet.store_words(ETHERNET, [first, next, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]])?;
        ETHERNET + 40
    } else {
        let total = udp_length.saturating_add(20);
        let first = (0x4500_0000 | u32::from(total)).to_be();
        let [middle, last] = [DO_NOT_FRAGMENT.to_be(), HOPS_UDP_V4.to_be()];
        let sum = Diff::ZERO
            .add(s[3])
            .add(d[3])
            .add(first)
            .add(middle)
            .add(last)
            .checksum();
        // The lower half of the last word is the checksum's.
        let last = last | u32::from_ne_bytes([0, 0, sum[0], sum[1]]);
        packet.store_words(ETHERNET, [first, middle, last, s[3], d[3]])?;
        ETHERNET + 20
    };
    let inner = if inner_v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    let backend = label.backend.words();
    packet.store_words(
        l4,
        [
            (u32::from(outer.source_port) << 16 | u32::from(outer.port)).to_be(),
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
        ],
    )
}

/// Reads the framing behind the UDP header at `l4`: the label, and whether the inner packet is IPv6.
#[inline(always)]
pub fn label<P: Packet>(packet: &P, l4: usize) -> Option<(Label, bool)> {
    let h = packet.load::<20>(l4 + 8)?;
    let backend = packet.load_v6(l4 + 28)?;
    let inner_v6 = match u16::from_be_bytes([h[2], h[3]]) {
        ethertype::IPV4 => false,
        ethertype::IPV6 => true,
        _ => return None,
    };
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

/// Offset of the inner packet, given that of the outer UDP header.
#[inline(always)]
pub const fn inner(l4: usize) -> usize {
    l4 + 8 + FRAMING
}
