//! The map layout shared by the kernel programs, the agent and `lbctl`: keys, values, names and capacities.
//!
//! Rules: `repr(C)`, no implicit padding (hash keys compare every byte), no `bool` and no enum in a value,
//! ports and ids in host byte order, addresses in network byte order. A change of any size, offset or
//! meaning raises [`SCHEMA_VERSION`], which is part of the pin path.

use core::mem::size_of;

use crate::address::Address;

/// Version of everything in this file. Pins live under `<bpffs>/v<SCHEMA_VERSION>/`.
pub const SCHEMA_VERSION: u32 = 5;

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

/// Key of `interfaces`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct InterfaceKey {
    /// Cookie of its network namespace, as `SO_NETNS_COOKIE` tells it: interface indexes repeat. The node's own has
    /// [`NAMESPACE_NODE`] instead.
    pub namespace: u64,
    /// Interface index.
    pub ifindex: u32,
    /// Zero.
    pub _pad: u32,
}

impl InterfaceKey {
    /// An interface in the node's own namespace.
    #[inline(always)]
    pub const fn node(ifindex: u32) -> Self {
        Self::new(NAMESPACE_NODE, ifindex)
    }

    /// An interface in any namespace.
    #[inline(always)]
    pub const fn new(namespace: u64, ifindex: u32) -> Self {
        Self {
            namespace,
            ifindex,
            _pad: 0,
        }
    }
}

/// The network namespace in which the agent runs.
pub const NAMESPACE_NODE: u64 = 0;

/// Value of `interfaces`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Network of the workload behind it; [`NETWORK_NODE`] for a node interface.
    pub network: u32,
    /// `INTERFACE_*` bits.
    pub flags: u32,
    /// MAC with which ARP and ND for VIPs are answered.
    pub mac: [u8; 6],
    /// Zero.
    pub _pad: [u8; 2],
}

/// The interface leads to a workload.
pub const INTERFACE_WORKLOAD: u32 = 1;
/// Packets are switched, not routed, behind it (a bridge port): TTL stays, the destination MAC becomes the backend's.
pub const INTERFACE_BRIDGED: u32 = 2;

/// The interface is one end of a pair whose other end is in the workload's namespace (veth, netkit).
pub const INTERFACE_PEER: u32 = 4;

/// Key of an IPv4 flow, as the client's packet carries it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FlowKey4 {
    /// Client (flows) or backend (replies).
    pub source: [u8; 4],
    /// Frontend (flows) or client as the backend sees it (replies).
    pub destination: [u8; 4],
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// `network << 8 | protocol`.
    pub network_protocol: u32,
}

/// Key of an IPv6 flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FlowKey6 {
    /// Client (flows) or backend (replies).
    pub source: Address,
    /// Frontend (flows) or client as the backend sees it (replies).
    pub destination: Address,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// `network << 8 | protocol`.
    pub network_protocol: u32,
}

/// One tracked connection. All its state is here; `replies` only leads back to it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// Key into `backends`.
    pub backend: u32,
    /// The backend's generation when the flow began.
    pub generation: u32,
    /// Key into `services`.
    pub service: u32,
    /// Node that the flow came from through the tunnel, plus one; 0: it came directly.
    pub origin: u32,
    /// Expires this many ticks after `last_seen`.
    pub timeout: u32,
    /// Tick of the first packet.
    pub created: u32,
    /// Tick of the last packet, either direction. From here on one aligned 64-bit word, which who wants to end the flow
    /// changes in one step.
    pub last_seen: u32,
    /// Source port as the backend sees it, host byte order; differs from the client's after a collision.
    pub source_port: u16,
    /// `FLOW_*` state.
    pub state: u8,
    /// `FLOW_FLAG_*` bits.
    pub flags: u8,
}

