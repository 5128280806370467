//! Bytes on the wire: headers, checksums, and the trait through which every executor gives access to a frame.

pub mod checksum;
pub mod icmp;
pub mod mss;
pub mod parse;
pub mod plain;
pub mod reach;
pub mod rewrite;
pub mod tunnel;

use checksum::Diff;

use crate::address::Address;

/// Length of an Ethernet header without a tag.
pub const ETHERNET: usize = 14;
/// Ethertypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IEEE 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// IEEE 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
}
/// IP protocol numbers beside TCP and UDP.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}
/// TCP flags.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 16;
}

/// Where the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// On the driver's ring, before the kernel has a packet buffer.
    Xdp,
    /// On tc, with a packet buffer: can resolve neighbours, deliver into namespaces, finish checksums.
    Tc,
}

/// A frame. Every access is bounded: `None` means that it would leave the frame or that the kernel refused.
pub trait Packet {
    /// The hook that the frame is on.
    const HOOK: Hook;
    /// Whether it may be a fragment: of everything else the pipeline is spared to ask.
    const FRAGMENTS: bool = false;

    /// Forgets what was learnt of the frame's bounds: the kernel's verifier would follow all that comes after once for each
    /// of the lengths that were asked for before.
    #[inline(always)]
    fn look_again(&mut self) {}

    /// Bytes from the first of the Ethernet header to the last.
    fn len(&self) -> usize;

    /// Whether the frame has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Payload bytes of each segment if the kernel carries several in one buffer, else 0.
    fn segment(&self) -> usize;

    /// Whether a VLAN tag travels beside the frame instead of in it (tc).
    fn tagged(&self) -> bool;

    /// `N` bytes at `offset`.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// `N` words at `offset`, as they lie there.
    fn load_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Overwrites `N` words at `offset`.
    fn store_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()>;

    /// Overwrites `N` bytes at `offset`.
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;

    /// Overwrites one byte that no checksum inside the packet makes up for (the IPv6 hop limit).
    fn store_uncovered(&mut self, offset: usize, byte: u8) -> Option<()>;

    /// Overwrites `N` words that no checksum inside the packet makes up for.
    fn store_uncovered_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()>;

    /// Updates the IPv4 header checksum at `offset`.
    fn update_l3_checksum(&mut self, offset: usize, diff: Diff) -> Option<()>;

    /// Updates the TCP, UDP or ICMP checksum at `offset`; `pseudo` is what changed in the pseudo-header, `rest` in the
    /// segment itself. A UDP checksum of zero stays; a UDP result of zero becomes 0xffff.
    fn update_l4_checksum(&mut self, offset: usize, pseudo: Diff, rest: Diff, udp: bool, v6: bool) -> Option<()>;

    /// Makes room for `size` bytes behind the Ethernet header, for an outer IP (`outer_v6` or not) and UDP header.
    fn insert(&mut self, size: usize, outer_v6: bool, tunnel: bool) -> Option<()>;

    /// Removes `size` bytes behind the Ethernet header; an inner IP packet (`inner_v6` or not) follows them.
    fn remove(&mut self, size: usize, inner_v6: bool) -> Option<()>;

    /// Removes the VLAN tag.
    fn remove_tag(&mut self) -> Option<()>;

    /// Cuts the frame to `len` bytes.
    fn truncate(&mut self, len: usize) -> Option<()>;

    /// The IPv6 address at `offset`.
    #[inline(always)]
    fn load_v6(&self, offset: usize) -> Option<Address> {
        self.load_words::<4>(offset).map(Address::from_words)
    }

    /// Writes source and destination into the IP header at `l3`.
    #[inline(always)]
    fn store_addresses(&mut self, l3: usize, source: &Address, destination: &Address, v6: bool) -> Option<()> {
        let (s, d) = (source.words(), destination.words());
        if v6 {
            self.store_words(l3 + 8, [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]])
        } else {
            self.store_words(l3 + 12, [s[3], d[3]])
        }
    }

    /// The 16-bit number at `offset`.
    #[inline(always)]
    fn load_u16(&self, offset: usize) -> Option<u16> {
        self.load::<2>(offset).map(u16::from_be_bytes)
    }
}
