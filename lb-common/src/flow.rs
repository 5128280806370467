//! From a packet to its flow and backend: found, or chosen and written down.

use crate::abi::{
    BACKEND_DRAINING, BACKEND_GONE, BACKEND_LOCAL, Backend, FLOW_CLOSED, FLOW_CLOSING, FLOW_ENDED, FLOW_FLAG_ANSWERED,
    FLOW_FLAG_FIN_CLIENT, FLOW_FLAG_HAIRPIN, FLOW_FLAG_HOST, FLOW_FLAG_OVERFLOW, FLOW_FLAG_REFUSED, FLOW_NEW, Flow,
    NETWORK_NODE, REPLY_HAIRPIN, REPLY_PUBLISHED, REPLY_VIP, Reply, SlotKey, TCP,
};
use crate::address::Address;
use crate::pressure;
use crate::select::{Selection, by_hash, in_turn};
use crate::tables::{Env, FlowEntry, Insert, Table, Tables};
use crate::track::{self, Side};
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::wire::parse::Headers;
use crate::wire::tcp;

/// The backend of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chosen {
    /// Its id.
    pub backend: u32,
    /// Id of the service.
    pub service: u32,
    /// Source port as the backend sees it.
    pub source_port: u16,
    /// The backend is the client.
    pub hairpin: bool,
}

impl Chosen {
    /// As a flow says.
    #[inline(always)]
    pub const fn of(flow: &Flow) -> Self {
        Self {
            backend: flow.backend,
            service: flow.service,
            source_port: flow.source_port,
            hairpin: flow.flags & FLOW_FLAG_HAIRPIN != 0,
        }
    }
}

/// What a flow found in the table says about its packet.
pub enum Known {
    /// Goes on to its backend.
    Keep,
    /// Goes on to its backend, and the flow moves from the overflow table to the table itself.
    Settle,
    /// Selects (again), among the backends of the service that its frontend leads to now.
    Select,
    /// Is refused: [`Reason::ResetBackendGone`].
    Refuse,
}

/// Whether a TCP segment begins a connection.
#[inline(always)]
pub fn opens(h: &Headers) -> bool {
    h.tuple.protocol == TCP && h.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
}

/// Whether a packet begins a new connection on the tuple of an old one: of one that is closed, or whose client uses its port
/// again while it closes.
#[inline(always)]
pub fn reopens(flow: &Flow, h: &Headers) -> bool {
    // A client that has not closed its socket still holds the port: then it is an old SYN that comes late.
    let left = flow.state == FLOW_CLOSING && flow.flags & FLOW_FLAG_FIN_CLIENT != 0;
    (flow.state == FLOW_CLOSED || left) && opens(h)
}

/// Id, plus one, of the backend that has just refused the connection which a packet of this flow begins again; or 0.
#[inline(always)]
pub fn refused_by(flow: &Flow) -> u32 {
    if flow.state == FLOW_CLOSED && flow.flags & FLOW_FLAG_REFUSED != 0 {
        flow.backend + 1
    } else {
        0
    }
}

/// Whether the backend of a flow is there no more; `backend`: the element that the flow names.
#[inline(always)]
pub fn is_gone(backend: &Backend, flow: &Flow) -> bool {
    backend.generation != flow.generation || backend.state == BACKEND_GONE
}

/// Decides for a packet of the client whose flow is in the table and not expired.
#[inline(always)]
pub fn continues<T: Tables>(tables: &T, env: &Env, entry: &T::Entry, flow: &Flow, h: &Headers) -> Known {
    let Some(backend) = tables.backend(flow.backend) else {
        return Known::Select;
    };
    let gone = is_gone(&backend, flow);
    let tcp = h.tuple.protocol == TCP;
    if tcp && !opens(h) {
        if gone {
            return Known::Refuse;
        }
    } else {
        // A SYN on a live connection is the connection's; datagrams and SYNs that nobody has answered may move.
        let ended = gone || reopens(flow, h);
        let free = !tcp || flow.state == FLOW_NEW && flow.flags & FLOW_FLAG_ANSWERED == 0;
        if ended || free && backend.state == BACKEND_DRAINING && !only_draining(tables, flow.service) {
            return Known::Select;
        }
    }
    if !track::observe(tables, env, entry, flow, h, Side::Client) {
        return Known::Select;
    }
    if pressure::settles(tables, env, flow, h) {
        return Known::Settle;
    }
    Known::Keep
}