/// Leads from a reply's tuple to its flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reply {
    /// Address that the client speaks to.
    pub frontend: Address,
    /// The client's address (a hairpin's reply is addressed to the VIP).
    pub client: Address,
    /// The frontend's port, host byte order.
    pub frontend_port: u16,
    /// The client's own port, host byte order.
    pub client_port: u16,
    /// Network of the flow's key.
    pub network: u32,
    /// `REPLY_*`. From here on one aligned 64-bit word, which who wants to end the reply changes in one step.
    pub kind: u32,
    /// Tick at which it was bound to its flow last.
    pub bound: u32,
}

impl Reply {
    /// Whether both lead to the same flow, whenever they were bound.
    #[inline(always)]
    pub fn leads_as(&self, other: &Self) -> bool {
        self.frontend == other.frontend
            && self.client == other.client
            && self.frontend_port == other.frontend_port
            && self.client_port == other.client_port
            && self.network == other.network
            && self.kind == other.kind
    }
}

/// Somebody removes or replaces the reply; for everybody else it is not there any more.
pub const REPLY_ENDED: u32 = 0;
/// The flow came to a published port: translated back where the backend sends it.
pub const REPLY_PUBLISHED: u32 = 1;
/// The flow came to a VIP: translated back where the client receives it.
pub const REPLY_VIP: u32 = 2;
/// The client is its own backend: translated back where it sends it.
pub const REPLY_HAIRPIN: u32 = 3;

/// TCP: a SYN was seen, and maybe its answer. UDP: a request was seen.
pub const FLOW_NEW: u8 = 1;
/// Both sides have spoken.
pub const FLOW_ESTABLISHED: u8 = 2;
/// One side has sent FIN.
pub const FLOW_CLOSING: u8 = 3;
/// Both sides have sent FIN, or one RST: a SYN on the tuple is a new flow.
pub const FLOW_CLOSED: u8 = 4;

/// Somebody removes or replaces the flow; for everybody else it is not there any more.
pub const FLOW_ENDED: u8 = 5;

/// The client sent FIN.
pub const FLOW_FLAG_FIN_CLIENT: u8 = 1;
/// The backend sent FIN.
pub const FLOW_FLAG_FIN_BACKEND: u8 = 2;
/// The backend sees the VIP as source, because client and backend are one.
pub const FLOW_FLAG_HAIRPIN: u8 = 4;
/// The client is a process of this node itself: replies may be delivered to the node's own stack.
pub const FLOW_FLAG_HOST: u8 = 8;
/// A backend has refused the connection, and the client was made to ask again: closed, the flow waits for that; new, another
/// backend is asked, whose refusal the client gets to see.
pub const FLOW_FLAG_REFUSED: u8 = 16;
/// TCP: the backend has answered the SYN. Established it is when the client goes on: whoever forged its address does not.
pub const FLOW_FLAG_ANSWERED: u8 = 64;

/// Key of `fragments`: which datagram a fragment is of (RFC 791 2.3, RFC 8200 4.5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FragmentKey {
    /// As the fragment carries it.
    pub source: Address,
    /// As the fragment carries it.
    pub destination: Address,
    /// Identification.
    pub id: u32,
    /// `network << 8 | protocol`.
    pub network_protocol: u32,
}

/// Value of `fragments`: what only a datagram's first fragment tells.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// Tick of the first fragment.
    pub seen: u32,
}

/// The flow is in the overflow table, which forgets the flows least used when it is full.
pub const FLOW_FLAG_OVERFLOW: u8 = 32;

/// When the flow tables were short of room last; one element, written by the programs alone. Ticks with their lowest bit
/// set; 0: never.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// Tick at which a flow or a reply last found its table full.
    pub full: u32,
    /// Tick at which something was last written to or found in an overflow table.
    pub used: u32,
}

