//! ICMP and ICMPv6.

use std::net::IpAddr;
use std::vec;
use std::vec::Vec;

use super::checksum::{checksum, transport_checksum};
use super::ip::{ip, ipv4};

/// An ICMP or ICMPv6 message inside IP; `message` has zeros for its checksum.
pub fn icmp(source: IpAddr, destination: IpAddr, ttl: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let (protocol, sum) = if source.is_ipv4() {
        (1, checksum(&message))
    } else {
        (58, transport_checksum(source, destination, 58, &message))
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(source, destination, protocol, ttl, &message)
}

/// An ICMP or ICMPv6 error with its quote, that has just been sent; `rest`: what stands behind the checksum.
pub fn icmp_error(source: IpAddr, destination: IpAddr, kind: (u8, u8), rest: u32, quote: &[u8]) -> Vec<u8> {
    icmp_error_at(64, source, destination, kind, rest, quote)
}

/// The same with this TTL or hop limit.
pub fn icmp_error_at(
    ttl: u8,
    source: IpAddr,
    destination: IpAddr,
    (kind, code): (u8, u8),
    rest: u32,
    quote: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest.to_be_bytes());
    message.extend(quote);
    if source.is_ipv6() {
        return icmp(source, destination, ttl, &message);
    }
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    // Internetwork control (RFC 1812 4.3.2.5).
    ipv4(source, destination, (1, ttl, 0xc0, 0x4000), &[], &message)
}
