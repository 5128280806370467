//! The flow table under every interleaving of packets, the collector and the agent.
//!
//! Each actor runs the real functions of the packet path, or of [`collect`], over tables whose every shared access is a
//! step. One actor runs at a time, and which one takes the next step is tried in every order, by running the scene again
//! for each. After each run the scene's promises are judged with packets that come later. The world is small: one service
//! with two backends, one client. Each protection is taken away once, to see that a promise breaks without it.
//!
//! Not in here: the overflow tables give nothing way (what is displaced there is made again by hash, see the fixtures), and
//! an element that was removed is not given to another key at once, as the kernel may do.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use lb_common::abi::{
    BACKEND_DRAINING, BACKEND_GONE, BACKEND_READY, Backend, EndpointKey, FLOW_CLOSED, FLOW_ENDED, FLOW_ESTABLISHED,
    FLOW_NEW, Flow, Fragment, FragmentKey, Frontend, Interface, InterfaceKey, NAMESPACE_NODE, Node, NodeAddress,
    PathMtu, Pressure, REPLY_ENDED, REPLY_VIP, Reply, Service, Settings, SlotKey, TCP,
};
use lb_common::address::Address;
use lb_common::flow::{self, Known, Opening};
use lb_common::tables::{Env, FlowEntry, Insert, Route, Table, Tables};
use lb_common::tuple::Tuple;
use lb_common::verdict::Reason;
use lb_common::wire::parse::Headers;
use lb_common::{collect, pressure, track};

const NOW: u32 = 50_000_000;
const SYN: u8 = 2;
const ACK: u8 = 16;
const SERVICE: u32 = 1;
/// The backends' ids.
const A: u32 = 0;
const B: u32 = 1;
/// No scene needs more runs.
const RUNS: usize = 300_000;

/// A protection that is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Without {
    Nothing,
    /// Entries are removed and replaced without being ended first.
    End,
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
struct State {
    flows: BTreeMap<(bool, Tuple), usize>,
    elements: Vec<Flow>,
    replies: BTreeMap<(bool, Tuple), Reply>,
    backends: BTreeMap<u32, Backend>,
    service: Service,
    slots: BTreeMap<SlotKey, u32>,
    ticket: u64,
    pressure: Pressure,
    // The schedule: whose step it is, who has ended, and the choices so far with the number of actors there were.
    current: usize,
    ended: Vec<bool>,
    begun: Vec<bool>,
    /// Who waits until all that have begun have ended.
    waits: Vec<bool>,
    prefix: Vec<usize>,
    trace: Vec<(usize, usize)>,
    /// Where packets went, by actor.
    sent: BTreeMap<usize, Result<Address, Reason>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    without: Without,
    /// Backends and slots change meanwhile: reading them is a step too.
    agent: bool,
}

/// The tables as one actor has them.
#[derive(Clone)]
struct Actor {
    shared: Arc<Shared>,
    /// None: after the run, when nobody else is there.
    number: Option<usize>,
}

