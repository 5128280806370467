//! [`MemoryTables`]: the maps as ordered maps in memory, with the kernel's meaning of array, hash and full.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;
use std::vec::Vec;

use crate::abi::{
    Backend, Counter, EndpointKey, FLOW_ENDED, Flow, Fragment, FragmentKey, Frontend, Interface, InterfaceKey,
    NETWORK_NODE, Node, NodeAddress, PathMtu, Pressure, REPLY_ENDED, Reply, Service, ServiceCounter, Settings, SlotKey,
    SourceKey, Vip, VipKey, capacity, port_mark,
};
use crate::address::Address;
use crate::route::takes_frames;
use crate::tables::{FlowEntry, Insert, NextHop, Route, Table, Tables};
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::way::{KeptWay, place};

/// Entries that each flow and reply table takes, here and where fixtures run in the kernel.
pub const FLOWS: usize = 64;

/// A value read from a table.
#[derive(Clone, Copy, Debug)]
pub struct Value<T>(T);

impl<T> Deref for Value<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A flow in its table.
#[derive(Clone, Debug)]
pub struct Entry(Rc<Cell<Flow>>);

impl FlowEntry for Entry {
    fn load(&self) -> Flow {
        self.0.get()
    }

    fn set_last_seen(&self, tick: u32) {
        let flow = self.0.get();
        self.0.set(Flow {
            last_seen: tick,
            ..flow
        });
    }

    fn wake(&self, seen: &Flow, tick: u32) -> bool {
        let flow = self.0.get();
        if flow.state == FLOW_ENDED || flow.last_seen != seen.last_seen {
            return flow.state != FLOW_ENDED;
        }
        self.set_last_seen(tick);
        true
    }

    fn end(&self, seen: &Flow) -> bool {
        let flow = self.0.get();
        let word = |flow: &Flow| (flow.last_seen, flow.source_port, flow.state, flow.flags);
        if flow.state == FLOW_ENDED || word(&flow) != word(seen) {
            return false;
        }
        self.0.set(Flow {
            state: FLOW_ENDED,
            ..flow
        });
        true
    }

