//! Who speaks to whom.

use crate::abi::{FlowKey4, FlowKey6};
use crate::address::Address;

/// Source, destination, protocol and network: the key of flows and replies in either family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tuple {
    /// IPv6.
    pub v6: bool,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Network in which the addresses are valid.
    pub network: u32,
}

impl Tuple {
    /// Of the packets in the other direction.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }

    /// `network << 8 | protocol`, as the maps' keys hold it.
    #[inline(always)]
    pub const fn network_protocol(&self) -> u32 {
        self.network << 8 | self.protocol as u32
    }

    /// 32 well-mixed bits (the finaliser of MurmurHash3 over the sum of the words).
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        let s = self.source.v4_bytes();
        let d = self.destination.v4_bytes();
        let ports = (self.source_port as u32) << 16 | self.destination_port as u32;
        let mut h = u32::from_be_bytes(s).wrapping_mul(0x9e37_79b1)
            ^ u32::from_be_bytes(d).wrapping_mul(0x85eb_ca6b)
            ^ ports.wrapping_mul(0xc2b2_ae35);
        h ^= h >> 16;
        h = h.wrapping_mul(0x85eb_ca6b);
        h ^= h >> 13;
        h = h.wrapping_mul(0xc2b2_ae35);
        h ^ (h >> 16)
    }
}

impl From<&FlowKey4> for Tuple {
    fn from(key: &FlowKey4) -> Self {
        Self {
            v6: false,
            source: Address::v4(key.source),
            destination: Address::v4(key.destination),
            source_port: key.source_port,
            destination_port: key.destination_port,
            protocol: key.network_protocol as u8,
            network: key.network_protocol >> 8,
        }
    }
}

impl From<&FlowKey6> for Tuple {
    fn from(key: &FlowKey6) -> Self {
        Self {
            v6: true,
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            protocol: key.network_protocol as u8,
            network: key.network_protocol >> 8,
        }
    }
}

impl From<&Tuple> for FlowKey4 {
    /// Of an IPv4 tuple.
    fn from(tuple: &Tuple) -> Self {
        Self {
            source: tuple.source.v4_bytes(),
            destination: tuple.destination.v4_bytes(),
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            network_protocol: tuple.network_protocol(),
        }
    }
}

impl From<&Tuple> for FlowKey6 {
    fn from(tuple: &Tuple) -> Self {
        Self {
            source: tuple.source,
            destination: tuple.destination,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            network_protocol: tuple.network_protocol(),
        }
    }
}
