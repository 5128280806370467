//! Ethernet frames and IP packets, whole and in fragments.

use std::net::IpAddr;
use std::vec;
use std::vec::Vec;

use super::Mac;
use super::checksum::{checksum, octets};

/// An Ethernet frame.
pub fn ethernet(destination: Mac, source: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    [&destination[..], &source, &kind, body].concat()
}

/// An IP packet without options.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, ttl: u8, body: &[u8]) -> Vec<u8> {
    if source.is_ipv4() {
        return ipv4(source, destination, (protocol, ttl, 0, 0x4000), &[], body);
    }
    let length = (body.len() as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], protocol, ttl];
    [&head[..], &octets(source), &octets(destination), body].concat()
}

/// `head`: protocol, TTL, type of service, flags and offset.
pub(super) fn ipv4(
    source: IpAddr,
    destination: IpAddr,
    (protocol, ttl, service, fragment): (u8, u8, u8, u16),
    options: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let length = (words * 4 + body.len()) as u16;
    let mut head = vec![0x40 | words as u8, service];
    head.extend(length.to_be_bytes());
    head.extend([0, 0]);
    head.extend(fragment.to_be_bytes());
    head.extend([ttl, protocol, 0, 0]);
    head.extend(octets(source));
    head.extend(octets(destination));
    head.extend(options);
    let sum = checksum(&head).to_be_bytes();
    head[10..12].copy_from_slice(&sum);
    head.extend(body);
    head
}

/// Cuts an IP packet without options into fragments, at these offsets of what it carries (multiples of eight).
pub fn fragments(packet: &[u8], id: u16, cuts: &[usize]) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let (head, body) = packet.split_at(if v6 { 40 } else { 20 });
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(body.len()));
    let fragment = |(start, end): (usize, usize)| {
        let more = end < body.len();
        let mut head = head.to_vec();
        if v6 {
            let field = start as u16 | u16::from(more);
            head[4..6].copy_from_slice(&((8 + end - start) as u16).to_be_bytes());
            let next = std::mem::replace(&mut head[6], 44);
            head.extend([next, 0]);
            head.extend(field.to_be_bytes());
            head.extend(u32::from(id).to_be_bytes());
        } else {
            let field = (start / 8) as u16 | if more { 0x2000 } else { 0 };
            head[2..4].copy_from_slice(&((20 + end - start) as u16).to_be_bytes());
            head[4..6].copy_from_slice(&id.to_be_bytes());
            head[6..8].copy_from_slice(&field.to_be_bytes());
            head[10..12].fill(0);
            let sum = checksum(&head).to_be_bytes();
            head[10..12].copy_from_slice(&sum);
        }
        head.extend(&body[start..end]);
        head
    };
    starts.zip(ends).map(fragment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header captured elsewhere, with its checksum 0xb861.
    #[test]
    fn a_known_header_is_rebuilt() {
        let body = [0; 0x73 - 20];
        let packet = ipv4(
            [192, 168, 0, 1].into(),
            [192, 168, 0, 199].into(),
            (17, 64, 0, 0x4000),
            &[],
            &body,
        );
        assert_eq!(
            packet[..20],
            [
                0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
                0xa8, 0x00, 0xc7
            ]
        );
    }
}