    fn set_state(&self, state: u8, flags: u8, timeout: u32) {
        let flow = self.0.get();
        self.0.set(Flow {
            state,
            flags,
            timeout,
            ..flow
        });
    }
}

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
    pub fn marks(&self) -> BTreeMap<u32, u64> {
        let (flows, overflow) = (self.flows.borrow(), self.overflow.borrow());
        let frontends = self.frontends.keys().map(|key| (key.network, key.protocol, key.port));
        let flows = flows.keys().chain(overflow.keys());
        let flows = flows.map(|t| (t.network, t.protocol, t.destination_port));
        let mut marks = BTreeMap::new();
        for (_, protocol, port) in frontends.chain(flows).filter(|(network, ..)| *network == NETWORK_NODE) {
            let (element, bit) = port_mark(protocol, port);
            *marks.entry(element).or_default() |= bit;
        }
        marks
    }

    fn overflow_room(&self) -> usize {
        if self.no_overflow { 0 } else { usize::MAX }
    }

    /// Writes a flow into the overflow table.
    pub fn put_overflow(&self, tuple: Tuple, flow: Flow) {
        let entry = Entry(Rc::new(Cell::new(flow)));
        self.overflow.borrow_mut().insert(tuple, entry);
    }

    /// Writes a reply into the overflow table.
    pub fn put_overflow_reply(&self, tuple: Tuple, reply: Reply) {
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
        self.flows.borrow_mut().insert(tuple, Entry(Rc::new(Cell::new(flow))));
    }

    /// Writes a reply down, whatever was there.
    pub fn put_reply(&self, tuple: Tuple, reply: Reply) {
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

/// As a hash map of `room` entries takes it.
fn insert<V>(map: &mut BTreeMap<Tuple, V>, tuple: &Tuple, value: V, replace: bool, room: usize) -> Insert {
    // Each family has a map of its own.
    let used = map.keys().filter(|key| key.v6 == tuple.v6).count();
    match map.contains_key(tuple) {
        true if !replace => Insert::Exists,
        false if used >= room => Insert::Full,
        _ => {
            map.insert(*tuple, value);
            Insert::Done
        }
    }
}

impl Tables for MemoryTables {
    type Ref<T: Copy + 'static> = Value<T>;
    type Entry = Entry;

    fn settings(&self) -> Option<Value<Settings>> {
        Some(Value(self.settings))
    }

    fn interface(&self, key: InterfaceKey) -> Option<Value<Interface>> {
        self.interfaces.get(&key).copied().map(Value)
    }

    fn publishes(&self, protocol: u8, port: u16) -> bool {
        let (element, bit) = port_mark(protocol, port);
        self.marks().get(&element).is_some_and(|bits| bits & bit != 0)
    }

    fn frontend(&self, key: &EndpointKey) -> Option<Value<Frontend>> {
        self.frontends.get(key).copied().map(Value)
    }

    fn service(&self, id: u32) -> Option<Value<Service>> {
        self.services.get(&id).copied().map(Value)
    }

    fn slot(&self, key: &SlotKey) -> Option<u32> {
        self.slots.get(key).copied()
    }

    fn ticket(&self, service: u32) -> Option<u64> {
        if service >= capacity::SERVICES {
            return None;
        }
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors.entry(service).or_default();
        let ticket = *cursor;
        *cursor = ticket.wrapping_add(1);
        Some(ticket)
    }

    fn backend(&self, id: u32) -> Option<Value<Backend>> {
        let backend = self.backends.get(&id).copied().unwrap_or_default();
        (id < capacity::BACKENDS).then_some(Value(backend))
    }

    fn local_backend(&self, key: &EndpointKey) -> Option<u32> {
        self.local_backends.get(key).copied()
    }

    fn node(&self, id: u32) -> Option<Value<Node>> {
        let node = self.nodes.get(&id).copied().unwrap_or_default();
        (id < capacity::NODES).then_some(Value(node))
    }

    fn address(&self, address: &Address) -> Option<Value<NodeAddress>> {
        self.addresses.get(address).copied().map(Value)
    }

    fn is_vip(&self, address: &Address, network: u32) -> bool {
        self.vips.contains_key(&VipKey {
            address: *address,
            network,
        })
    }

    fn source(&self, service: u32, client: &Address) -> u32 {
        let matches = |key: &SourceKey| {
            let differ = u128::from_be_bytes(key.address.octets()) ^ u128::from_be_bytes(client.octets());
            let bits = key.bits - SourceKey::EVERYBODY;
            key.service == service && (bits == 0 || differ >> (128 - bits) == 0)
        };
        let found = self.sources.iter().filter(|(key, _)| matches(key));
        found.max_by_key(|(key, _)| key.bits).map_or(0, |(_, value)| *value)
    }

    fn flow(&self, tuple: &Tuple, table: Table) -> Option<Entry> {
        match table {
            Table::Main => self.flows.borrow().get(tuple).cloned(),
            Table::Overflow => self.overflow.borrow().get(tuple).cloned(),
        }
    }

    fn insert_flow(&self, tuple: &Tuple, flow: &Flow, replace: bool, table: Table) -> Insert {
        let entry = Entry(Rc::new(Cell::new(*flow)));
        match table {
            Table::Main => insert(&mut self.flows.borrow_mut(), tuple, entry, replace, FLOWS),
            Table::Overflow => insert(
                &mut self.overflow.borrow_mut(),
                tuple,
                entry,
                replace,
                self.overflow_room(),
            ),
        }
    }

    fn remove_flow(&self, tuple: &Tuple, table: Table) {
        match table {
            Table::Main => self.flows.borrow_mut().remove(tuple),
            Table::Overflow => self.overflow.borrow_mut().remove(tuple),
        };
    }

    fn reply(&self, tuple: &Tuple, table: Table) -> Option<Value<Reply>> {
        match table {
            Table::Main => self.replies.borrow().get(tuple).copied(),
            Table::Overflow => self.overflow_replies.borrow().get(tuple).copied(),
        }
        .filter(|reply| reply.kind != REPLY_ENDED)
        .map(Value)
    }

    fn insert_reply(&self, tuple: &Tuple, reply: &Reply, replace: bool, table: Table) -> Insert {
        match table {
            Table::Main => insert(&mut self.replies.borrow_mut(), tuple, *reply, replace, FLOWS),
            Table::Overflow => {
                let mut replies = self.overflow_replies.borrow_mut();
                insert(&mut replies, tuple, *reply, replace, self.overflow_room())
            }
        }
    }

    fn end_reply(&self, tuple: &Tuple, seen: &Reply, table: Table) -> bool {
        let mut replies = match table {
            Table::Main => self.replies.borrow_mut(),
            Table::Overflow => self.overflow_replies.borrow_mut(),
        };
        match replies.get_mut(tuple) {
            Some(reply) if reply.kind != REPLY_ENDED && (reply.kind, reply.bound) == (seen.kind, seen.bound) => {
                reply.kind = REPLY_ENDED;
                true
            }
            _ => false,
        }
    }

    fn remove_reply(&self, tuple: &Tuple, table: Table) {
        match table {
            Table::Main => self.replies.borrow_mut().remove(tuple),
            Table::Overflow => self.overflow_replies.borrow_mut().remove(tuple),
        };
    }

    fn pressure(&self) -> Option<Value<Pressure>> {
        Some(Value(self.pressure.get()))
    }

    fn set_full(&self, tick: u32) {
        let pressure = self.pressure.get();
        self.pressure.set(Pressure { full: tick, ..pressure });
    }

    fn set_used(&self, tick: u32) {
        let pressure = self.pressure.get();
        self.pressure.set(Pressure { used: tick, ..pressure });
    }

    fn path_mtu(&self, node: u32) -> Option<Value<PathMtu>> {
        let path = self.path_mtus.borrow().get(&node).copied();
        (node < capacity::NODES).then(|| Value(path.unwrap_or_default()))
    }

    fn note_path_mtu(&self, node: u32, path: PathMtu) {
        if node < capacity::NODES {
            self.path_mtus.borrow_mut().insert(node, path);
        }
    }

    fn count_lost(&self, reason: Reason, packets: u16) {
        let mut counters = self.counters.borrow_mut();
        counters.entry(reason.code()).or_default().packets += u64::from(packets);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Value<Fragment>> {
        self.fragments.borrow().get(key).copied().map(Value)
    }

    fn note_fragment(&self, key: &FragmentKey, fragment: &Fragment) {
        self.fragments.borrow_mut().insert(*key, *fragment);
    }

    fn count_service(&self, service: u32, flows: u32, bytes: usize, reply: bool) {
        if service >= capacity::SERVICES {
            return;
        }
        let mut counters = self.service_counters.borrow_mut();
        let counter = counters.entry(service).or_default();
        counter.flows += u64::from(flows);
        if bytes == 0 {
            return;
        }
        if reply {
            counter.reply_packets += 1;
            counter.reply_bytes += bytes as u64;
        } else {
            counter.packets += 1;
            counter.bytes += bytes as u64;
        }
    }

    fn kept_way(&self, node: u32) -> Option<Value<KeptWay>> {
        let ways = self.ways.borrow();
        ways.as_ref()?.get(&place(node)).copied().map(Value)
    }

    fn keep_way(&self, node: u32, way: &KeptWay) {
        if let Some(ways) = self.ways.borrow_mut().as_mut() {
            ways.insert(place(node), *way);
        }
    }

    fn route(&self, source: &Address, destination: &Address, v6: bool) -> Route {
        let forwarded = !v6 || !(stays(source) || stays(destination));
        let paths = self.paths.iter().filter(|path| forwarded && path.matches(destination));
        match paths.max_by_key(|path| path.bits) {
            Some(path) => {
                let interface = self.interface(InterfaceKey::node(path.route.ifindex));
                Route {
                    takes_frames: interface.is_some_and(|found| takes_frames(&found)),
                    ..path.route
                }
            }
            None => Route {
                hop: NextHop::Local,
                ..Route::default()
            },
        }
    }
}

/// Whether the kernel forwards nothing from or to this IPv6 address: of one link alone, of a group, of the node itself
/// (`rt6_need_strict`, include/net/ip6_route.h).
fn stays(address: &Address) -> bool {
    let ip = std::net::Ipv6Addr::from(address.octets());
    ip.is_unicast_link_local() || ip.is_multicast() || ip.is_loopback()
}