/// What the programs need to know; one element. Ticks are 2^20 ns (1.048576 ms).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// UDP port of the tunnel, host byte order.
    pub tunnel_port: u16,
    /// Largest packet (IP header included) that the path between nodes carries.
    pub tunnel_mtu: u16,
    /// `SETTING_*` bits.
    pub flags: u32,
    /// TCP flow of which only the SYN was seen, ticks.
    pub tcp_syn: u32,
    /// Established TCP flow, ticks.
    pub tcp_established: u32,
    /// TCP flow with one FIN, ticks.
    pub tcp_closing: u32,
    /// Closed TCP flow, ticks.
    pub tcp_closed: u32,
    /// UDP flow without an answer, ticks.
    pub udp_new: u32,
    /// UDP flow with an answer, ticks.
    pub udp_established: u32,
    /// This node's first IPv4 tunnel address, network byte order: what stands for 127.0.0.1 as a frontend. 0: it has none.
    pub host: u32,
    /// First address of the masquerade range, network byte order: clients whose own address other nodes have too.
    pub masquerade: u32,
    /// Its netmask, network byte order; 0: no client is masked.
    pub masquerade_mask: u32,
    /// First address of the gateway bridge's subnet, the same on every node; network byte order.
    pub bridge: u32,
    /// Its netmask, network byte order, at least as long as that of the range; 0: there is no such bridge.
    pub bridge_mask: u32,
}

/// The kernel knows `BPF_F_IPV6` of `bpf_l4_csum_replace` (6.16 and later).
pub const SETTING_L4_CSUM_IPV6: u32 = 1;

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
    /// `counters`.
    pub const COUNTERS: u32 = 64;
    /// `jumps`.
    pub const JUMPS: u32 = 16;
    /// `fragments`: datagrams under way at one time.
    pub const FRAGMENTS: u32 = 8_192;
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
    /// Which clients the frontends with [`FRONTEND_FILTERED`] answer. A trie: what is read by a key is the longest prefix of it.
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
}

/// What [`program::COLLECT`] is asked to remove, behind an Ethernet header and two bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collect {
    /// As in the entry's key; IPv4 in its mapped form.
    pub source: Address,
    /// As in the entry's key.
    pub destination: Address,
    /// `source_port << 16 | destination_port`.
    pub ports: u32,
    /// As in the entry's key.
    pub network_protocol: u32,
    /// Ticks that a flow which nobody has answered may live.
    pub unanswered: u32,
    /// `COLLECT_*` bits: which table, and why.
    pub table: u32,
    /// With [`COLLECT_LEFT`], the flow's service.
    pub service: u32,
    /// With [`COLLECT_LEFT`], the flow's backend.
    pub backend: u32,
}

/// A reply; else a flow.
pub const COLLECT_REPLY: u32 = 1;
/// In an overflow table.
pub const COLLECT_OVERFLOW: u32 = 2;
/// IPv6.
pub const COLLECT_V6: u32 = 4;
/// A flow, however alive, whose backend serves its service no more.
pub const COLLECT_LEFT: u32 = 8;
/// Offset of [`Collect`] in the frame.
pub const COLLECT_OFFSET: usize = 16;

