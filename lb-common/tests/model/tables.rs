//! The tables as the packet path and the collector see them: every access to what is shared is a step.

use std::ops::Deref;

use lb_common::abi::{
    Backend, EndpointKey, FLOW_ENDED, Flow, Fragment, FragmentKey, Frontend, Interface, InterfaceKey, Node,
    NodeAddress, PathMtu, Pressure, REPLY_ENDED, Reply, Service, Settings, SlotKey,
};
use lb_common::address::Address;
use lb_common::tables::{FlowEntry, Insert, Route, Table, Tables};
use lb_common::tuple::Tuple;
use lb_common::verdict::Reason;

use crate::schedule::{Actor, Without};
use crate::world::settings;

#[derive(Clone)]
pub(crate) struct Entry {
    actor: Actor,
    element: usize,
}

pub(crate) fn word(flow: &Flow) -> (u32, u16, u8, u8) {
    (flow.last_seen, flow.source_port, flow.state, flow.flags)
}

impl Entry {
    fn access<R>(&self, access: impl FnOnce(&mut Flow) -> R) -> R {
        self.actor.step(|state| access(&mut state.elements[self.element]))
    }
}

impl FlowEntry for Entry {
    fn load(&self) -> Flow {
        self.access(|flow| *flow)
    }

    fn set_last_seen(&self, tick: u32) {
        self.access(|flow| flow.last_seen = tick);
    }

    fn wake(&self, seen: &Flow, tick: u32) -> bool {
        let without = self.actor.shared.without;
        self.access(|flow| {
            if without == Without::Wake || word(flow) == word(seen) {
                flow.last_seen = tick;
                return true;
            }
            flow.state != FLOW_ENDED
        })
    }

    fn end(&self, seen: &Flow) -> bool {
        let without = self.actor.shared.without;
        self.access(|flow| {
            if without == Without::End {
                return true;
            }
            let same = word(flow) == word(seen);
            if same {
                flow.state = FLOW_ENDED;
            }
            same
        })
    }

    fn set_state(&self, state: u8, flags: u8, timeout: u32) {
        self.access(|flow| (flow.state, flow.flags, flow.timeout) = (state, flags, timeout));
    }
}

/// A value that was read.
pub(crate) struct Value<T>(T);

impl<T> Deref for Value<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl Tables for Actor {
    type Ref<T: Copy + 'static> = Value<T>;
    type Entry = Entry;

    fn settings(&self) -> Option<Value<Settings>> {
        Some(Value(settings()))
    }

    fn interface(&self, _: InterfaceKey) -> Option<Value<Interface>> {
        None
    }

    fn publishes(&self, _: u8, _: u16) -> bool {
        true
    }

    // Set before what it stands for is written, and for good.
    fn knows_port(&self, _: u8, _: u16) -> bool {
        true
    }

    fn note_port(&self, _: u8, _: u16) {}

    fn frontend(&self, _: &EndpointKey) -> Option<Value<Frontend>> {
        None
    }

    fn service(&self, _: u32) -> Option<Value<Service>> {
        Some(Value(self.configured(|state| state.service)))
    }

    fn slot(&self, key: &SlotKey) -> Option<u32> {
        self.configured(|state| state.slots.get(key).copied())
    }

    fn ticket(&self, _: u32) -> Option<u64> {
        let mut state = self.shared.state.lock().unwrap();
        state.ticket += 1;
        Some(state.ticket - 1)
    }

    fn backend(&self, id: u32) -> Option<Value<Backend>> {
        Some(Value(self.configured(|state| {
            state.backends.get(&id).copied().unwrap_or_default()
        })))
    }

    fn local_backend(&self, _: &EndpointKey) -> Option<u32> {
        None
    }

    fn node(&self, _: u32) -> Option<Value<Node>> {
        None
    }

    fn address(&self, _: &Address) -> Option<Value<NodeAddress>> {
        None
    }

    fn is_vip(&self, _: &Address, _: u32) -> bool {
        false
    }

    fn flow(&self, tuple: &Tuple, table: Table) -> Option<Entry> {
        let element = self.step(|state| state.flows.get(&(table == Table::Main, *tuple)).copied())?;
        Some(Entry {
            actor: self.clone(),
            element,
        })
    }

    fn insert_flow(&self, tuple: &Tuple, flow: &Flow, replace: bool, table: Table) -> Insert {
        self.step(|state| {
            let key = (table == Table::Main, *tuple);
            if !replace && state.flows.contains_key(&key) {
                return Insert::Exists;
            }
            state.elements.push(*flow);
            state.flows.insert(key, state.elements.len() - 1);
            Insert::Done
        })
    }

    fn remove_flow(&self, tuple: &Tuple, table: Table) {
        self.step(|state| state.flows.remove(&(table == Table::Main, *tuple)));
    }

    fn reply(&self, tuple: &Tuple, table: Table) -> Option<Value<Reply>> {
        let element = self.step(|state| state.replies.get(&(table == Table::Main, *tuple)).copied())?;
        let read = || self.step(|state| state.ways_back[element]);
        if self.shared.without == Without::Copy {
            return (read().kind != REPLY_ENDED).then(|| Value(read()));
        }
        // Its last word, which alone ever changes, is read in one step.
        let reply = read();
        (reply.kind != REPLY_ENDED).then_some(Value(reply))
    }

    fn insert_reply(&self, tuple: &Tuple, reply: &Reply, replace: bool, table: Table) -> Insert {
        self.step(|state| {
            let main = table == Table::Main;
            if !replace && state.replies.contains_key(&(main, *tuple)) {
                return Insert::Exists;
            }
            state.put_reply(main, *tuple, *reply);
            Insert::Done
        })
    }

    fn end_reply(&self, tuple: &Tuple, seen: &Reply, table: Table) -> bool {
        if self.shared.without == Without::End {
            return self.step(|_| true);
        }
        let Some(element) = self.step(|state| state.replies.get(&(table == Table::Main, *tuple)).copied()) else {
            return false;
        };
        self.step(|state| {
            let reply = &mut state.ways_back[element];
            let same = (reply.kind, reply.bound) == (seen.kind, seen.bound);
            if same {
                reply.kind = REPLY_ENDED;
            }
            same
        })
    }

    fn remove_reply(&self, tuple: &Tuple, table: Table) {
        self.step(|state| state.replies.remove(&(table == Table::Main, *tuple)));
    }

    fn pressure(&self) -> Option<Value<Pressure>> {
        Some(Value(self.shared.state.lock().unwrap().pressure))
    }

    fn set_full(&self, tick: u32) {
        self.shared.state.lock().unwrap().pressure.full = tick;
    }

    fn set_used(&self, tick: u32) {
        self.shared.state.lock().unwrap().pressure.used = tick;
    }

    fn count_lost(&self, _: Reason, _: u16) {}

    fn count_service(&self, _: u32, _: u32, _: usize, _: bool) {}

    fn fragment(&self, _: &FragmentKey) -> Option<Value<Fragment>> {
        None
    }

    fn note_fragment(&self, _: &FragmentKey, _: &Fragment) {}

    fn path_mtu(&self, _: u32) -> Option<Value<PathMtu>> {
        None
    }

    fn note_path_mtu(&self, _: u32, _: PathMtu) {}

    fn source(&self, _: u32, _: &Address) -> u32 {
        0
    }

    fn route(&self, _: &Address, _: &Address, _: bool) -> Route {
        Route::default()
    }
}
