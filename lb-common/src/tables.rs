//! The trait through which the pipeline reads and writes tables, and asks the kernel for a route.

use core::ops::Deref;

use crate::abi::{
    Backend, EndpointKey, FLOW_ENDED, Flow, Fragment, FragmentKey, Frontend, Interface, InterfaceKey, NAMESPACE_NODE,
    Node, NodeAddress, PathMtu, Pressure, Reply, Service, Settings, SlotKey,
};
use crate::address::Address;
use crate::flow::{self, Opening, Step};
use crate::pipeline::{self, Found, Work};
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::way::KeptWay;
use crate::wire::parse::Headers;

/// A flow in its table; changes go straight there.
pub trait FlowEntry: Clone {
    /// All of it.
    fn load(&self) -> Flow;
    /// Notes a packet.
    fn set_last_seen(&self, tick: u32);
    /// Whether it has been ended.
    fn ended(&self) -> bool {
        self.load().state == FLOW_ENDED
    }
    /// Notes a packet of a flow that was long silent, which somebody may be ending: false if so. `seen`: as it was loaded.
    fn wake(&self, seen: &Flow, tick: u32) -> bool;
    /// Ends it, unless it has changed since `seen` was loaded. Who gets true removes or replaces it, and nobody else does.
    fn end(&self, seen: &Flow) -> bool;
    /// Moves it to another state with another timeout.
    fn set_state(&self, state: u8, flags: u8, timeout: u32);
}

/// What became of an insert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// It is there.
    Done,
    /// Another one was there first, and stays.
    Exists,
    /// The one that is there has been ended, and somebody is about to remove it.
    Ending,
    /// The table is full.
    Full,
}

/// Which of the two tables of a family holds a flow or a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// `flows4`, `flows6`, `replies4`, `replies6`: what is in there stays until it ends.
    Main,
    /// Those whose names begin with `overflow`: when one is full, what was least used gives way.
    Overflow,
}

/// Where the kernel would send a packet. Flat, because the verifier refuses to store what one variant leaves unset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// What is known of the next hop.
    pub hop: NextHop,
    /// Interface to leave by; 0 if none.
    pub ifindex: u32,
    /// The interface's own MAC, if the next hop is resolved.
    pub source: [u8; 6],
    /// The next hop's MAC, if it is resolved.
    pub destination: [u8; 6],
    /// Whether the interface takes frames from XDP ([`crate::route::takes_frames`]); false where no program of XDP asks.
    pub takes_frames: bool,
    /// Tick at which the kernel was asked, where answers are kept.
    pub asked: u32,
}

/// What is known of a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NextHop {
    /// There is no route.
    #[default]
    None,
    /// Its MAC.
    Resolved,
    /// Its interface; the MAC is to be resolved.
    Unresolved,
    /// It is the node itself.
    Local,
}

/// The tables. Reads give references that stay valid while the packet is processed.
pub trait Tables {
    /// A value read from a table.
    type Ref<T: Copy + 'static>: Deref<Target = T>;
    /// A flow in its table.
    type Entry: FlowEntry;

    /// The settings.
    fn settings(&self) -> Option<Self::Ref<Settings>>;
    /// By namespace and interface index.
    fn interface(&self, key: InterfaceKey) -> Option<Self::Ref<Interface>>;
    /// An interface that packets come and leave by. It may be as it was a moment ago ([`crate::route`]).
    #[inline(always)]
    fn recent_interface(&self, key: InterfaceKey) -> Option<Self::Ref<Interface>> {
        self.interface(key)
    }
    /// The interface that a packet is on, as [`Tables::recent_interface`].
    #[inline(always)]
    fn way_in(&self, env: &Env) -> Option<Self::Ref<Interface>> {
        self.recent_interface(InterfaceKey::new(env.namespace, env.ifindex))
    }
    /// An interface of the node that packets leave by, as [`Tables::recent_interface`].
    #[inline(always)]
    fn way_out(&self, ifindex: u32) -> Option<Self::Ref<Interface>> {
        self.recent_interface(InterfaceKey::node(ifindex))
    }
    /// Whether there may be a frontend, or a flow to one, on this port of the node's own network ([`crate::abi::port_mark`]).
    fn publishes(&self, protocol: u8, port: u16) -> bool;
    /// Whether there may be a flow inside a network to this port, or a reply from it ([`crate::abi::port_mark`]).
    fn knows_port(&self, protocol: u8, port: u16) -> bool;
    /// Notes that there may be one from now on.
    fn note_port(&self, protocol: u8, port: u16);
    /// By address, port and protocol.
    fn frontend(&self, key: &EndpointKey) -> Option<Self::Ref<Frontend>>;
    /// By id.
    fn service(&self, id: u32) -> Option<Self::Ref<Service>>;
    /// Backend id in a slot.
    fn slot(&self, key: &SlotKey) -> Option<u32>;
    /// Takes the next number of a service; each is given once, whatever CPU asks.
    fn ticket(&self, service: u32) -> Option<u64>;
    /// By id.
    fn backend(&self, id: u32) -> Option<Self::Ref<Backend>>;
    /// Id of the backend on this node with that address.
    fn local_backend(&self, key: &EndpointKey) -> Option<u32>;
    /// By id.
    fn node(&self, id: u32) -> Option<Self::Ref<Node>>;
    /// Whose address it is.
    fn address(&self, address: &Address) -> Option<Self::Ref<NodeAddress>>;
    /// Whether the address is a VIP of the network.
    fn is_vip(&self, address: &Address, network: u32) -> bool;

