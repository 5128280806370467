//! Checksums, computed from nothing.

use std::net::IpAddr;
use std::vec::Vec;

use crate::abi::UDP;

/// An address's bytes.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut out = octets(source);
    out.extend(octets(destination));
    out.extend((length as u32).to_be_bytes());
    out.extend([0, 0, 0, protocol]);
    out
}

/// Checksum over pseudo-header and segment; UDP's zero is 0xffff.
pub(super) fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut all = pseudo_header(source, destination, protocol, segment.len());
    all.extend(segment);
    match checksum(&all) {
        0 if protocol == UDP => 0xffff,
        sum => sum,
    }
}

/// RFC 1071, byte pairs in network order.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3.
    #[test]
    fn the_sum_is_that_of_the_rfc() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }
}
