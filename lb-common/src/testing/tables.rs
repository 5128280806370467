//! [`MemoryTables`]: the maps as ordered maps in memory, with the kernel's meaning of array, hash and full.

mod access;
mod entry;
pub mod ports;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use self::ports::Bits;
use crate::abi::{
    Backend, Counter, EndpointKey, Flow, Fragment, FragmentKey, Frontend, Interface, InterfaceKey, NETWORK_NODE, Node,
    NodeAddress, PathMtu, Pressure, Reply, Service, ServiceCounter, Settings, SlotKey, SourceKey, Vip, VipKey,
};
use crate::address::Address;
use crate::tables::{FlowEntry as _, Route};
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::way::KeptWay;

pub use entry::{Entry, Value};

/// Entries that each flow and reply table takes, here and where fixtures run in the kernel.
pub const FLOWS: usize = 64;

/// A route to a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// First address.
    pub destination: Address,
    /// Length of the prefix, of 32 or 128 bits.
    pub bits: u8,
    /// Through this router; `None`: on the link.
    pub gateway: Option<Address>,
    /// Where the kernel sends what goes there.
    pub route: Route,
}

impl Path {
    fn matches(&self, address: &Address) -> bool {
        if self.destination.is_v4() != address.is_v4() {
            return false;
        }
        let bits = if address.is_v4() { 96 + self.bits } else { self.bits };
        let differ = u128::from_be_bytes(self.destination.octets()) ^ u128::from_be_bytes(address.octets());
        bits == 0 || differ >> (128 - bits) == 0
    }
}

/// Every table, the routes and the counters.
#[derive(Debug, Default)]
pub struct MemoryTables {
    /// `settings`.
    pub settings: Settings,
    /// `interfaces`.
    pub interfaces: BTreeMap<InterfaceKey, Interface>,
    /// `frontends`.
    pub frontends: BTreeMap<EndpointKey, Frontend>,
    /// `services`.
    pub services: BTreeMap<u32, Service>,
    /// `slots`.
    pub slots: BTreeMap<SlotKey, u32>,
    /// `backends`; an element that is not here is all zero.
    pub backends: BTreeMap<u32, Backend>,
    /// `local_backends`.
    pub local_backends: BTreeMap<EndpointKey, u32>,
    /// `nodes`; an element that is not here is all zero.
    pub nodes: BTreeMap<u32, Node>,
    /// `addresses`.
    pub addresses: BTreeMap<Address, NodeAddress>,
    /// `vips`.
    pub vips: BTreeMap<VipKey, Vip>,
    /// `sources`; the longest prefix wins.
    pub sources: BTreeMap<SourceKey, u32>,
    /// Where packets go; the longest prefix wins. What matches none is not forwarded.
    pub paths: Vec<Path>,
    /// `cursors`; an element that is not here is zero.
    pub cursors: RefCell<BTreeMap<u32, u64>>,
    flows: RefCell<BTreeMap<Tuple, Entry>>,
    replies: RefCell<BTreeMap<Tuple, Reply>>,
    /// `fragments`.
    pub fragments: RefCell<BTreeMap<FragmentKey, Fragment>>,
    overflow: RefCell<BTreeMap<Tuple, Entry>>,
    overflow_replies: RefCell<BTreeMap<Tuple, Reply>>,
    ports: RefCell<Bits>,
    pressure: Cell<Pressure>,
    /// `path_mtus`; an element that is not here is all zero.
    pub path_mtus: RefCell<BTreeMap<u32, PathMtu>>,
    /// Ways that were kept, by their place; None: none are.
    pub ways: RefCell<Option<BTreeMap<u32, KeptWay>>>,
    /// The overflow tables take nothing; the kernel's do as long as it has memory.
    pub no_overflow: bool,
    counters: RefCell<BTreeMap<u8, Counter>>,
    service_counters: RefCell<BTreeMap<u32, ServiceCounter>>,
}

impl Clone for MemoryTables {
    fn clone(&self) -> Self {
        let copy = |flows: BTreeMap<Tuple, Flow>| {
            let flows = flows.into_iter();
            RefCell::new(flows.map(|(t, f)| (t, Entry(Rc::new(Cell::new(f))))).collect())
        };
        Self {
            settings: self.settings,
            interfaces: self.interfaces.clone(),
            frontends: self.frontends.clone(),
            services: self.services.clone(),
            slots: self.slots.clone(),
            backends: self.backends.clone(),
            local_backends: self.local_backends.clone(),
            nodes: self.nodes.clone(),
            addresses: self.addresses.clone(),
            vips: self.vips.clone(),
            sources: self.sources.clone(),
            paths: self.paths.clone(),
            cursors: self.cursors.clone(),
            flows: copy(self.flows()),
            replies: self.replies.clone(),
            fragments: self.fragments.clone(),
            overflow: copy(self.overflow()),
            overflow_replies: self.overflow_replies.clone(),
            ports: self.ports.clone(),
            pressure: self.pressure.clone(),
            path_mtus: self.path_mtus.clone(),
            ways: self.ways.clone(),
            no_overflow: self.no_overflow,
            counters: self.counters.clone(),
            service_counters: self.service_counters.clone(),
        }
    }
}

impl MemoryTables {
    /// Every flow.
    pub fn flows(&self) -> BTreeMap<Tuple, Flow> {
        self.flows.borrow().iter().map(|(t, e)| (*t, e.load())).collect()
    }

