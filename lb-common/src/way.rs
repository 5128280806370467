//! Ways to other nodes that each CPU keeps for a moment, with what is the same in every packet's outer headers: to work one out
//! costs more than to look for the packet's flow.
//!
//! Only those of packets whose family is the tunnel's are kept, and only where routes are ([`crate::route`]).

use crate::address::Address;
use crate::route::FRESH;
use crate::tables::{NextHop, Route};
use crate::tuple::Tuple;
use crate::wire::tunnel::{self, Outer};

/// Places of a CPU, `log2`.
pub const PLACES_SHIFT: u32 = 8;

/// Where the way to a node is kept: nodes have consecutive ids.
#[inline(always)]
pub const fn place(node: u32) -> u32 {
    node & ((1 << PLACES_SHIFT) - 1)
}

/// A way to another node. Zeros: nothing is kept here.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KeptWay {
    source: [u32; 4],
    destination: [u32; 4],
    node: u32,
    /// Interface that the packet is on, in the node's own namespace.
    incoming: u32,
    /// Tick at which the kernel was asked for the route.
    asked: u32,
    /// 1: both headers are IPv6's.
    v6: u32,
    ifindex: u32,
    /// 1: the interface takes frames from XDP.
    takes_frames: u32,
    /// Bytes of the largest IP packet that fits where no router has said otherwise.
    room: u32,
    /// The tunnel's port.
    port: u32,
    /// Sum of the outer IPv4 header without its length, folded.
    sum: u32,
    macs: [u32; 3],
}

impl KeptWay {
    /// Whether a way may be kept.
    #[inline(always)]
    pub const fn takes(outer: &Outer, route: &Route, v6: bool) -> bool {
        matches!(route.hop, NextHop::Resolved) && outer.destination.is_v4() != v6
    }

    /// What is kept of a way that [`KeptWay::takes`]. `incoming`: the interface that the packet is on; `room`: what fits.
    #[inline(always)]
    pub fn new(node: u32, incoming: u32, outer: &Outer, route: &Route, room: usize) -> Self {
        let (d, s) = (route.destination, route.source);
        Self {
            source: outer.source.words(),
            destination: outer.destination.words(),
            node,
            incoming,
            asked: route.asked,
            v6: !outer.destination.is_v4() as u32,
            ifindex: route.ifindex,
            takes_frames: route.takes_frames as u32,
            room: room as u32,
            port: outer.port as u32,
            sum: tunnel::constant_sum(&outer.source, &outer.destination),
            macs: [
                u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
                u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
                u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
            ],
        }
    }

    /// Whether this is the way of a client's packet to a node; the address that it asks is the tunnel's on this side. No branch for
    /// each word: the verifier would follow all of them.
    #[inline(always)]
    pub const fn serves(&self, tuple: &Tuple, node: u32, incoming: u32, now: u32) -> bool {
        let (kept, asked) = (self.source, tuple.destination.words());
        let address = (kept[0] ^ asked[0]) | (kept[1] ^ asked[1]) | (kept[2] ^ asked[2]) | (kept[3] ^ asked[3]);
        let differ = (self.node ^ node) | (self.incoming ^ incoming) | (self.v6 ^ tuple.v6 as u32);
        address | differ == 0 && now.wrapping_sub(self.asked) <= FRESH
    }

    /// Whether XDP can follow it for a packet on the interface `incoming`.
    #[inline(always)]
    pub const fn is_for_xdp(&self, incoming: u32) -> bool {
        self.takes_frames != 0 || self.ifindex == incoming
    }

    /// Interface to leave by.
    #[inline(always)]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Bytes of the largest IP packet that fits where no router has said otherwise.
    #[inline(always)]
    pub const fn room(&self) -> usize {
        self.room as usize
    }

    /// Whether both headers are IPv6's.
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.v6 != 0
    }

    /// The tunnel's port.
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        self.port as u16
    }

    /// Sum of the outer IPv4 header without its length, folded.
    #[inline(always)]
    pub const fn sum(&self) -> u32 {
        self.sum
    }

    /// Both MAC addresses as they lie in a frame.
    #[inline(always)]
    pub const fn macs(&self) -> [u32; 3] {
        // Word by word: as a whole it would be moved by a call of `memmove`, which goes byte by byte.
        [self.macs[0], self.macs[1], self.macs[2]]
    }

    /// This node's address and the other's.
    #[inline(always)]
    pub const fn addresses(&self) -> (Address, Address) {
        (Address::from_words(self.source), Address::from_words(self.destination))
    }
}