/// Removes a flow whose backend is gone, unless somebody else does: after [`Known::Refuse`]. A function of its
/// own: few packets come here.
#[inline(never)]
pub fn forget<T: Tables>(tables: &T, tuple: &Tuple) {
    if !forget_in(tables, tuple, Table::Main) {
        forget_in(tables, tuple, Table::Overflow);
    }
}

#[inline(always)]
fn forget_in<T: Tables>(tables: &T, tuple: &Tuple, table: Table) -> bool {
    let Some(entry) = tables.flow(tuple, table) else {
        return false;
    };
    let flow = entry.load();
    let Some(backend) = tables.backend(flow.backend) else {
        return false;
    };
    if is_gone(&backend, &flow) && flow.state != FLOW_ENDED && entry.end(&flow) {
        tables.remove_flow(tuple, table);
    }
    true
}

/// Whether a service has nothing but draining backends left; they keep serving (its slots hold either kind, never both).
#[inline(always)]
fn only_draining<T: Tables>(tables: &T, service: u32) -> bool {
    let Some(entry) = tables.service(service) else {
        return false;
    };
    let Some(id) = tables.slot(&SlotKey {
        service,
        generation: entry.generation,
        index: 0,
    }) else {
        return false;
    };
    matches!(tables.backend(id), Some(backend) if backend.state == BACKEND_DRAINING)
}

/// A new flow in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// Id of its service.
    pub service: u32,
    /// Node that it came from through the tunnel, plus one, which has chosen the backend; 0: it came directly.
    pub origin: u32,
    /// Id, plus one, of a backend that has just refused this connection; 0: none has.
    pub avoid: u32,
    /// Its backend, chosen before.
    pub chosen: Chosen,
    /// `FLOW_FLAG_*` bits that it begins with.
    pub flags: u8,
    /// It is in the overflow table and moves to the table itself, as [`Opening::settle`] has it.
    settles: bool,
    /// The table itself holds a flow of the tuple, which ends with this one: there is room for it.
    replaces: bool,
    flow: Flow,
    reply: Reply,
    back: Tuple,
}

impl Opening {
    /// A packet comes; nothing is known of its flow.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.settles = false;
        self.replaces = false;
        self.avoid = 0;
    }

    /// The tables hold a flow of the packet's tuple, which may go on, settle or be replaced. All that is needed of it later is
    /// noted at once: the stack has no room to keep it.
    #[inline(always)]
    pub fn meet(&mut self, flow: &Flow) {
        self.replaces = matches!(pressure::table_of(flow), Table::Main);
        self.chosen = Chosen::of(flow);
        self.avoid = refused_by(flow);
        self.flow.created = flow.created;
    }

    /// Whether [`Opening::settle`] was called for this packet.
    #[inline(always)]
    pub const fn settles(&self) -> bool {
        self.settles
    }

    /// Whether the backend is chosen already.
    #[inline(always)]
    fn is_given(&self) -> bool {
        self.settles || self.origin != 0
    }

    /// The flow that was met moves from the overflow table to the table itself, as it is there, unless it has given way since. A
    /// function of its own: few packets come here.
    #[inline(never)]
    pub fn settle<E: FlowEntry>(&mut self, entry: E) {
        let flow = entry.load();
        self.settles = flow.created == self.flow.created;
        self.flow = flow;
        self.chosen = Chosen::of(&flow);
        self.service = flow.service;
        self.origin = flow.origin;
        self.flags = flow.flags & FLOW_FLAG_HOST;
    }
}

