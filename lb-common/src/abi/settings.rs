//! Rows in which the agent says what the programs need to know of this node: its interfaces, and the settings.

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
    /// Network of the workload behind it; [`NETWORK_NODE`](super::NETWORK_NODE) for a node interface.
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
/// There are workloads on veths that the node routes, and VIPs' packets are handed over to and from them.
pub const SETTING_HAND_OVER: u32 = 2;
