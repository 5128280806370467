//! Every map of the object; layout and capacities are `lb_common::abi`'s.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_fib_lookup};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use lb_common::abi::{
    Backend, Counter, EndpointKey, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, Frontend, Interface, InterfaceKey,
    Node, NodeAddress, PathMtu, Pressure, Reply, Service, ServiceCounter, Settings, SlotKey, SourceKey, Vip, VipKey,
    capacity,
};
use lb_common::address::Address;
use lb_common::pipeline::Work;
use lb_common::route::{self, Kept, KeptInterface};
use lb_common::way::{self, KeptWay};

// Memory grows with the entries, not with the capacity; and an element of a small table stays warm in the cache.
const GROW: usize = BPF_F_NO_PREALLOC as usize;

macro_rules! hash {
    ($($name:ident: $key:ty => $value:ty, $capacity:ident;)*) => { $(
        #[btf_map]
        pub(crate) static $name: HashMap<$key, $value, { capacity::$capacity as usize }, GROW> = HashMap::new();
    )* };
}

hash! {
    interfaces: InterfaceKey => Interface, INTERFACES;
    frontends: EndpointKey => Frontend, FRONTENDS;
    services: u32 => Service, SERVICES;
    slots: SlotKey => u32, SLOTS;
    local_backends: EndpointKey => u32, BACKENDS;
    addresses: Address => NodeAddress, ADDRESSES;
    vips: VipKey => Vip, VIPS;
    flows4: FlowKey4 => Flow, FLOWS;
    flows6: FlowKey6 => Flow, FLOWS;
    replies4: FlowKey4 => Reply, FLOWS;
    replies6: FlowKey6 => Reply, FLOWS;
}

macro_rules! array {
    ($($name:ident: $kind:ident $value:ty, $capacity:expr;)*) => { $(
        #[btf_map]
        pub(crate) static $name: $kind<$value, { $capacity as usize }> = $kind::new();
    )* };
}

// What is least used gives way: the kernel has such maps with all their memory taken at once alone.
macro_rules! overflow {
    ($($name:ident: $key:ty => $value:ty;)*) => { $(
        #[btf_map]
        pub(crate) static $name: LruHashMap<$key, $value, { capacity::OVERFLOW as usize }> = LruHashMap::new();
    )* };
}

overflow! {
    overflow4: FlowKey4 => Flow;
    overflow6: FlowKey6 => Flow;
    overflow_replies4: FlowKey4 => Reply;
    overflow_replies6: FlowKey6 => Reply;
}

array! {
    settings: Array Settings, 1;
    pressure: Array Pressure, 1;
    marks: Array u64, capacity::MARKS;
    ports: Array u64, capacity::PORTS;
    cursors: Array u64, capacity::SERVICES;
    backends: Array Backend, capacity::BACKENDS;
    nodes: Array Node, capacity::NODES;
    path_mtus: Array PathMtu, capacity::NODES;
    counters: PerCpuArray Counter, capacity::COUNTERS;
    service_counters: PerCpuArray ServiceCounter, capacity::SERVICES;
    scratch: PerCpuArray Scratch, 1;
    collecting: PerCpuArray Scratch, 1;
    routes: PerCpuArray Kept, 1 << route::PLACES_SHIFT;
    recent: PerCpuArray KeptInterface, 1 << route::PLACES_SHIFT;
    ways: PerCpuArray KeptWay, 1 << way::PLACES_SHIFT;
}

/// Its key is a [`SourceKey`].
#[btf_map]
pub(crate) static sources: LpmTrie<Source, u32, { capacity::SOURCES as usize }> = LpmTrie::new();

/// A [`SourceKey`] without its bits, which are the first word of every trie's key.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub(crate) service: u32,
    pub(crate) address: Address,
}

/// Where the programs go on that are attached to workload interfaces, and others with what needs a stack of its own.
#[btf_map]
pub(crate) static jumps: ProgramArray<{ capacity::JUMPS as usize }> = ProgramArray::new();

/// No connections: what is evicted costs one datagram.
#[btf_map]
pub(crate) static fragments: LruHashMap<FragmentKey, Fragment, { capacity::FRAGMENTS as usize }> = LruHashMap::new();

/// Keys and queries under construction: the stack has 512 bytes for a program and all that it calls. Programs of one CPU
/// do not interrupt each other, but for the collector, which has one to itself.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) flow4: FlowKey4,
    pub(crate) flow6: FlowKey6,
    pub(crate) endpoint: EndpointKey,
    pub(crate) vip: VipKey,
    pub(crate) source: SourceKey,
    pub(crate) interface: InterfaceKey,
    pub(crate) route: RouteQuery,
    pub(crate) reply: Copied,
    pub(crate) clock: Clock,
    pub(crate) work: Work,
}

/// The coarse clock as it was read last.
#[repr(C)]
pub(crate) struct Clock {
    /// `jiffies` then: the clock moves when they do.
    pub(crate) jiffies: u64,
    pub(crate) now: u32,
    pub(crate) _pad: u32,
}

/// A reply as it was when it was looked up.
#[repr(C, align(8))]
pub(crate) struct Copied(pub(crate) Reply);

/// `struct bpf_fib_lookup` of `include/uapi/linux/bpf.h`, without its unions: their type information is one that the kernel
/// refuses.
#[repr(C)]
#[derive(Default)]
pub(crate) struct RouteQuery {
    pub(crate) family: u8,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) length: u16,
    pub(crate) ifindex: u32,
    pub(crate) tos: u32,
    /// IPv4 in the first word.
    pub(crate) source: [u32; 4],
    /// IPv4 in the first word.
    pub(crate) destination: [u32; 4],
    pub(crate) vlan: u32,
    pub(crate) source_mac: [u8; 6],
    pub(crate) destination_mac: [u8; 6],
}

const _: () = assert!(size_of::<RouteQuery>() == size_of::<bpf_fib_lookup>());