/// Begins a flow as [`Opening`] has it: chooses its backend, unless that is given, and writes it down, into the overflow
/// table if there is no room. The reason says why it cannot be.
#[inline(always)]
pub fn begin<T: Tables>(tables: &T, env: &Env, h: &mut Headers, opening: &mut Opening) -> Option<Reason> {
    // What ends in the table itself must be replaced there, or it would hide the new one.
    if opening.settles || opening.replaces || !pressure::pressed(tables, env) {
        let mut refused = None;
        if !opening.is_given() {
            refused = tables.open(env, h, opening, Step::Choose);
        }
        if refused.is_none() {
            refused = tables.open(env, h, opening, Step::Write);
        }
        if opening.settles {
            // A flow that finds no room goes on where it is.
            return None;
        }
        if !matches!(refused, Some(Reason::DropFlowTableFull)) {
            return refused;
        }
    }
    if !opening.is_given()
        && let Some(reason) = tables.open(env, h, opening, Step::Choose)
    {
        return Some(reason);
    }
    tables.open(env, h, opening, Step::Overflow)
}

/// A part of the opening of a flow. Each is a function of its own in the object, called one after the other: a program's stack
/// has no room for one within the other, and most packets do not come there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Chooses the backend.
    Choose,
    /// Writes flow and reply down.
    Write,
    /// Writes them into the overflow tables.
    Overflow,
}

/// Takes a step. The reason says why it cannot be.
#[inline(always)]
pub fn step<T: Tables>(tables: &T, env: &Env, h: &mut Headers, opening: &mut Opening, step: Step) -> Option<Reason> {
    match step {
        Step::Choose => choose(tables, env, h, opening),
        Step::Write => open::<T, false>(tables, env, h, opening),
        Step::Overflow => open::<T, true>(tables, env, h, opening),
    }
}

/// Chooses the backend of a flow that begins here. The reason says why there is none.
#[inline(always)]
fn choose<T: Tables>(tables: &T, env: &Env, h: &Headers, opening: &mut Opening) -> Option<Reason> {
    let tcp = h.tuple.protocol == TCP;
    // A connection that goes on: it may have been displaced from the overflow table.
    let goes_on = tcp && !opens(h);
    if goes_on && !pressure::spilled(tables, env) {
        return Some(Reason::ResetUnknownFlow);
    }
    let selection = if goes_on || pressure::pressed(tables, env) {
        by_hash(tables, opening.service, h.tuple.hash(), opening.avoid)
    } else {
        in_turn(tables, opening.service, opening.avoid)
    };
    match selection {
        Selection::Backend(id) => {
            opening.chosen.backend = id;
            None
        }
        Selection::Empty if tcp => Some(Reason::ResetNoBackend),
        Selection::Empty => Some(Reason::UnreachableNoBackend),
    }
}

/// Writes the packet's flow down, whose backend is chosen. The reason says why it cannot be.
#[inline(always)]
fn open<T: Tables, const OVERFLOW: bool>(
    tables: &T,
    env: &Env,
    h: &mut Headers,
    opening: &mut Opening,
) -> Option<Reason> {
    opening.chosen.service = opening.service;
    let Some(backend) = tables.backend(opening.chosen.backend) else {
        return Some(Reason::DropBackendGone);
    };
    let Some(settings) = tables.settings() else {
        return Some(Reason::DropFlowTableFull);
    };
    if OVERFLOW {
        pressure::note_used(tables, env);
        if opening.replaces && !give_way(tables, &h.tuple) {
            return Some(Reason::DropFlowTableFull);
        }
    }
    opening.chosen.hairpin = *target(&backend, h.tuple.network) == h.tuple.source;
    opening.chosen.source_port = h.tuple.source_port;
    // The reply of a remote backend comes back through the tunnel, as the frontend's own: nothing to translate here.
    if (backend.flags & BACKEND_LOCAL != 0 || h.tuple.network != NETWORK_NODE)
        && let Some(reason) = bind_reply::<T, OVERFLOW>(tables, env, &mut h.tuple, &backend, opening)
    {
        return Some(reason);
    }
    if !opening.settles {
        opening.flow.timeout = track::new_timeout(h.tuple.protocol, &settings);
        opening.flow.created = env.now;
        opening.flow.state = FLOW_NEW;
    }
    opening.flow = Flow {
        backend: opening.chosen.backend,
        generation: backend.generation,
        service: opening.service,
        origin: opening.origin,
        last_seen: env.now,
        source_port: opening.chosen.source_port,
        flags: opening.flags
            | if opening.chosen.hairpin { FLOW_FLAG_HAIRPIN } else { 0 }
            | if OVERFLOW { FLOW_FLAG_OVERFLOW } else { 0 },
        ..opening.flow
    };
    match write::<T, OVERFLOW>(tables, &h.tuple, &opening.flow) {
        Insert::Done => {}
        outcome => {
            if !OVERFLOW && outcome == Insert::Full {
                pressure::note_full(tables, env);
            }
            return Some(Reason::DropFlowTableFull);
        }
    }
    if opening.settles {
        tables.remove_flow(&h.tuple, Table::Overflow);
    } else {
        tables.count_service(opening.service, 1, 0, false);
    }
    None
}

