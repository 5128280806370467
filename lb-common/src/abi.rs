//! The map layout shared by the kernel programs, the agent and `lbctl`: keys, values, names and capacities.
//!
//! Rules: `repr(C)`, no implicit padding (hash keys compare every byte), no `bool` and no enum in a value,
//! ports and ids in host byte order, addresses in network byte order. A change of any size, offset or
//! meaning raises [`SCHEMA_VERSION`], which is part of the pin path.
//!
//! | file | holds |
//! |---|---|
//! | this one | rows that the agent writes about the cluster, counters, sizes as they are asserted |
//! | `settings` | rows that the agent writes about this node: its interfaces, and the settings |
//! | `flows` | rows that packets write |
//! | `tables` | tables by name, their capacities, keys and values |
//! | `programs` | programs by name, and what the agent tells them |

mod flows;
mod programs;
mod settings;
mod tables;

use core::mem::size_of;

use crate::address::Address;

pub use flows::*;
pub use programs::*;
pub use settings::*;
pub use tables::*;

/// Version of everything in here. Pins live under `<bpffs>/v<SCHEMA_VERSION>/`.
pub const SCHEMA_VERSION: u32 = 7;

/// Network 0: the node's own, the outside world, where published ports live.
pub const NETWORK_NODE: u32 = 0;
/// Network ids have 24 bits, as a VXLAN network identifier has.
pub const NETWORK_MAX: u32 = 0x00ff_ffff;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// An address, port and protocol inside one network: the key of frontends and of this node's own backends.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EndpointKey {
    /// A published port has [`Address::ANY`]: it is answered on every address of every node.
    /// Its family is then in [`EndpointKey::family`].
    pub address: Address,
    /// 24-bit network id; [`NETWORK_NODE`] for published ports.
    pub network: u32,
    /// Host byte order. Of a frontend, 0: every port that has none of its own. Of a backend, 0: the frontend's own.
    pub port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
}

/// The frontend answers only clients that [`Sources`] allows.
pub const FRONTEND_FILTERED: u32 = 1;

/// A frontend's value: which service answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frontend {
    /// Key into `services`.
    pub service: u32,
    /// `FRONTEND_*` bits.
    pub flags: u32,
}

/// One balanced set of backends: a service's port in one network and family. Replaced whole, so a flip is one write.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Stable identity: FNV-1a of `network/name/port/protocol/family`, by which a restarted agent knows its ids again.
    pub identity: u64,
    /// Which generation of slots is in force.
    pub generation: u32,
    /// Number of slots; 0: no backend, new flows are refused.
    pub count: u32,
    /// Idle timeout of established TCP flows, ticks; 0: the setting.
    pub tcp_timeout: u32,
    /// Idle timeout of UDP flows, ticks; 0: the setting.
    pub udp_timeout: u32,
    /// `SERVICE_*` bits.
    pub flags: u32,
    /// `ALGORITHM_*`.
    pub algorithm: u32,
}

/// Round robin over the slots (weights are in the order of the slots).
pub const ALGORITHM_ROUND_ROBIN: u32 = 0;

/// Key of one slot of one generation of a service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SlotKey {
    /// Key into `services`.
    pub service: u32,
    /// Generation the slot belongs to.
    pub generation: u32,
    /// 0..count.
    pub index: u32,
}

/// One task's address and target port. Array element; never given to another address while a flow refers to it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend {
    /// Its address in its network: that of VIP flows, and its name in the tunnel.
    pub address: Address,
    /// Its address for packets of published flows on its own node; often the same.
    pub delivery: Address,
    /// 24-bit network id its address belongs to.
    pub network: u32,
    /// Network of the interface that has the delivery address.
    pub delivery_network: u32,
    /// Key into `nodes`.
    pub node: u32,
    /// Raised whenever the element is given to another backend.
    pub generation: u32,
    /// Host side of its workload interface if local and known, else 0.
    pub ifindex: u32,
    /// Target port, host byte order; 0: the frontend's.
    pub port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// `BACKEND_*` state.
    pub state: u8,
    /// Its MAC address, zero if unknown: on [`Backend::ifindex`] if that is known, else in its network.
    pub mac: [u8; 6],
    /// `BACKEND_LOCAL` and others.
    pub flags: u16,
}

/// Element not in use, or its backend is gone: flows to it are reset (TCP) or move (UDP).
pub const BACKEND_GONE: u8 = 0;
/// Takes new flows.
pub const BACKEND_READY: u8 = 1;
/// Keeps established TCP flows, takes no new flow while another backend is ready.
pub const BACKEND_DRAINING: u8 = 2;
/// Flag: runs on this node.
pub const BACKEND_LOCAL: u16 = 1;

