//! The tunnel between nodes.

use std::net::{IpAddr, SocketAddr};
use std::vec::Vec;

use super::ip::ip;
use crate::abi::UDP;

/// The balancer's tunnel around an IP packet: outer IP and UDP, Geneve (RFC 8926) with one option of class 0xffb1.
/// `direction`: 1 to the backend, 2 back.
pub fn tunnel(
    outer: (SocketAddr, SocketAddr),
    direction: u8,
    network: u32,
    backend: SocketAddr,
    inner: &[u8],
) -> Vec<u8> {
    let network = network.to_be_bytes();
    let mut body = Vec::new();
    body.extend(outer.0.port().to_be_bytes());
    body.extend(outer.1.port().to_be_bytes());
    body.extend((8 + 8 + 28 + inner.len() as u16).to_be_bytes());
    body.extend([0, 0]);
    // Version 0 and seven words of options; a critical one is among them; the inner protocol; the network.
    body.extend([7, 0x40]);
    body.extend(if inner[0] >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    body.extend([network[1], network[2], network[3], 0]);
    // The option: class, type (critical), six words.
    body.extend([0xff, 0xb1, 0x81, 6]);
    body.extend([direction, 1]);
    body.extend(backend.port().to_be_bytes());
    body.extend(network);
    match backend.ip() {
        IpAddr::V4(v4) => body.extend(v4.to_ipv6_mapped().octets()),
        IpAddr::V6(v6) => body.extend(v6.octets()),
    }
    body.extend(inner);
    ip(outer.0.ip(), outer.1.ip(), UDP, 64, &body)
}
