//! The flow table under every interleaving of packets, the collector and the agent.
//!
//! Each actor runs the real functions of the packet path, or of [`collect`], over tables whose every shared access is a
//! step. One actor runs at a time, and which one takes the next step is tried in every order, by running the scene again
//! for each. After each run the scene's promises are judged with packets that come later. The world is small: one service
//! with two backends, one client. Each protection is taken away once, to see that a promise breaks without it.
//!
//! Not in here: the overflow tables give nothing way (what is displaced there is made again by hash, see the fixtures), and
//! an element that was removed is not given to another key at once, as the kernel may do.

mod explore;
mod schedule;
mod tables;
mod work;
mod world;

use std::collections::BTreeMap;

use lb_common::abi::{BACKEND_GONE, Backend, FLOW_CLOSED, FLOW_ESTABLISHED, FLOW_NEW, Pressure, Reply, SlotKey};
use lb_common::tables::{FlowEntry as _, Table, Tables as _};

use crate::explore::{Work, explore, holds};
use crate::schedule::{Actor, State, Without};
use crate::work::{
    ACK, SYN, answered, collect_flow, collect_overflow_reply, collect_reply, collect_unanswered, drain, packet,
    remove_and_reuse, remove_and_reuse_at_once, segment, syn,
};
use crate::world::{A, B, NOW, SERVICE, address, back, backend, to_a, tuple, world};

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
fn a_reply_that_somebody_ends_while_it_is_read_is_not_ended_again() {
    // The flow is over: its packet and the collector both find its reply.
    let mut lost = world(Some(to_a(FLOW_CLOSED, 10_000, 200_000)));
    lost.flows.clear();
    lost.ticket = 0;
    holds(&lost, &[syn, collect_reply], false, Without::Copy, goes_on);
}

#[test]
fn a_flow_that_begins_beside_what_the_other_table_has_left_lives() {
    // The client's connection before, to another frontend, is over: its reply is not collected yet.
    let mut lost = world(Some(to_a(FLOW_CLOSED, 10_000, 20_000)));
    lost.flows.clear();
    let left = Reply {
        frontend_port: 81,
        ..lost.ways_back[0]
    };
    for main in [true, false] {
        let mut world = lost.clone();
        world.replies.clear();
        world.put_reply(main, back(A), left);
        world.put_reply(main, back(B), left);
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
