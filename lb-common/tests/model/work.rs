//! What the actors do: packets, the collector, the agent.

use lb_common::abi::{BACKEND_DRAINING, BACKEND_GONE, Backend, Service, SlotKey};
use lb_common::address::Address;
use lb_common::flow::{self, Known, Opening};
use lb_common::tables::{FlowEntry as _, Table, Tables as _};
use lb_common::tuple::Tuple;
use lb_common::verdict::Reason;
use lb_common::wire::parse::Headers;
use lb_common::{collect, pressure, track};

use crate::schedule::{Actor, Without};
use crate::world::{A, B, NOW, SERVICE, address, back, backend, env, tuple};

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;

/// A packet of the client: the address that it is sent to. What `pipeline::find` and `proceed` do.
pub(crate) fn packet(tables: &Actor, flags: u8) -> Result<Address, Reason> {
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
                Known::Select => {}
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
pub(crate) fn delivered(tables: &Actor, id: u32) -> Result<Address, Reason> {
    let backend = tables.backend(id).expect("a backend");
    Ok(*flow::target(&backend, 5))
}

/// Whether an answer of the backend with this address is translated: what `workload::flow_of` does.
pub(crate) fn answered(tables: &Actor, from: Address) -> bool {
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

pub(crate) fn note(actor: &Actor, result: Result<Address, Reason>) {
    let number = actor.number.expect("one of the actors");
    actor.shared.state.lock().unwrap().sent.insert(number, result);
}

pub(crate) fn syn(actor: &Actor) {
    note(actor, packet(actor, SYN));
}

pub(crate) fn segment(actor: &Actor) {
    note(actor, packet(actor, ACK));
}

pub(crate) fn collect_flow(actor: &Actor) {
    collect::flow(actor, &tuple(), Table::Main, NOW, u32::MAX);
}

pub(crate) fn collect_unanswered(actor: &Actor) {
    collect::flow(actor, &tuple(), Table::Main, NOW, 3_000);
}

pub(crate) fn collect_reply(actor: &Actor) {
    collect::reply(actor, &back(A), Table::Main, NOW);
}

pub(crate) fn collect_overflow_reply(actor: &Actor) {
    collect::reply(actor, &back(A), Table::Overflow, NOW);
}

/// B alone serves from the next generation on.
pub(crate) fn flip(actor: &Actor) {
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

pub(crate) fn set_state(actor: &Actor, value: u8) {
    actor.configured(|state| state.backends.get_mut(&A).expect("A").state = value);
}

/// A drains; B serves.
pub(crate) fn drain(actor: &Actor) {
    if actor.shared.without != Without::Flip {
        flip(actor);
    }
    set_state(actor, BACKEND_DRAINING);
}

/// A is removed, and when no packet is on its way any more and no flow refers to it, its number is given to another
/// address: the order of `plan::diff` and the rule of `plan::Reusable`.
pub(crate) fn remove_and_reuse(actor: &Actor) {
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
pub(crate) fn give(actor: &Actor) {
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
pub(crate) fn remove_and_reuse_at_once(actor: &Actor) {
    flip(actor);
    set_state(actor, BACKEND_GONE);
    actor.settle();
    give(actor);
}
