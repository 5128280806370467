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
    let l4 = if v6 {
        let n = udp_length.to_be_bytes();
        packet.store(ETHERNET, [0x60, 0, 0, 0, n[0], n[1], UDP, 64])?;
        packet.store_addresses(ETHERNET, &outer.source, &outer.destination, true)?;
        ETHERNET + 40
    } else {
        let total = udp_length.saturating_add(20).to_be_bytes();
        let sum = Diff::ZERO
            .address(&outer.source, false)
            .address(&outer.destination, false);
        let mut head = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, UDP, 0, 0];
        [head[10], head[11]] = sum.words(&head).checksum();
        packet.store(ETHERNET, head)?;
        packet.store_addresses(ETHERNET, &outer.source, &outer.destination, false)?;
        ETHERNET + 20
    };
    let (s, d, n) = (
        outer.source_port.to_be_bytes(),
        outer.port.to_be_bytes(),
        udp_length.to_be_bytes(),
    );
    // No UDP checksum: the inner packet has its own, and only our programs read this one (RFC 8926 3.3, RFC 6935).
    packet.store(l4, [s[0], s[1], d[0], d[1], n[0], n[1], 0, 0])?;
    let inner = (if inner_v6 { ethertype::IPV6 } else { ethertype::IPV4 }).to_be_bytes();
    let network = label.network.to_be_bytes();
    let class = CLASS.to_be_bytes();
    let port = label.port.to_be_bytes();
    // Version 0, length in words; critical option present; network identifier.
    packet.store(
        l4 + 8,
        [
            (OPTION / 4) as u8,
            0x40,
            inner[0],
            inner[1],
            network[1],
            network[2],
            network[3],
            0,
        ],
    )?;
    packet.store(l4 + 16, [class[0], class[1], KIND, ((OPTION - 4) / 4) as u8])?;
    packet.store(
        l4 + 20,
        [
            label.direction as u8,
            VERSION,
            port[0],
            port[1],
            network[0],
            network[1],
            network[2],
            network[3],
        ],
    )?;
    packet.store_words(l4 + 28, label.backend.words())
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
