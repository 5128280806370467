//! The tables as the pipeline uses them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Entry, FLOWS, MemoryTables, Value, ports};
use crate::abi::{
    Backend, EndpointKey, Flow, Fragment, FragmentKey, Frontend, Interface, InterfaceKey, Node, NodeAddress, PathMtu,
    Pressure, REPLY_ENDED, Reply, Service, Settings, SlotKey, SourceKey, VipKey, capacity,
};
use crate::address::Address;
use crate::route::takes_frames;
use crate::tables::{Insert, NextHop, Route, Table, Tables};
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::way::{KeptWay, place};

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
        ports::has(&self.marks(), protocol, port)
    }

    fn knows_port(&self, protocol: u8, port: u16) -> bool {
        ports::has(&self.ports(), protocol, port)
    }

    fn note_port(&self, protocol: u8, port: u16) {
        self.note((protocol, port));
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

/// Whether the kernel forwards nothing from or to this IPv6 address: of one link alone, of a group, of the node itself
/// (`rt6_need_strict`, include/net/ip6_route.h).
fn stays(address: &Address) -> bool {
    let ip = std::net::Ipv6Addr::from(address.octets());
    ip.is_unicast_link_local() || ip.is_multicast() || ip.is_loopback()
}
