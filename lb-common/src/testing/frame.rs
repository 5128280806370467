//! Frames built field by field from the RFCs, with checksums computed from nothing: the oracle of the fixtures.

use std::net::{IpAddr, SocketAddr};
use std::vec;
use std::vec::Vec;

use crate::abi::{TCP, UDP};

/// A MAC address.
pub type Mac = [u8; 6];

/// What stands in the checksum field of TCP and UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sum {
    Right,
    /// Of the pseudo-header alone, as a sender leaves it to its card.
    Partial,
    /// UDP without a checksum.
    None,
}

/// A TCP or UDP frame in the making.
#[derive(Clone, Debug)]
pub struct Frame {
    macs: (Mac, Mac),
    tags: Vec<[u8; 4]>,
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    ttl: u8,
    fragment: u16,
    options: Vec<u8>,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    window: u16,
    tcp_options: Vec<u8>,
    payload: Vec<u8>,
    sum: Sum,
    padding: usize,
}

impl Frame {
    /// A datagram, or a TCP segment with ACK and payload.
    pub fn new(protocol: u8, source: SocketAddr, destination: SocketAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4());
        Self {
            macs: ([0; 6], [0; 6]),
            tags: Vec::new(),
            source,
            destination,
            protocol,
            ttl: 64,
            fragment: 0x4000,
            options: Vec::new(),
            flags: 0x10,
            sequence: 0x1234_5678,
            acknowledgement: 0x9abc_def0,
            window: 0xfa00,
            tcp_options: Vec::new(),
            payload: b"payload of odd length".to_vec(),
            sum: Sum::Right,
            padding: 0,
        }
    }

    /// From another address or port.
    #[must_use]
    pub fn from(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self
    }

    /// To another address or port.
    #[must_use]
    pub fn to(mut self, destination: SocketAddr) -> Self {
        self.destination = destination;
        self
    }

    /// Destination and source MAC.
    #[must_use]
    pub fn macs(mut self, destination: Mac, source: Mac) -> Self {
        self.macs = (destination, source);
        self
    }

    /// With both MAC addresses exchanged.
    #[must_use]
    pub fn turned(mut self) -> Self {
        self.macs = (self.macs.1, self.macs.0);
        self
    }

    /// Adds a VLAN tag of this ethertype inside those that are there.
    #[must_use]
    pub fn tag(mut self, kind: u16, vlan: u16) -> Self {
        let (k, v) = (kind.to_be_bytes(), vlan.to_be_bytes());
        self.tags.push([k[0], k[1], v[0], v[1]]);
        self
    }

    /// Without VLAN tags.
    #[must_use]
    pub fn untagged(mut self) -> Self {
        self.tags.clear();
        self
    }

    /// TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv4 flags and offset, as in the header; for IPv6 those of a fragment header.
    #[must_use]
    pub fn fragment(mut self, field: u16) -> Self {
        self.fragment = field;
        self
    }

    /// IPv4 options (a multiple of four bytes), or whole IPv6 destination options (a multiple of eight) but for the next
    /// header's number, which is put in front of them.
    #[must_use]
    pub fn options(mut self, bytes: &[u8]) -> Self {
        self.options = bytes.to_vec();
        self
    }

    /// TCP flags.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// Sequence and acknowledgement number.
    #[must_use]
    pub fn numbers(mut self, sequence: u32, acknowledgement: u32) -> Self {
        (self.sequence, self.acknowledgement) = (sequence, acknowledgement);
        self
    }

    /// TCP window.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// TCP options, a multiple of four bytes.
    #[must_use]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        self.tcp_options = bytes.to_vec();
        self
    }

    /// What it carries.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Checksum left to the card.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.sum = Sum::Partial;
        self
    }

    /// UDP without a checksum.
    #[must_use]
    pub fn unsummed(mut self) -> Self {
        self.sum = Sum::None;
        self
    }

    /// Bytes behind the IP packet, as switches pad short frames.
    #[must_use]
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// Who speaks to whom, in the node's own network.
    pub fn tuple(&self) -> crate::tuple::Tuple {
        crate::tuple::Tuple {
            v6: self.source.is_ipv6(),
            source: self.source.ip().into(),
            destination: self.destination.ip().into(),
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            protocol: self.protocol,
            network: 0,
        }
    }

    /// TCP or UDP header and payload.
    fn segment(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.source.port().to_be_bytes());
        out.extend(self.destination.port().to_be_bytes());
        let field = match self.protocol {
            TCP => {
                out.extend(self.sequence.to_be_bytes());
                out.extend(self.acknowledgement.to_be_bytes());
                let words = 5 + self.tcp_options.len() / 4;
                out.extend([(words as u8) << 4, self.flags]);
                out.extend(self.window.to_be_bytes());
                out.extend([0; 4]);
                out.extend(&self.tcp_options);
                16
            }
            UDP => {
                out.extend((8 + self.payload.len() as u16).to_be_bytes());
                out.extend([0; 2]);
                6
            }
            other => panic!("protocol {other} has no ports"),
        };
        out.extend(&self.payload);
        let (source, destination) = (self.source.ip(), self.destination.ip());
        let sum = match self.sum {
            Sum::Right => transport_checksum(source, destination, self.protocol, &out),
            Sum::Partial => !checksum(&pseudo_header(source, destination, self.protocol, out.len())),
            Sum::None => 0,
        };
        out[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// The IP packet alone.
    pub fn packet(&self) -> Vec<u8> {
        let segment = self.segment();
        let (source, destination) = (self.source.ip(), self.destination.ip());
        if self.source.is_ipv6() {
            let mut body = Vec::new();
            let mut next = self.protocol;
            if self.fragment & 0x3fff != 0 {
                // The offset has three bits more to its right, of which the last says that more follow.
                let field = (self.fragment & 0x1fff) << 3 | u16::from(self.fragment & 0x2000 != 0);
                body.extend([next, 0]);
                body.extend(field.to_be_bytes());
                body.extend([0, 0, 0, 9]);
                next = 44;
            }
            if !self.options.is_empty() {
                body.push(next);
                body.extend(&self.options);
                next = 60;
            }
            body.extend(segment);
            return ip(source, destination, next, self.ttl, &body);
        }
        let head = (self.protocol, self.ttl, 0, self.fragment);
        ipv4(source, destination, head, &self.options, &segment)
    }

    /// The whole frame.
    pub fn build(&self) -> Vec<u8> {
        let kind = if self.source.is_ipv6() { 0x86dd } else { 0x0800 };
        let mut out = ethernet(self.macs.0, self.macs.1, kind, &self.packet());
        let tags: Vec<u8> = self.tags.iter().flatten().copied().collect();
        out.splice(12..12, tags);
        out.extend(vec![0; self.padding]);
        out
    }
}

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
fn ipv4(
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

/// An address's bytes.
fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut out = octets(source);
    out.extend(octets(destination));
    out.extend((length as u32).to_be_bytes());
    out.extend([0, 0, 0, protocol]);
    out
}

/// Checksum over pseudo-header and segment; UDP's zero is 0xffff.
fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut all = pseudo_header(source, destination, protocol, segment.len());
    all.extend(segment);
    match checksum(&all) {
        0 if protocol == UDP => 0xffff,
        sum => sum,
    }
}

/// RFC 1071, byte pairs in network order.
fn checksum(bytes: &[u8]) -> u16 {
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
