//! A flow begins: its backend is chosen, and both are written down.

mod bind;

use self::bind::bind_reply;
use super::{Chosen, opens, refused_by, target};
use crate::abi::{
    BACKEND_LOCAL, FLOW_ENDED, FLOW_FLAG_HAIRPIN, FLOW_FLAG_HOST, FLOW_FLAG_OVERFLOW, FLOW_NEW, Flow, NETWORK_NODE,
    Reply, TCP,
};
use crate::pressure;
use crate::select::{Selection, by_hash, in_turn};
use crate::tables::{Env, FlowEntry, Insert, Table, Tables};
use crate::track;
use crate::tuple::Tuple;
use crate::verdict::Reason;
use crate::wire::parse::Headers;

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
    if h.tuple.network != NETWORK_NODE {
        tables.note_port(h.tuple.protocol, h.tuple.destination_port);
    }
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
