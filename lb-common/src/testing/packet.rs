//! [`MemoryPacket`]: a frame in memory that keeps to the bounds and the arithmetic of the kernel's two hooks.

use std::vec::Vec;

use crate::wire::checksum::Diff;
use crate::wire::reach::{self, HEADERS};
use crate::wire::{ETHERNET, Hook, Packet};

/// Offsets are masked with this before they are used, as the programs do for the verifier's sake.
const MASK: usize = 0x1ff;

/// Where headers can end behind which a packet's payload begins, shortest first: TCP's and UDP's behind either IP header, alone and
/// in the tunnel.
const ENDS: [usize; 11] = [42, 54, 62, 74, 106, 118, 126, 138, 146, 158, HEADERS];

/// A frame on XDP or on tc.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryPacket<const XDP: bool, const FRAGMENTS: bool = false> {
    bytes: Vec<u8>,
    side_tag: bool,
    segment: usize,
    /// Bytes in reach: on tc the rest of a buffer may lie elsewhere.
    reach: usize,
}

impl<const XDP: bool, const FRAGMENTS: bool> MemoryPacket<XDP, FRAGMENTS> {
    /// From its bytes, Ethernet header first.
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            side_tag: false,
            segment: 0,
            reach: usize::MAX,
        }
    }

    /// With no more in reach than a program on tc makes sure of.
    #[must_use]
    pub fn pulled(mut self, tunnel_port: u16) -> Self {
        if XDP {
            return self;
        }
        for reach in ENDS {
            self.reach = reach;
            if reach::suffices(&self, tunnel_port) {
                break;
            }
        }
        self
    }

    /// With a VLAN tag beside the bytes (tc).
    #[must_use]
    pub fn side_tagged(mut self, tagged: bool) -> Self {
        self.side_tag = tagged;
        self
    }

    /// As a buffer of several segments with `size` bytes of payload each (tc).
    #[must_use]
    pub fn segmented(mut self, size: usize) -> Self {
        self.segment = size;
        self
    }

    /// As a program for fragments sees it.
    #[must_use]
    pub fn fragments(self) -> MemoryPacket<XDP, true> {
        MemoryPacket {
            bytes: self.bytes,
            side_tag: self.side_tag,
            segment: self.segment,
            reach: self.reach,
        }
    }

    /// As every other program sees it.
    #[must_use]
    pub fn whole(self) -> MemoryPacket<XDP, false> {
        MemoryPacket {
            bytes: self.bytes,
            side_tag: self.side_tag,
            segment: self.segment,
            reach: self.reach,
        }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// So many bytes in reach have gone.
    fn shrink(&mut self, size: usize) {
        if self.reach != usize::MAX {
            self.reach = self.reach.saturating_sub(size);
        }
    }

    /// Where `n` bytes at `offset` begin, if they are inside and in reach. Of a single byte the programs ask for one more.
    fn at(&self, offset: usize, n: usize) -> Option<usize> {
        let start = offset & MASK;
        (start + n.max(2) <= self.bytes.len().min(self.reach)).then_some(start)
    }
}

impl<const XDP: bool, const FRAGMENTS: bool> Packet for MemoryPacket<XDP, FRAGMENTS> {
    const FRAGMENTS: bool = FRAGMENTS;
    const HOOK: Hook = if XDP { Hook::Xdp } else { Hook::Tc };

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn segment(&self) -> usize {
        if XDP { 0 } else { self.segment }
    }

    fn tagged(&self) -> bool {
        !XDP && self.side_tag
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.at(offset, N)?;
        self.bytes[start..start + N].try_into().ok()
    }

    fn load_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.at(offset, 4 * N)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(self.bytes[start..].chunks_exact(4)) {
            *word = u32::from_ne_bytes(chunk.try_into().ok()?);
        }
        Some(words)
    }

    fn store_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        let start = self.at(offset, 4 * N)?;
        for (chunk, word) in self.bytes[start..].chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }

    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let start = self.at(offset, N)?;
        self.bytes[start..start + N].copy_from_slice(&bytes);
        Some(())
    }

    fn store_uncovered(&mut self, offset: usize, byte: u8) -> Option<()> {
        if XDP {
            return self.store(offset, [byte]);
        }
        *self.bytes.get_mut(offset)? = byte;
        Some(())
    }

    fn store_uncovered_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        if XDP {
            return self.store_words(offset, words);
        }
        let place = self.bytes.get_mut(offset..offset + 4 * N)?;
        for (chunk, word) in place.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }

    fn update_l3_checksum(&mut self, offset: usize, diff: Diff) -> Option<()> {
        let field = self.load(offset)?;
        self.store(offset, diff.apply(field))
    }

    fn update_l4_checksum(&mut self, offset: usize, pseudo: Diff, rest: Diff, udp: bool, _v6: bool) -> Option<()> {
        if XDP {
            let field = self.load::<2>(offset)?;
            if udp && field == [0, 0] {
                return Some(());
            }
            let sum = pseudo.join(rest).apply(field);
            return self.store(offset, if udp && sum == [0, 0] { [0xff, 0xff] } else { sum });
        }
        // `bpf_l4_csum_replace`, once for each part.
        let parts = [
            (pseudo, pseudo != Diff::ZERO),
            (rest, rest.fold() != 0xffff && rest.fold() != 0),
        ];
        for (diff, _) in parts.into_iter().filter(|(_, changed)| *changed) {
            let field: [u8; 2] = self.bytes.get(offset..offset + 2)?.try_into().ok()?;
            if udp && field == [0, 0] {
                continue;
            }
            let sum = diff.apply(field);
            let sum = if udp && sum == [0, 0] { [0xff, 0xff] } else { sum };
            self.bytes[offset..offset + 2].copy_from_slice(&sum);
        }
        Some(())
    }

    fn insert(&mut self, size: usize, _outer_v6: bool, _tunnel: bool) -> Option<()> {
        let room = std::iter::repeat_n(0, size);
        if self.bytes.len() < ETHERNET {
            return None;
        }
        self.bytes.splice(ETHERNET..ETHERNET, room);
        self.reach = self.reach.saturating_add(size);
        Some(())
    }

    fn remove(&mut self, size: usize, _inner_v6: bool) -> Option<()> {
        if self.bytes.len() < ETHERNET + size {
            return None;
        }
        self.bytes.drain(ETHERNET..ETHERNET + size);
        self.shrink(size);
        Some(())
    }

    fn remove_tag(&mut self) -> Option<()> {
        if self.tagged() {
            self.side_tag = false;
            return Some(());
        }
        if self.bytes.len() < ETHERNET + 4 {
            return None;
        }
        self.bytes.drain(12..16);
        self.shrink(4);
        Some(())
    }

    fn truncate(&mut self, len: usize) -> Option<()> {
        if len > self.bytes.len() || len < ETHERNET {
            return None;
        }
        self.bytes.truncate(len);
        // The kernel brings all that is left into reach (`__bpf_skb_change_tail`, net/core/filter.c).
        self.reach = usize::MAX;
        // What is cut is no longer several segments.
        self.segment = 0;
        Some(())
    }
}