    /// What the longest prefix of a client's address says that a service knows, `SOURCE_*`; 0: it knows none.
    fn source(&self, service: u32, client: &Address) -> u32;

    /// By the client's tuple.
    fn flow(&self, tuple: &Tuple, table: Table) -> Option<Self::Entry>;
    /// Creates a flow, or replaces it if `replace`; then who calls has ended the one that is there.
    fn insert_flow(&self, tuple: &Tuple, flow: &Flow, replace: bool, table: Table) -> Insert;
    /// Forgets a flow.
    fn remove_flow(&self, tuple: &Tuple, table: Table);
    /// By the backend's tuple.
    fn reply(&self, tuple: &Tuple, table: Table) -> Option<Self::Ref<Reply>>;
    /// Creates a reply, or replaces it if `replace`; then who calls has ended the one that is there.
    fn insert_reply(&self, tuple: &Tuple, reply: &Reply, replace: bool, table: Table) -> Insert;
    /// Ends a reply, unless it has changed since it was `seen`. Who gets true removes or replaces it, and nobody else does.
    fn end_reply(&self, tuple: &Tuple, seen: &Reply, table: Table) -> bool;
    /// Forgets a reply.
    fn remove_reply(&self, tuple: &Tuple, table: Table);

    /// When room was short last.
    fn pressure(&self) -> Option<Self::Ref<Pressure>>;
    /// Notes [`Pressure::full`].
    fn set_full(&self, tick: u32);
    /// Notes [`Pressure::used`].
    fn set_used(&self, tick: u32);

    /// [`flow::step`], which the programs have as functions that the kernel verifies by themselves.
    #[inline(always)]
    fn open(&self, env: &Env, h: &mut Headers, opening: &mut Opening, step: Step) -> Option<Reason>
    where
        Self: Sized,
    {
        flow::step(self, env, h, opening, step)
    }

    /// [`pipeline::find`], which the programs have as such a function too.
    #[inline(always)]
    fn find(&self, env: &Env, work: &mut Work) -> Found
    where
        Self: Sized,
    {
        pipeline::find(self, env, work)
    }

    /// What the way to a node takes, if a router has said so.
    fn path_mtu(&self, node: u32) -> Option<Self::Ref<PathMtu>>;
    /// Notes that.
    fn note_path_mtu(&self, node: u32, path: PathMtu);

    /// What the first fragment of a datagram has told.
    fn fragment(&self, key: &FragmentKey) -> Option<Self::Ref<Fragment>>;
    /// Notes that.
    fn note_fragment(&self, key: &FragmentKey, fragment: &Fragment);

    /// Adds packets to a reason's counter that are not there any more.
    fn count_lost(&self, reason: Reason, packets: u16);

    /// Adds to a service's counters.
    fn count_service(&self, service: u32, flows: u32, bytes: usize, reply: bool);

    /// The way to a node that is kept, or another one in its place.
    #[inline(always)]
    fn kept_way(&self, _node: u32) -> Option<Self::Ref<KeptWay>> {
        None
    }

    /// Keeps the way to a node, where ways are kept.
    #[inline(always)]
    fn keep_way(&self, _node: u32, _way: &KeptWay) {}

    /// Where the kernel would send a packet.
    fn route(&self, source: &Address, destination: &Address, v6: bool) -> Route;
}

/// What the pipeline is told beside packet and tables.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// Now, in ticks.
    pub now: u32,
    /// Interface that the packet is on.
    pub ifindex: u32,
    /// Network namespace of that interface: [`InterfaceKey::namespace`].
    pub namespace: u64,
}

impl Env {
    /// Whether the interface is in the node's own namespace: published ports are balanced, and routes followed, there alone.
    #[inline(always)]
    pub const fn is_node(&self) -> bool {
        self.namespace == NAMESPACE_NODE
    }
}
