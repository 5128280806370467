//! Addresses of either family in sixteen bytes.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address mapped into one (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2).
///
/// The sixteen bytes lie in memory in network order. They are handled as four words, never byte by byte: the BPF
/// backend would spill each byte to a stack slot of its own.
#[repr(C)]
#[derive(Clone, Copy, Eq, PartialOrd, Ord, Default)]
pub struct Address {
    words: [u32; 4],
}

// Derived, this would be a call of `bcmp`, and a call costs a program's stack at least 32 bytes on older kernels.
impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.words, other.words);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.hash(state);
    }
}

const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// The unspecified address `::`; as a frontend's address it stands for every address of every node.
    pub const ANY: Self = Self { words: [0; 4] };

    /// The mapped form of four IPv4 bytes.
    #[inline(always)]
    pub const fn v4(b: [u8; 4]) -> Self {
        Self {
            words: [0, 0, MAPPED, u32::from_ne_bytes(b)],
        }
    }

    /// The words as they lie in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// The words as they lie in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// From sixteen bytes in network order.
    pub const fn from_octets(b: [u8; 16]) -> Self {
        Self {
            words: [
                u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
                u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
                u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
                u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
            ],
        }
    }

    /// Sixteen bytes in network order.
    pub fn octets(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Whether a packet of this family may come from here: from no group, not from all, and on the wire IPv6 has no mapped
    /// addresses (RFC 1122 3.2.1.3, RFC 1812 5.3.7, RFC 4291 2.7, RFC 6890). Nobody could be answered there, and a filter of
    /// IPv4 addresses must not be met by an IPv6 packet.
    #[inline(always)]
    pub const fn may_send(&self, v6: bool) -> bool {
        if v6 {
            self.words[0].to_ne_bytes()[0] != 0xff && !self.is_v4()
        } else {
            let first = self.words[3].to_ne_bytes()[0];
            first != 0 && first < 224
        }
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// The last four bytes: the IPv4 address if [`Address::is_v4`].
    #[inline(always)]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        self.words[3].to_ne_bytes()
    }

    /// The mapped form of an IPv4 address whose four bytes lie in memory as this word.
    #[inline(always)]
    pub const fn v4_word(word: u32) -> Self {
        Self {
            words: [0, 0, MAPPED, word],
        }
    }

    /// Whether it is of 127.0.0.0/8, or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let w = self.words;
        if self.is_v4() {
            w[3] & u32::from_ne_bytes([255, 0, 0, 0]) == u32::from_ne_bytes([127, 0, 0, 0])
        } else {
            (w[0] | w[1] | w[2] | (w[3] ^ u32::from_ne_bytes([0, 0, 0, 1]))) == 0
        }
    }

    /// As the standard library's type.
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from(self.v4_bytes()))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.octets()))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(a) => Self::v4(a.octets()),
            IpAddr::V6(a) => Self::from_octets(a.octets()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), f)
    }
}