impl State {
    /// Chooses who goes on.
    fn choose(&mut self) {
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
    fn step<R>(&self, access: impl FnOnce(&mut State) -> R) -> R {
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
    fn settle(&self) {
        let number = self.number.expect("one of the actors");
        self.shared.state.lock().unwrap().waits[number] = true;
        self.step(|_| ());
    }

    /// As [`Actor::step`], where the agent is one of the actors.
    fn configured<R>(&self, access: impl FnOnce(&mut State) -> R) -> R {
        if self.shared.agent {
            return self.step(access);
        }
        access(&mut self.shared.state.lock().unwrap())
    }

    /// Runs `work` as one of the actors.
    fn act(&self, work: impl FnOnce(&Self)) {
        let number = self.number.expect("one of the actors");
        self.wait(self.shared.state.lock().unwrap(), number);
        work(self);
        let mut state = self.shared.state.lock().unwrap();
        state.ended[number] = true;
        state.choose();
        self.shared.changed.notify_all();
    }
}

#[derive(Clone)]
struct Entry {
    actor: Actor,
    element: usize,
}

fn word(flow: &Flow) -> (u32, u16, u8, u8) {
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
struct Value<T>(T);

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
        let reply = self.step(|state| state.replies.get(&(table == Table::Main, *tuple)).copied())?;
        (reply.kind != REPLY_ENDED).then_some(Value(reply))
    }

    fn insert_reply(&self, tuple: &Tuple, reply: &Reply, replace: bool, table: Table) -> Insert {
        self.step(|state| {
            let key = (table == Table::Main, *tuple);
            if !replace && state.replies.contains_key(&key) {
                return Insert::Exists;
            }
            state.replies.insert(key, *reply);
            Insert::Done
        })
    }

    fn end_reply(&self, tuple: &Tuple, seen: &Reply, table: Table) -> bool {
        let without = self.shared.without;
        self.step(|state| match state.replies.get_mut(&(table == Table::Main, *tuple)) {
            _ if without == Without::End => true,
            Some(reply) if (reply.kind, reply.bound) == (seen.kind, seen.bound) => {
                reply.kind = REPLY_ENDED;
                true
            }
            _ => false,
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

fn settings() -> Settings {
    Settings {
        tcp_syn: 30_000,
        tcp_established: 7_000_000,
        tcp_closing: 100_000,
        tcp_closed: 10_000,
        ..Settings::default()
    }
}

fn address(id: u32) -> Address {
    Address::v4([10, 5, 0, 10 + id as u8])
}

fn backend(id: u32) -> Backend {
    Backend {
        address: address(id),
        delivery: address(id),
        network: 5,
        delivery_network: 5,
        generation: 1,
        port: 80,
        protocol: TCP,
        state: BACKEND_READY,
        ..Backend::default()
    }
}

fn tuple() -> Tuple {
    Tuple {
        v6: false,
        source: Address::v4([10, 5, 0, 200]),
        destination: Address::v4([10, 5, 0, 2]),
        source_port: 4000,
        destination_port: 80,
        protocol: TCP,
        network: 5,
    }
}

/// Tuple of the replies of a backend.
fn back(id: u32) -> Tuple {
    Tuple {
        source: address(id),
        destination: tuple().source,
        source_port: 80,
        destination_port: 4000,
        ..tuple()
    }
}

/// A flow to A, silent for so many ticks.
fn to_a(state: u8, timeout: u32, silent: u32) -> Flow {
    Flow {
        backend: A,
        generation: 1,
        service: SERVICE,
        timeout,
        created: NOW - silent,
        last_seen: NOW - silent,
        source_port: 4000,
        state,
        ..Flow::default()
    }
}

/// A and B serve; the flow and its reply, if there is one.
fn world(flow: Option<Flow>) -> State {
    let mut state = State {
        service: Service {
            generation: 1,
            count: 2,
            ..Service::default()
        },
        backends: BTreeMap::from([(A, backend(A)), (B, backend(B))]),
        // The next turn is B's: a flow that is chosen anew is seen to be.
        ticket: 1,
        ..State::default()
    };
    for index in [A, B] {
        let key = SlotKey {
            service: SERVICE,
            generation: 1,
            index,
        };
        state.slots.insert(key, index);
    }
    if let Some(flow) = flow {
        state.elements.push(flow);
        state.flows.insert((true, tuple()), 0);
        let reply = Reply {
            frontend: tuple().destination,
            client: tuple().source,
            frontend_port: 80,
            client_port: 4000,
            network: 5,
            kind: REPLY_VIP,
            bound: flow.created,
        };
        state.replies.insert((true, back(A)), reply);
    }
    state
}

fn env() -> Env {
    Env {
        now: NOW,
        ifindex: 0,
        namespace: NAMESPACE_NODE,
    }
}

/// A packet of the client: the address that it is sent to. What `pipeline::find` and `proceed` do.
fn packet(tables: &Actor, flags: u8) -> Result<Address, Reason> {
    let mut h = Headers {
        flags,
        tuple: tuple(),
        ..Headers::default()
    };
    let mut opening = Opening::default();
    opening.reset();
    let mut service = Some(SERVICE);
    if let Some(entry) = pressure::flow(tables, &env(), &h.tuple) {
        let flow = entry.load();
        opening.meet(&flow);
        if !track::expired(&flow, NOW) {
            match flow::continues(tables, &env(), &entry, &flow, &h) {
                Known::Keep => return delivered(tables, opening.chosen.backend),
                Known::Settle => {
                    opening.settle(entry.clone());
                    service = None;
                }
                Known::Select => service = Some(flow.service),
                Known::Refuse => {
                    flow::forget(tables, &h.tuple);
                    return Err(Reason::ResetBackendGone);
                }
            }
        }
    }
    if let Some(service) = service {
        opening.service = service;
    }
    match flow::begin(tables, &env(), &mut h, &mut opening) {
        Some(reason) => Err(reason),
        None => delivered(tables, opening.chosen.backend),
    }
}

/// As `deliver` does: whatever backend has the number now.
fn delivered(tables: &Actor, id: u32) -> Result<Address, Reason> {
    let backend = tables.backend(id).expect("a backend");
    Ok(*flow::target(&backend, 5))
}

/// Whether an answer of the backend with this address is translated: what `workload::flow_of` does.
fn answered(tables: &Actor, from: Address) -> bool {
    let key = Tuple {
        source: from,
        ..back(A)
    };
    let Some(reply) = pressure::reply(tables, &env(), &key) else {
        return false;
    };
    let Some(entry) = pressure::flow(tables, &env(), &flow::flow_tuple(&reply, &key)) else {
        return false;
    };
    let flow = entry.load();
    let backend = tables.backend(flow.backend).expect("a backend");
    !track::expired(&flow, NOW) && flow::answers(&backend, &flow, &reply, &key)
}

type Work = fn(&Actor);

/// Runs a scene in every order. The first broken promise, and the number of runs.
fn explore(
    world: &State,
    actors: &[Work],
    without: Without,
    agent: bool,
    judge: fn(&Actor, &State) -> Result<(), String>,
) -> (Option<String>, usize) {
    let mut prefix = Vec::new();
    for run in 1..=RUNS {
        let mut state = world.clone();
        state.ended = vec![false; actors.len()];
        state.begun = state.ended.clone();
        state.waits = state.ended.clone();
        state.prefix = prefix;
        state.current = usize::MAX;
        state.choose();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            without,
            agent,
        });
        std::thread::scope(|scope| {
            for (number, work) in actors.iter().enumerate() {
                let actor = Actor {
                    shared: Arc::clone(&shared),
                    number: Some(number),
                };
                scope.spawn(move || actor.act(work));
            }
        });
        let after = Actor {
            shared: Arc::clone(&shared),
            number: None,
        };
        let state = shared.state.lock().unwrap().clone();
        if let Err(broken) = judge(&after, &state) {
            return (Some(format!("{broken}; order {:?}", state.trace)), run);
        }
        let mut trace = state.trace;
        while let Some((choice, of)) = trace.pop() {
            if choice + 1 < of {
                trace.push((choice + 1, of));
                break;
            }
        }
        if trace.is_empty() {
            return (None, run);
        }
        prefix = trace.into_iter().map(|(choice, _)| choice).collect();
    }
    panic!("more than {RUNS} runs");
}

/// Every order keeps the promise, and some order breaks it without the protection.
fn holds(
    world: &State,
    actors: &[Work],
    agent: bool,
    protection: Without,
    judge: fn(&Actor, &State) -> Result<(), String>,
) {
    let (broken, runs) = explore(world, actors, Without::Nothing, agent, judge);
    assert_eq!(broken, None);
    let (broken, tried) = explore(world, actors, protection, agent, judge);
    let broken = broken.unwrap_or_else(|| panic!("{runs} orders hold without {protection:?} too"));
    println!("{runs} orders hold; without {protection:?} number {tried} is broken: {broken}");
}

fn note(actor: &Actor, result: Result<Address, Reason>) {
    let number = actor.number.expect("one of the actors");
    actor.shared.state.lock().unwrap().sent.insert(number, result);
}

fn syn(actor: &Actor) {
    note(actor, packet(actor, SYN));
}

fn segment(actor: &Actor) {
    note(actor, packet(actor, ACK));
}

fn collect_flow(actor: &Actor) {
    collect::flow(actor, &tuple(), Table::Main, NOW, u32::MAX);
}

fn collect_unanswered(actor: &Actor) {
    collect::flow(actor, &tuple(), Table::Main, NOW, 3_000);
}

fn collect_reply(actor: &Actor) {
    collect::reply(actor, &back(A), Table::Main, NOW);
}

fn collect_overflow_reply(actor: &Actor) {
    collect::reply(actor, &back(A), Table::Overflow, NOW);
}

/// The first packet's connection goes on where it began, both ways.
fn goes_on(after: &Actor, state: &State) -> Result<(), String> {
    let first = state.sent[&0].map_err(|reason| format!("the packet is refused: {}", reason.name()))?;
    if !answered(after, first) {
        return Err(format!("the answer of {:?} is not translated", first.to_ip()));
    }
    match packet(after, ACK) {
        Ok(next) if next == first => Ok(()),
        next => Err(format!("began at {:?}, goes on at {next:?}", first.to_ip())),
    }
}

#[test]
fn a_flow_that_begins_where_one_is_collected_lives() {
    let expired = || world(Some(to_a(FLOW_ESTABLISHED, 100_000, 200_000)));
    holds(&expired(), &[syn, collect_flow], false, Without::End, goes_on);
}

#[test]
fn a_reply_that_is_bound_where_one_is_collected_lives() {
    // Its flow is gone already, and the next one gets A.
    let mut lost = world(Some(to_a(FLOW_ESTABLISHED, 100_000, 200_000)));
    lost.flows.clear();
    lost.ticket = 0;
    holds(&lost, &[syn, collect_reply], false, Without::End, goes_on);
}

#[test]
fn a_flow_that_begins_beside_what_the_other_table_has_left_lives() {
    // The client's connection before, to another frontend, is over: its reply is not collected yet.
    let mut lost = world(Some(to_a(FLOW_CLOSED, 10_000, 20_000)));
    lost.flows.clear();
    let left = Reply {
        frontend_port: 81,
        ..lost.replies[&(true, back(A))]
    };
    for main in [true, false] {
        let mut world = lost.clone();
        world.replies = BTreeMap::from([((main, back(A)), left), ((main, back(B)), left)]);
        world.pressure = Pressure {
            full: if main { NOW | 1 } else { 0 },
            used: NOW | 1,
        };
        let collect: Work = if main { collect_reply } else { collect_overflow_reply };
        let (broken, _) = explore(&world, &[syn, collect], Without::Nothing, false, goes_on);
        assert_eq!(broken, None, "in the table itself: {main}");
    }
}

#[test]
fn a_flow_that_wakes_while_it_is_collected_lives_or_begins_anew() {
    // Room is short, and nobody has answered.
    let silent = world(Some(to_a(FLOW_NEW, 30_000, 20_000)));
    holds(&silent, &[syn, collect_unanswered], false, Without::Wake, goes_on);
}

#[test]
fn a_connection_that_ends_while_its_tuple_is_used_again_leaves_the_new_one() {
    // A late segment of the old connection, whose backend is gone, while the client begins again.
    let mut gone = world(Some(to_a(FLOW_ESTABLISHED, 100_000, 10)));
    gone.backends.insert(
        A,
        Backend {
            state: BACKEND_GONE,
            ..backend(A)
        },
    );
    gone.service.count = 1;
    gone.slots = BTreeMap::from([(
        SlotKey {
            service: SERVICE,
            generation: 1,
            index: 0,
        },
        B,
    )]);
    holds(&gone, &[syn, segment], false, Without::End, goes_on);
}

#[test]
fn an_answered_flow_is_never_collected_before_its_time() {
    let live = world(Some(to_a(FLOW_ESTABLISHED, 100_000, 50_000)));
    fn judge(after: &Actor, state: &State) -> Result<(), String> {
        assert_eq!(state.sent[&0], Ok(address(A)));
        goes_on(after, state)
    }
    for collector in [collect_unanswered, collect_reply] {
        let (broken, _) = explore(&live, &[segment, collector], Without::Nothing, false, judge);
        assert_eq!(broken, None);
    }
}

/// B alone serves from the next generation on.
fn flip(actor: &Actor) {
    let key = SlotKey {
        service: SERVICE,
        generation: 2,
        index: 0,
    };
    actor.configured(|state| state.slots.insert(key, B));
    actor.configured(|state| {
        state.service = Service {
            generation: 2,
            count: 1,
            ..state.service
        };
    });
}

fn set_state(actor: &Actor, value: u8) {
    actor.configured(|state| state.backends.get_mut(&A).expect("A").state = value);
}

/// A drains; B serves.
fn drain(actor: &Actor) {
    if actor.shared.without != Without::Flip {
        flip(actor);
    }
    set_state(actor, BACKEND_DRAINING);
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_none() {
    fn judge(after: &Actor, state: &State) -> Result<(), String> {
        if state.sent[&0] != Ok(address(A)) {
            return Err(format!("the connection is disturbed: {:?}", state.sent[&0]));
        }
        goes_on(after, state)?;
        // It ends, and its tuple is used again.
        let entry = after.flow(&tuple(), Table::Main).expect("a flow");
        entry.set_state(FLOW_CLOSED, 0, 10_000);
        match packet(after, SYN) {
            Ok(to) if to == address(B) => Ok(()),
            other => Err(format!("a new connection while A drains: {other:?}")),
        }
    }
    let mut live = world(Some(to_a(FLOW_ESTABLISHED, 100_000, 10)));
    live.ticket = 0;
    holds(&live, &[segment, drain], true, Without::Flip, judge);
}

/// A is removed, and when no packet is on its way any more and no flow refers to it, its number is given to another address: the order of `plan::diff` and the
/// rule of `plan::Reusable`.
fn remove_and_reuse(actor: &Actor) {
    flip(actor);
    set_state(actor, BACKEND_GONE);
    if actor.shared.without != Without::Settle {
        actor.settle();
    }
    let referred = actor.step(|state| {
        let flows = state.flows.values().map(|element| state.elements[*element]);
        flows.into_iter().any(|flow| flow.backend == A)
    });
    if !referred {
        give(actor);
    }
}

/// A's number goes to another backend.
fn give(actor: &Actor) {
    let generation = if actor.shared.without == Without::Generation {
        1
    } else {
        2
    };
    actor.configured(|state| {
        let other = Backend {
            address: address(7),
            delivery: address(7),
            generation,
            ..backend(A)
        };
        state.backends.insert(A, other);
    });
}

/// As it must not be: flows refer to the number.
fn remove_and_reuse_at_once(actor: &Actor) {
    flip(actor);
    set_state(actor, BACKEND_GONE);
    actor.settle();
    give(actor);
}

/// Nothing of the client's goes to whom its number was given.
fn no_stranger(after: &Actor, state: &State) -> Result<(), String> {
    let stranger = Ok(address(7));
    if state.sent[&0] == stranger || packet(after, ACK) == stranger {
        return Err(format!("sent to a stranger; first: {:?}", state.sent[&0]));
    }
    Ok(())
}

#[test]
fn a_number_is_given_again_when_no_packet_on_its_way_has_it() {
    let mut empty = world(None);
    empty.ticket = 0;
    holds(&empty, &[syn, remove_and_reuse], true, Without::Settle, no_stranger);
}

#[test]
fn a_number_that_is_given_too_early_takes_no_connection_along() {
    let live = world(Some(to_a(FLOW_ESTABLISHED, 100_000, 10)));
    holds(
        &live,
        &[segment, remove_and_reuse_at_once],
        true,
        Without::Generation,
        no_stranger,
    );
}