/// Writes a flow down in place of one that has ended. [`Insert::Ending`]: somebody else ends that one.
#[inline(always)]
fn write<T: Tables, const OVERFLOW: bool>(tables: &T, tuple: &Tuple, flow: &Flow) -> Insert {
    let table = table::<OVERFLOW>();
    let outcome = tables.insert_flow(tuple, flow, OVERFLOW, table);
    if outcome != Insert::Exists {
        return outcome;
    }
    if let Some(entry) = tables.flow(tuple, table) {
        let old = entry.load();
        if old.state != FLOW_ENDED && entry.end(&old) {
            let outcome = tables.insert_flow(tuple, flow, true, table);
            if outcome != Insert::Done {
                tables.remove_flow(tuple, table);
            }
            return outcome;
        }
    }
    Insert::Ending
}

/// A flow in the table itself, which does not go on, gives way to one of its tuple in the overflow table, or it would hide that.
/// False: somebody else has changed it meanwhile.
#[inline(always)]
fn give_way<T: Tables>(tables: &T, tuple: &Tuple) -> bool {
    let Some(entry) = tables.flow(tuple, Table::Main) else {
        return true;
    };
    let flow = entry.load();
    if flow.state == FLOW_ENDED {
        return true;
    }
    let ended = entry.end(&flow);
    if ended {
        tables.remove_flow(tuple, Table::Main);
    }
    ended
}

/// Where [`open`] writes.
#[inline(always)]
const fn table<const OVERFLOW: bool>() -> Table {
    if OVERFLOW { Table::Overflow } else { Table::Main }
}

/// Writes the way back from the backend's tuple to the flow, and the source port that the backend sees.
#[inline(always)]
fn bind_reply<T: Tables, const OVERFLOW: bool>(
    tables: &T,
    env: &Env,
    tuple: &mut Tuple,
    backend: &Backend,
    opening: &mut Opening,
) -> Option<Reason> {
    let hairpin = opening.chosen.hairpin;
    opening.reply = Reply {
        frontend: tuple.destination,
        client: tuple.source,
        frontend_port: tuple.destination_port,
        client_port: tuple.source_port,
        network: tuple.network,
        kind: if hairpin {
            REPLY_HAIRPIN
        } else if tuple.network == NETWORK_NODE {
            REPLY_PUBLISHED
        } else {
            REPLY_VIP
        },
        bound: env.now,
    };
    opening.back = Tuple {
        v6: tuple.v6,
        source: *target(backend, tuple.network),
        destination: if hairpin { tuple.destination } else { tuple.source },
        source_port: target_port(backend, tuple.destination_port),
        destination_port: tuple.source_port,
        protocol: tuple.protocol,
        network: if tuple.network == NETWORK_NODE {
            backend.delivery_network
        } else {
            backend.network
        },
    };
    let outcome = match bind::<T, OVERFLOW>(tables, env, &opening.back, &opening.reply) {
        // A flow that settles has its source port already.
        Insert::Exists if OVERFLOW || !opening.settles => {
            // Another source port keeps two flows of one client apart at one backend. The next packet of a flow that
            // found none tries another one. Twice in a row instead of in a loop: the verifier loses count of a
            // counter that is kept on the stack.
            let hash = tuple.hash() ^ env.now.wrapping_mul(0x9e37_79b1);
            opening.back.destination_port = 1024 + ((hash >> 16) % 64_512) as u16;
            bind::<T, OVERFLOW>(tables, env, &opening.back, &opening.reply)
        }
        outcome => outcome,
    };
    match outcome {
        Insert::Done => {
            opening.chosen.source_port = opening.back.destination_port;
            None
        }
        Insert::Full => {
            if !OVERFLOW {
                pressure::note_full(tables, env);
            }
            Some(Reason::DropFlowTableFull)
        }
        // The overflow table has room beside the one that is about to go.
        Insert::Ending => Some(Reason::DropFlowTableFull),
        Insert::Exists => Some(Reason::DropPortCollision),
    }
}

