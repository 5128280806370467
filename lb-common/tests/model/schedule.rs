//! What the actors share, and whose step it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use lb_common::abi::{Backend, Flow, Pressure, Reply, Service, SlotKey};
use lb_common::address::Address;
use lb_common::tuple::Tuple;
use lb_common::verdict::Reason;

/// A protection that is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Without {
    Nothing,
    /// Entries are removed and replaced without being ended first.
    End,
    /// Whether a reply is ended is asked before it is copied, not of the copy.
    Copy,
    /// A packet does not ask whether its long silent flow is being ended.
    Wake,
    /// A number is given to another backend with the same generation.
    Generation,
    /// The agent does not wait for packets that are on their way.
    Settle,
    /// The service flips after its old backend begins to drain, not before it is gone: new flows may still choose it.
    Flip,
}

/// What the actors share. A pointer to an element that was replaced still leads to the old one.
#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) flows: BTreeMap<(bool, Tuple), usize>,
    pub(crate) elements: Vec<Flow>,
    pub(crate) replies: BTreeMap<(bool, Tuple), usize>,
    pub(crate) ways_back: Vec<Reply>,
    pub(crate) backends: BTreeMap<u32, Backend>,
    pub(crate) service: Service,
    pub(crate) slots: BTreeMap<SlotKey, u32>,
    pub(crate) ticket: u64,
    pub(crate) pressure: Pressure,
    // The schedule: whose step it is, who has ended, and the choices so far with the number of actors there were.
    pub(crate) current: usize,
    pub(crate) ended: Vec<bool>,
    pub(crate) begun: Vec<bool>,
    /// Who waits until all that have begun have ended.
    pub(crate) waits: Vec<bool>,
    pub(crate) prefix: Vec<usize>,
    pub(crate) trace: Vec<(usize, usize)>,
    /// Where packets went, by actor.
    pub(crate) sent: BTreeMap<usize, Result<Address, Reason>>,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
    pub(crate) without: Without,
    /// Backends and slots change meanwhile: reading them is a step too.
    pub(crate) agent: bool,
}

/// The tables as one actor has them.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) shared: Arc<Shared>,
    /// None: after the run, when nobody else is there.
    pub(crate) number: Option<usize>,
}

impl State {
    /// Puts a reply into a table, in an element of its own.
    pub(crate) fn put_reply(&mut self, main: bool, tuple: Tuple, reply: Reply) {
        self.ways_back.push(reply);
        self.replies.insert((main, tuple), self.ways_back.len() - 1);
    }

    /// Chooses who goes on.
    pub(crate) fn choose(&mut self) {
        let all = 0..self.ended.len();
        let running = |n: usize| self.begun[n] && !self.ended[n];
        let held = |n: usize| self.waits[n] && all.clone().any(|other| other != n && running(other));
        let enabled: Vec<usize> = all.clone().filter(|n| !self.ended[*n] && !held(*n)).collect();
        if enabled.is_empty() {
            return;
        }
        let choice = self.prefix.get(self.trace.len()).copied().unwrap_or(0);
        self.trace.push((choice, enabled.len()));
        self.current = enabled[choice];
    }
}

impl Actor {
    fn wait(&self, mut state: MutexGuard<'_, State>, number: usize) {
        while state.current != number {
            state = self.shared.changed.wait(state).unwrap();
        }
    }

    /// One access to what is shared.
    pub(crate) fn step<R>(&self, access: impl FnOnce(&mut State) -> R) -> R {
        if let Some(number) = self.number {
            let mut state = self.shared.state.lock().unwrap();
            state.choose();
            if state.current != number {
                self.shared.changed.notify_all();
                self.wait(state, number);
            }
        }
        let mut state = self.shared.state.lock().unwrap();
        if let Some(number) = self.number {
            state.begun[number] = true;
            state.waits[number] = false;
        }
        access(&mut state)
    }

    /// Waits until every packet that is on its way now has been dealt with, as the agent does after a flip
    /// (`WriteTables::settle`).
    pub(crate) fn settle(&self) {
        let number = self.number.expect("one of the actors");
        self.shared.state.lock().unwrap().waits[number] = true;
        self.step(|_| ());
    }

    /// As [`Actor::step`], where the agent is one of the actors.
    pub(crate) fn configured<R>(&self, access: impl FnOnce(&mut State) -> R) -> R {
        if self.shared.agent {
            return self.step(access);
        }
        access(&mut self.shared.state.lock().unwrap())
    }

    /// Runs `work` as one of the actors.
    pub(crate) fn act(&self, work: impl FnOnce(&Self)) {
        let number = self.number.expect("one of the actors");
        self.wait(self.shared.state.lock().unwrap(), number);
        work(self);
        let mut state = self.shared.state.lock().unwrap();
        state.ended[number] = true;
        state.choose();
        self.shared.changed.notify_all();
    }
}
