//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! One's complement sums do not depend on byte order as long as the whole sum and the field use the same one. Words are
//! therefore taken and stored in the order of the machine; a checksum is never byte-swapped.

use crate::address::Address;

/// A one's complement sum of 32-bit words: of data, or of the change from old data to new. Carries gather in the upper half,
/// so that adding takes no branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Diff(u64);

impl Diff {
    /// Nothing changed.
    pub const ZERO: Self = Self(0);

    /// Adds a word.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: u32) -> Self {
        Self(self.0.wrapping_add(word as u64))
    }

    /// Adds another sum.
    #[inline(always)]
    #[must_use]
    pub const fn join(self, other: Self) -> Self {
        self.add(other.sum())
    }

    /// Thirty-two bits of the sum, as `bpf_csum_diff` gives them.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((s & 0xffff_ffff) + (s >> 32)) as u32
    }

    /// Adds four bytes of data.
    #[inline(always)]
    #[must_use]
    pub const fn bytes4(self, b: [u8; 4]) -> Self {
        self.add(u32::from_ne_bytes(b))
    }

    /// Adds two bytes of data.
    #[inline(always)]
    #[must_use]
    pub const fn bytes2(self, b: [u8; 2]) -> Self {
        self.add(u16::from_ne_bytes(b) as u32)
    }

    /// Adds data whose length is a multiple of four.
    #[inline(always)]
    #[must_use]
    pub const fn words<const N: usize>(self, b: &[u8; N]) -> Self {
        let mut sum = self;
        let mut i = 0;
        while i + 4 <= N {
            sum = sum.bytes4([b[i], b[i + 1], b[i + 2], b[i + 3]]);
            i += 4;
        }
        sum
    }

    /// Adds the change of two bytes.
    #[inline(always)]
    #[must_use]
    pub const fn change2(self, old: [u8; 2], new: [u8; 2]) -> Self {
        self.add(!(u16::from_ne_bytes(old)) as u32).bytes2(new)
    }

    /// Adds the change of a port.
    #[inline(always)]
    #[must_use]
    pub const fn change_port(self, old: u16, new: u16) -> Self {
        self.change2(old.to_be_bytes(), new.to_be_bytes())
    }

    /// Adds an address: four bytes of IPv4, sixteen of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, a: &Address, v6: bool) -> Self {
        let w = a.words();
        if v6 {
            self.add(w[0]).add(w[1]).add(w[2]).add(w[3])
        } else {
            self.add(w[3])
        }
    }

    /// Adds the change of an address.
    #[inline(always)]
    #[must_use]
    pub const fn change_address(self, old: &Address, new: &Address, v6: bool) -> Self {
        let (o, n) = (old.words(), new.words());
        let sum = self.add(!o[3]).add(n[3]);
        if v6 {
            sum.add(!o[0]).add(n[0]).add(!o[1]).add(n[1]).add(!o[2]).add(n[2])
        } else {
            sum
        }
    }

    /// Sixteen bits of the sum.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let s = self.sum();
        let s = (s & 0xffff) + (s >> 16);
        ((s & 0xffff) + (s >> 16)) as u16
    }

    /// The checksum field of data with this sum.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// The checksum field after this change, given the field before.
    #[inline(always)]
    pub const fn apply(self, field: [u8; 2]) -> [u8; 2] {
        self.add(!(u16::from_ne_bytes(field)) as u32).checksum()
    }
}

/// Sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1).
#[inline(always)]
pub const fn pseudo(source: &Address, destination: &Address, protocol: u8, length: u16, v6: bool) -> Diff {
    Diff::ZERO
        .address(source, v6)
        .address(destination, v6)
        .bytes2(length.to_be_bytes())
        .bytes2([0, protocol])
}
