//! Frames built field by field from the RFCs, with checksums computed from nothing: the oracle of the fixtures.

mod checksum;
mod icmp;
mod ip;
mod tunnel;

use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use crate::abi::{TCP, UDP};
use checksum::{checksum, pseudo_header, transport_checksum};
use ip::ipv4;

pub use icmp::{icmp, icmp_error, icmp_error_at};
pub use ip::{ethernet, fragments, ip};
pub use tunnel::tunnel;

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