/// A machine that runs the agent.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Tunnel address of the IPv4 family, or [`Address::ANY`].
    pub tunnel_v4: Address,
    /// Tunnel address of the IPv6 family, or [`Address::ANY`].
    pub tunnel_v6: Address,
    /// `NODE_*` bits.
    pub flags: u32,
    /// Zero.
    pub _pad: u32,
}

/// The entry is in use.
pub const NODE_PRESENT: u32 = 1;
/// This node itself.
pub const NODE_LOCAL: u32 = 2;

/// Value of `addresses`: whose address it is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeAddress {
    /// Key into `nodes`.
    pub node: u32,
    /// [`NODE_LOCAL`] if it is this node's.
    pub flags: u32,
}

/// Value of `path_mtus`: what a router between two nodes has said about the way to the other one; zeros: nothing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathMtu {
    /// Bytes of the largest outer packet that gets through.
    pub mtu: u32,
    /// When it was said, in ticks.
    pub since: u32,
}

/// An address inside a network: key of `vips`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VipKey {
    /// The VIP.
    pub address: Address,
    /// 24-bit network id.
    pub network: u32,
}

/// Value of `vips`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vip {
    /// Number of frontends on it.
    pub frontends: u32,
}

/// A prefix of client addresses, of one service: key of `sources`, as the kernel's LPM trie wants it. The longest prefix
/// that matches decides.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SourceKey {
    /// Bits that count: 32 of the service and those of the address, of which an IPv4 prefix has 96 more.
    pub bits: u32,
    /// Key into `services`.
    pub service: u32,
    /// Zero behind the prefix.
    pub address: Address,
}

impl SourceKey {
    /// Bits of a key that counts whole, as a lookup asks.
    pub const WHOLE: u32 = 160;
    /// Bits of a key that stands for every client of a service.
    pub const EVERYBODY: u32 = 32;
}

/// Value of `sources`: clients with this prefix are served.
pub const SOURCE_ALLOWED: u32 = 1;
/// Value of `sources`: clients with this prefix are not, as are those that no prefix matches.
pub const SOURCE_DENIED: u32 = 2;

/// Element of `counters` (per CPU), by reason code.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as they came in.
    pub bytes: u64,
}

/// Element of `service_counters` (per CPU), by service id.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceCounter {
    /// Flows begun.
    pub flows: u64,
    /// Packets forwarded to backends.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets forwarded to clients.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

/// `log2` of the nanoseconds in a tick.
pub const TICK_SHIFT: u32 = 20;

/// Whole ticks in `milliseconds`.
pub const fn ticks(milliseconds: u64) -> u32 {
    ((milliseconds * 1_000_000) >> TICK_SHIFT) as u32
}

const _: () = {
    assert!(size_of::<EndpointKey>() == 24);
    assert!(size_of::<Service>() == 32);
    assert!(size_of::<SlotKey>() == 12);
    assert!(size_of::<Backend>() == 64);
    assert!(size_of::<InterfaceKey>() == 16);
    assert!(size_of::<Node>() == 40);
    assert!(size_of::<VipKey>() == 20);
    assert!(size_of::<SourceKey>() == 24);
    assert!(size_of::<Interface>() == 16);
    assert!(size_of::<FlowKey4>() == 16);
    assert!(size_of::<FlowKey6>() == 40);
    assert!(size_of::<Flow>() == 32);
    assert!(size_of::<Reply>() == 48);
    assert!(core::mem::offset_of!(Flow, last_seen) == 24);
    assert!(core::mem::offset_of!(Reply, kind) == 40);
    assert!(size_of::<Pressure>() == 8);
    assert!(size_of::<PathMtu>() == 8);
    assert!(size_of::<Collect>() == 56);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<Fragment>() == 8);
    assert!(size_of::<Settings>() == 52);
};

#[cfg(feature = "user")]
mod pod {
    use super::*;
    macro_rules! pod {
        ($($t:ty),*) => { $(
            // SAFETY: repr(C), every field plain old data, no implicit padding (sizes asserted above).
            unsafe impl aya::Pod for $t {}
        )* };
    }
    pod!(
        Address,
        EndpointKey,
        Frontend,
        Service,
        SlotKey,
        Backend,
        Node,
        NodeAddress,
        VipKey,
        Vip,
        SourceKey,
        InterfaceKey,
        Interface,
        FlowKey4,
        FlowKey6,
        Flow,
        Reply,
        FragmentKey,
        Fragment,
        Pressure,
        PathMtu,
        Collect,
        Settings,
        Counter,
        ServiceCounter
    );
}
