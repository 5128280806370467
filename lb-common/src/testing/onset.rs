//! Where a table becomes full, or has room again: flows are in both tables then, and what the one has left behind does not
//! stand in the way of the other.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::pressure::{PLACES, answer, back, fill_but, hashed, next, pressed, to, tuple};
use super::world::{Case, NODE_IF, NOW, Place, ROUTED_IF, SWITCHED_IF, World, reply_of};
use crate::abi::{FLOW_CLOSED, FLOW_FLAG_OVERFLOW, Flow, NETWORK_NODE, Pressure};
use crate::tuple::Tuple;
use crate::verdict::{Action, Reason};

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(each).collect()
}

/// An earlier connection of the client from the same port, through another node, to the same backend here.
fn earlier(case: Case) -> Tuple {
    case.tuple(case.client(), case.published(2), NETWORK_NODE)
}

/// How a flow looks that has come to its end and was not collected yet.
fn over(case: Case, flow: &mut Flow) {
    if case.tcp() {
        flow.state = FLOW_CLOSED;
    } else {
        flow.last_seen = NOW - 1000;
        flow.timeout = 500;
    }
}

fn each(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("onset_{what}_{}", case.name());
    let tuple = tuple(case);
    let place = hashed(case, &tuple);
    let earlier = earlier(case);
    let before = || pressed(case).flow(case, earlier, place, Some(2));
    let in_overflow = move |step: Step| {
        step.then(move |tables| {
            let flow = tables.overflow()[&tuple];
            assert_eq!(flow.flags, FLOW_FLAG_OVERFLOW);
            assert_eq!(flow.backend, case.backend_id(place));
            assert!(!tables.flows().contains_key(&tuple), "it would hide the new one");
        })
    };
    let ifindex = if place == Place::Here { ROUTED_IF } else { SWITCHED_IF };
    let action = if place == Place::Here {
        Action::RedirectPeer
    } else {
        Action::Redirect
    };
    vec![
        Fixture::new(
            name("left_behind"),
            "the way back to a flow that is over, in the table itself, is no flow to be kept apart from",
            before().change(earlier, |flow| over(case, flow)),
        )
        .step(in_overflow(to(case, &case.opening(), place)).then(move |tables| {
            assert_eq!(tables.overflow()[&tuple].source_port, tuple.source_port);
            assert!(
                !tables.replies().contains_key(&back(case, place)),
                "it would hide the new one"
            );
        }))
        .step(answer(case, place)),
        Fixture::new(
            name("kept_apart"),
            "that to a live one is: the new flow gets another source port",
            before(),
        )
        .step(
            in_overflow(Step::new(Entry::TcNode, NODE_IF, case.opening().build()).sends(
                action,
                Reason::ForwardLocal,
                ifindex,
            ))
            .then(move |tables| {
                assert_ne!(tables.overflow()[&tuple].source_port, tuple.source_port);
                assert!(tables.replies()[&back(case, place)].leads_as(&reply_of(&earlier, false)));
            }),
        ),
        Fixture::new(
            name("after"),
            "so it is for the table itself with what the overflow table has left behind",
            {
                let there = World::new()
                    .serve(case, &PLACES)
                    .flow(case, earlier, Place::Here, Some(2));
                let there = there.change(earlier, |flow| over(case, flow));
                let world = World::new().serve(case, &PLACES);
                let mut flow = there.tables.flows()[&earlier];
                flow.flags |= FLOW_FLAG_OVERFLOW;
                world.tables.put_overflow(earlier, flow);
                let reply = reply_of(&earlier, false);
                world.tables.put_overflow_reply(back(case, Place::Here), reply);
                world.tables.press(Pressure {
                    full: (NOW - crate::pressure::HOLD - 20) | 1,
                    used: (NOW - 50) | 1,
                });
                world
            },
        )
        .step(to(case, &case.opening(), Place::Here).then(move |tables| {
            assert_eq!(tables.flows()[&tuple].source_port, tuple.source_port);
        }))
        .step(answer(case, Place::Here)),
        Fixture::new(
            name("used_again"),
            "a tuple whose flow is over, and no room for its new way back: the old flow gives way to the new one",
            {
                let world = World::new().serve(case, &PLACES);
                let world = world.flow(case, tuple, Place::Switched, None);
                fill_but(world.change(tuple, |flow| over(case, flow)), case, false, 1)
            },
        )
        .step(in_overflow(to(case, &case.opening(), place)))
        .step(to(case, &case.opening(), place))
        .step(answer(case, place))
        .step(to(case, &next(case), place)),
    ]
}