/// Writes one way back, unless it leads to another live flow.
#[inline(always)]
fn bind<T: Tables, const OVERFLOW: bool>(tables: &T, env: &Env, back: &Tuple, reply: &Reply) -> Insert {
    // One in the other table would hide it, or be hidden.
    let beside = if OVERFLOW { Table::Main } else { Table::Overflow };
    if (OVERFLOW || pressure::spilled(tables, env))
        && let Some(other) = tables.reply(back, beside)
        && !other.leads_as(reply)
    {
        if leads_to_live(tables, env, &other, back, beside) || !tables.end_reply(back, &other, beside) {
            return Insert::Exists;
        }
        tables.remove_reply(back, beside);
    }
    let outcome = tables.insert_reply(back, reply, false, table::<OVERFLOW>());
    if outcome != Insert::Exists {
        return outcome;
    }
    if let Some(other) = tables.reply(back, table::<OVERFLOW>()) {
        // Its own, from before; or one whose flow has ended or gone to another backend.
        if !other.leads_as(reply) && leads_to_live(tables, env, &other, back, table::<OVERFLOW>()) {
            return Insert::Exists;
        }
        if !OVERFLOW && !tables.end_reply(back, &other, Table::Main) {
            return Insert::Ending;
        }
    } else if !OVERFLOW {
        return Insert::Ending;
    }
    let outcome = tables.insert_reply(back, reply, true, table::<OVERFLOW>());
    if !OVERFLOW && outcome != Insert::Done {
        // Who has ended one removes it, if he cannot replace it.
        tables.remove_reply(back, Table::Main);
    }
    outcome
}

/// Whether the flow behind a reply, which is in the same one of both tables, still speaks to the backend that the reply's tuple
/// names, from its port.
#[inline(always)]
fn leads_to_live<T: Tables>(tables: &T, env: &Env, reply: &Reply, back: &Tuple, table: Table) -> bool {
    let Some(entry) = tables.flow(&flow_tuple(reply, back), table) else {
        return false;
    };
    let flow = entry.load();
    if track::expired(&flow, env.now) || flow.state == FLOW_CLOSED {
        return false;
    }
    matches!(tables.backend(flow.backend), Some(backend) if answers(&backend, &flow, reply, back))
}

/// Whether a tuple, which leads to `reply`, is that of a reply of this flow by its backend.
#[inline(always)]
pub fn answers(backend: &Backend, flow: &Flow, reply: &Reply, back: &Tuple) -> bool {
    backend.generation == flow.generation
        && *target(backend, reply.network) == back.source
        && target_port(backend, reply.frontend_port) == back.source_port
        && flow.source_port == back.destination_port
}

/// The address at which a backend gets the packets of flows whose frontend is in `network`.
#[inline(always)]
pub fn target(backend: &Backend, network: u32) -> &Address {
    if network == NETWORK_NODE {
        &backend.delivery
    } else {
        &backend.address
    }
}

/// The port at which a backend gets the packets for a frontend's port.
#[inline(always)]
pub fn target_port(backend: &Backend, frontend_port: u16) -> u16 {
    if backend.port == 0 { frontend_port } else { backend.port }
}

/// Key of the flow that a reply leads to; `back`: the reply's own tuple.
#[inline(always)]
pub fn flow_tuple(reply: &Reply, back: &Tuple) -> Tuple {
    Tuple {
        v6: back.v6,
        source: reply.client,
        destination: reply.frontend,
        source_port: reply.client_port,
        destination_port: reply.frontend_port,
        protocol: back.protocol,
        network: reply.network,
    }
}