    /// Every flow in the overflow table.
    pub fn overflow(&self) -> BTreeMap<Tuple, Flow> {
        self.overflow.borrow().iter().map(|(t, e)| (*t, e.load())).collect()
    }

    /// Every reply in the overflow table.
    pub fn overflow_replies(&self) -> BTreeMap<Tuple, Reply> {
        self.overflow_replies.borrow().clone()
    }

    /// `pressure`.
    pub fn pressed(&self) -> Pressure {
        self.pressure.get()
    }

    /// Sets `pressure`.
    pub fn press(&self, pressure: Pressure) {
        self.pressure.set(pressure);
    }

    /// The bits that are set in `marks`: of every published port and of every flow to one.
    pub fn marks(&self) -> Bits {
        let (flows, overflow) = (self.flows.borrow(), self.overflow.borrow());
        let frontends = self.frontends.keys().map(|key| (key.network, key.protocol, key.port));
        let flows = flows.keys().chain(overflow.keys());
        let flows = flows.map(|t| (t.network, t.protocol, t.destination_port));
        let mut marks = Bits::new();
        for (_, protocol, port) in frontends.chain(flows).filter(|(network, ..)| *network == NETWORK_NODE) {
            ports::set(&mut marks, protocol, port);
        }
        marks
    }

    /// `ports`: of every flow inside a network and every reply that was ever written.
    pub fn ports(&self) -> Bits {
        self.ports.borrow().clone()
    }

    /// What is in the tables although its port was not noted: nobody would look for it.
    pub fn unnoted(&self) -> Vec<Tuple> {
        let (flows, overflow) = (self.flows.borrow(), self.overflow.borrow());
        let (replies, displaced) = (self.replies.borrow(), self.overflow_replies.borrow());
        let noted = self.ports.borrow();
        ports::unnoted(
            flows.keys().chain(overflow.keys()),
            replies.keys().chain(displaced.keys()),
            |element| noted.get(&element).copied().unwrap_or_default(),
        )
    }

    fn note(&self, (protocol, port): (u8, u16)) {
        ports::set(&mut self.ports.borrow_mut(), protocol, port);
    }

    fn overflow_room(&self) -> usize {
        if self.no_overflow { 0 } else { usize::MAX }
    }

    /// Writes a flow into the overflow table.
    pub fn put_overflow(&self, tuple: Tuple, flow: Flow) {
        let entry = Entry(Rc::new(Cell::new(flow)));
        ports::of_flow(&tuple).into_iter().for_each(|port| self.note(port));
        self.overflow.borrow_mut().insert(tuple, entry);
    }

    /// Writes a reply into the overflow table.
    pub fn put_overflow_reply(&self, tuple: Tuple, reply: Reply) {
        self.note(ports::of_reply(&tuple));
        self.overflow_replies.borrow_mut().insert(tuple, reply);
    }

    /// Every reply.
    pub fn replies(&self) -> BTreeMap<Tuple, Reply> {
        self.replies.borrow().clone()
    }

    /// Packets by reason code, where there are any.
    pub fn counters(&self) -> BTreeMap<u8, Counter> {
        self.counters.borrow().clone()
    }

    /// Counters by service, where one is not zero.
    pub fn service_counters(&self) -> BTreeMap<u32, ServiceCounter> {
        self.service_counters.borrow().clone()
    }

    /// Writes a flow down, whatever was there.
    pub fn put_flow(&self, tuple: Tuple, flow: Flow) {
        ports::of_flow(&tuple).into_iter().for_each(|port| self.note(port));
        self.flows.borrow_mut().insert(tuple, Entry(Rc::new(Cell::new(flow))));
    }

    /// Writes a reply down, whatever was there.
    pub fn put_reply(&self, tuple: Tuple, reply: Reply) {
        self.note(ports::of_reply(&tuple));
        self.replies.borrow_mut().insert(tuple, reply);
    }

    /// Adds a frame to a reason's counter, as the programs do behind the pipeline.
    pub fn count(&self, reason: Reason, bytes: usize) {
        let mut counters = self.counters.borrow_mut();
        let counter = counters.entry(reason.code()).or_default();
        counter.packets += 1;
        counter.bytes += bytes as u64;
    }

    /// Moves every flow's and every fragment's clock by `ticks`, and that of the pressure.
    pub fn shift(&self, ticks: u32) {
        for fragment in self.fragments.borrow_mut().values_mut() {
            fragment.seen = fragment.seen.wrapping_add(ticks);
        }
        for path in self.path_mtus.borrow_mut().values_mut() {
            path.since = path.since.wrapping_add(ticks);
        }
        let Pressure { full, used } = self.pressure.get();
        let moved = |stamp: u32| if stamp == 0 { 0 } else { stamp.wrapping_add(ticks) | 1 };
        self.pressure.set(Pressure {
            full: moved(full),
            used: moved(used),
        });
        let (flows, overflow) = (self.flows.borrow(), self.overflow.borrow());
        for Entry(cell) in flows.values().chain(overflow.values()) {
            let flow = cell.get();
            cell.set(Flow {
                last_seen: flow.last_seen.wrapping_add(ticks),
                created: flow.created.wrapping_add(ticks),
                ..flow
            });
        }
    }
}