/// Array of programs: where others go on.
pub const JUMPS: &str = "jumps";
/// Index in [`JUMPS`] of [`program::FROM_WORKLOAD`].
pub const JUMP_FROM_WORKLOAD: u32 = 0;
/// Index in [`JUMPS`] of [`program::TO_WORKLOAD`].
pub const JUMP_TO_WORKLOAD: u32 = 1;
/// Index in [`JUMPS`] of [`program::NODE_ERRORS`].
pub const JUMP_NODE_ERRORS: u32 = 2;
/// Index in [`JUMPS`] of [`program::FROM_ERRORS`].
pub const JUMP_FROM_ERRORS: u32 = 3;
/// Index in [`JUMPS`] of [`program::TO_ERRORS`].
pub const JUMP_TO_ERRORS: u32 = 4;
/// Index in [`JUMPS`] of [`program::HOST_ERRORS`].
pub const JUMP_HOST_ERRORS: u32 = 5;
/// Index in [`JUMPS`] of [`program::NODE_FRAGMENTS`].
pub const JUMP_NODE_FRAGMENTS: u32 = 6;
/// Index in [`JUMPS`] of [`program::FROM_FRAGMENTS`].
pub const JUMP_FROM_FRAGMENTS: u32 = 7;
/// Index in [`JUMPS`] of [`program::TO_FRAGMENTS`].
pub const JUMP_TO_FRAGMENTS: u32 = 8;
/// What each index in [`JUMPS`] leads to.
pub const JUMP_PROGRAMS: [(u32, &str); 9] = [
    (JUMP_FROM_WORKLOAD, program::FROM_WORKLOAD),
    (JUMP_TO_WORKLOAD, program::TO_WORKLOAD),
    (JUMP_NODE_ERRORS, program::NODE_ERRORS),
    (JUMP_FROM_ERRORS, program::FROM_ERRORS),
    (JUMP_TO_ERRORS, program::TO_ERRORS),
    (JUMP_HOST_ERRORS, program::HOST_ERRORS),
    (JUMP_NODE_FRAGMENTS, program::NODE_FRAGMENTS),
    (JUMP_FROM_FRAGMENTS, program::FROM_FRAGMENTS),
    (JUMP_TO_FRAGMENTS, program::TO_FRAGMENTS),
];
/// Name of the constant in which a pair of `enter` programs has its [`InterfaceKey::namespace`].
pub const NAMESPACE: &str = "NAMESPACE";

/// Per-CPU array of [`Counter`] by reason code.
pub const COUNTERS: &str = "counters";
/// Datagrams under way in fragments: [`FragmentKey`] to [`Fragment`]; the least recently used goes first.
pub const FRAGMENTS: &str = "fragments";
/// Per-CPU array of [`ServiceCounter`] by service id.
pub const SERVICE_COUNTERS: &str = "service_counters";

/// Names of the programs in the object.
pub mod program {
    /// XDP, node interface.
    pub const XDP_NODE: &str = "xdp_node";
    /// tc ingress, node interface.
    pub const TC_NODE: &str = "tc_node";
    /// tc ingress, host side of a workload interface.
    pub const FROM_WORKLOAD: &str = "from_workload";
    /// tc egress, host side of a workload interface.
    pub const TO_WORKLOAD: &str = "to_workload";
    /// tc egress, the node's loopback interface.
    pub const FROM_HOST: &str = "from_host";
    /// Where [`TC_NODE`] goes on with ICMP errors.
    pub const NODE_ERRORS: &str = "node_errors";
    /// Where [`FROM_WORKLOAD`] goes on with them.
    pub const FROM_ERRORS: &str = "from_errors";
    /// Where [`TO_WORKLOAD`] goes on with them.
    pub const TO_ERRORS: &str = "to_errors";
    /// Where [`FROM_HOST`] goes on with them.
    pub const HOST_ERRORS: &str = "host_errors";
    /// Where [`TC_NODE`] goes on with fragments.
    pub const NODE_FRAGMENTS: &str = "node_fragments";
    /// Where [`FROM_WORKLOAD`] goes on with them.
    pub const FROM_FRAGMENTS: &str = "from_fragments";
    /// Where [`TO_WORKLOAD`] goes on with them.
    pub const TO_FRAGMENTS: &str = "to_fragments";
    /// Attached nowhere: the agent runs it to remove an entry ([`Collect`](super::Collect)).
    pub const COLLECT: &str = "collect";
    /// What is attached for [`FROM_WORKLOAD`]: writes down the namespace and goes on there.
    pub const ENTER_FROM: &str = "enter_from";
    /// What is attached for [`TO_WORKLOAD`].
    pub const ENTER_TO: &str = "enter_to";
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
        Collect,
        Settings,
        Counter,
        ServiceCounter
    );
}
