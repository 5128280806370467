//! What a lookup gives: a copy of a value, or a flow that stays in its table.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use crate::abi::{FLOW_ENDED, Flow};
use crate::tables::FlowEntry;

/// A value read from a table.
#[derive(Clone, Copy, Debug)]
pub struct Value<T>(pub(super) T);

impl<T> Deref for Value<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A flow in its table.
#[derive(Clone, Debug)]
pub struct Entry(pub(super) Rc<Cell<Flow>>);

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
