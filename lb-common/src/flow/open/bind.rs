//! The way back from a backend to the flow that begins, and the source port that keeps it apart from others.

use super::{Opening, table};
use crate::abi::{Backend, FLOW_CLOSED, NETWORK_NODE, REPLY_HAIRPIN, REPLY_PUBLISHED, REPLY_VIP, Reply};
use crate::flow::{answers, flow_tuple, target, target_port};
use crate::pressure;
use crate::tables::{Env, FlowEntry, Insert, Table, Tables};
use crate::track;
use crate::tuple::Tuple;
use crate::verdict::Reason;

/// Writes the way back from the backend's tuple to the flow, and the source port that the backend sees.
#[inline(always)]
pub(super) fn bind_reply<T: Tables, const OVERFLOW: bool>(
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
    tables.note_port(tuple.protocol, opening.back.source_port);
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
