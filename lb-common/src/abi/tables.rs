//! Tables by name: their capacities, keys and values.

use super::{
    Backend, EndpointKey, Flow, FlowKey4, FlowKey6, Frontend, Interface, InterfaceKey, Node, NodeAddress, PathMtu,
    Pressure, Reply, Service, Settings, SlotKey, SourceKey, UDP, Vip, VipKey,
};
use crate::address::Address;

/// Capacities of the maps.
pub mod capacity {
    /// `frontends`.
    pub const FRONTENDS: u32 = 65_536;
    /// `services`, `cursors` and `service_counters`.
    pub const SERVICES: u32 = 32_768;
    /// `slots`, two generations of each service.
    pub const SLOTS: u32 = 1_048_576;
    /// `backends` and `local_backends`.
    pub const BACKENDS: u32 = 262_144;
    /// `nodes`.
    pub const NODES: u32 = 4_096;
    /// `addresses`.
    pub const ADDRESSES: u32 = 16_384;
    /// `vips`.
    pub const VIPS: u32 = 65_536;
    /// `sources`.
    pub const SOURCES: u32 = 65_536;
    /// `interfaces`.
    pub const INTERFACES: u32 = 16_384;
    /// Each of `flows4`, `flows6`, `replies4`, `replies6`, unless the agent's configuration says otherwise.
    pub const FLOWS: u32 = 1_048_576;
    /// Each of the overflow tables, unless the agent's configuration says otherwise; their memory is taken at once.
    pub const OVERFLOW: u32 = 65_536;
    /// `marks`: a bit for each port of TCP and of UDP.
    pub const MARKS: u32 = 2 * 65_536 / 64;
    /// `ports`, as `marks`.
    pub const PORTS: u32 = MARKS;
    /// `counters`.
    pub const COUNTERS: u32 = 64;
    /// `jumps`.
    pub const JUMPS: u32 = 16;
    /// `fragments`: datagrams under way at one time.
    pub const FRAGMENTS: u32 = 8_192;
}

/// Element of `marks` or `ports`, and the bit in it that stands for a port. It stays when it was set once.
///
/// In `marks` it stands for a port of the node's own network, and is set before that is published: flows outlive their frontend.
/// Without it there is no frontend on that port, and no flow to one. In `ports` it is set before a flow inside a network to that
/// port is written, or a reply from it: without it there is none.
#[inline(always)]
pub const fn port_mark(protocol: u8, port: u16) -> (u32, u64) {
    let first = if protocol == UDP { capacity::MARKS / 2 } else { 0 };
    (first + (port >> 6) as u32, 1 << (port & 63))
}

/// A map as the agent and `lbctl` see it.
pub trait Table {
    /// The map's name in the object and in the pin directory.
    const NAME: &'static str;
    /// Whether every index always exists (array) or only what was written (hash).
    const ARRAY: bool;
    /// Key.
    type Key: Copy + Ord;
    /// Value.
    type Value: Copy + PartialEq;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $marker:ident = $name:literal $array:literal $key:ty => $value:ty;)*) => {
        $( $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $marker;
        impl Table for $marker {
            const NAME: &'static str = $name;
            const ARRAY: bool = $array;
            type Key = $key;
            type Value = $value;
        } )*
        /// Names of the maps that [`Table`] describes.
        pub const TABLE_NAMES: &[&str] = &[$($name),*];
    };
}

tables! {
    /// One element: [`Settings`].
    SettingsTable = "settings" true u32 => Settings;
    /// Interface to what is behind it.
    Interfaces = "interfaces" false InterfaceKey => Interface;
    /// Frontend to service.
    Frontends = "frontends" false EndpointKey => Frontend;
    /// Service id to [`Service`].
    Services = "services" false u32 => Service;
    /// Slot to backend id.
    Slots = "slots" false SlotKey => u32;
    /// Service id to the number of flows begun; written by the programs alone.
    Cursors = "cursors" true u32 => u64;
    /// Backend id to [`Backend`].
    Backends = "backends" true u32 => Backend;
    /// Address of a backend on this node to its id: what may be named in the tunnel.
    LocalBackends = "local_backends" false EndpointKey => u32;
    /// Node id to [`Node`].
    Nodes = "nodes" true u32 => Node;
    /// Address of any node to [`NodeAddress`].
    Addresses = "addresses" false Address => NodeAddress;
    /// VIPs for which ARP, ND and echo are answered.
    Vips = "vips" false VipKey => Vip;
    /// Which clients the frontends with [`FRONTEND_FILTERED`](super::FRONTEND_FILTERED) answer. A trie: what is read by a key is
    /// the longest prefix of it.
    Sources = "sources" false SourceKey => u32;
    /// IPv4 flows.
    Flows4 = "flows4" false FlowKey4 => Flow;
    /// IPv6 flows.
    Flows6 = "flows6" false FlowKey6 => Flow;
    /// IPv4 replies.
    Replies4 = "replies4" false FlowKey4 => Reply;
    /// IPv6 replies.
    Replies6 = "replies6" false FlowKey6 => Reply;
    /// IPv4 flows that began while `flows4` or `replies4` was full.
    Overflow4 = "overflow4" false FlowKey4 => Flow;
    /// IPv6 flows that began while `flows6` or `replies6` was full.
    Overflow6 = "overflow6" false FlowKey6 => Flow;
    /// Replies of the flows in `overflow4`.
    OverflowReplies4 = "overflow_replies4" false FlowKey4 => Reply;
    /// Replies of the flows in `overflow6`.
    OverflowReplies6 = "overflow_replies6" false FlowKey6 => Reply;
    /// One element: [`Pressure`].
    PressureTable = "pressure" true u32 => Pressure;
    /// Node id to [`PathMtu`]; written by the programs alone.
    PathMtus = "path_mtus" true u32 => PathMtu;
    /// Which ports there may be frontends on: [`port_mark`].
    Marks = "marks" true u32 => u64;
    /// Which ports there may be flows to inside networks, and replies from: [`port_mark`]; written by the programs.
    Ports = "ports" true u32 => u64;
}

/// Per-CPU array of [`Counter`](super::Counter) by reason code.
pub const COUNTERS: &str = "counters";
/// Datagrams under way in fragments: [`FragmentKey`](super::FragmentKey) to [`Fragment`](super::Fragment); the least recently
/// used goes first.
pub const FRAGMENTS: &str = "fragments";
/// Per-CPU array of [`ServiceCounter`](super::ServiceCounter) by service id.
pub const SERVICE_COUNTERS: &str = "service_counters";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::TCP;
    use super::*;

    #[test]
    fn every_port_of_each_protocol_has_a_bit_of_its_own() {
        let mut bits = BTreeSet::new();
        for protocol in [TCP, UDP] {
            for port in 0..=u16::MAX {
                let (element, bit) = port_mark(protocol, port);
                assert!(element < capacity::MARKS && bit.is_power_of_two());
                assert!(bits.insert((element, bit)), "{protocol} {port}");
            }
        }
        assert_eq!(bits.len() as u32, 64 * capacity::MARKS);
    }
}
