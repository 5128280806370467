//! Full flow tables: new flows go to the overflow tables, and move to the tables themselves when they have earned it.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, ethernet, tunnel};
use super::tables::FLOWS;
use super::world::{
    Case, NETWORK, NODE_IF, NOW, Place, ROUTED_IF, ROUTER, SWITCHED_IF, TUNNEL_PORT, World, mac, node_mac, reply_of,
    workload_mac,
};
use crate::abi::{
    FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_FLAG_ANSWERED, FLOW_FLAG_FIN_BACKEND, FLOW_FLAG_OVERFLOW, FLOW_NEW, Flow,
    NETWORK_NODE, Pressure,
};
use crate::select::{Selection, by_hash};
use crate::tuple::Tuple;
use crate::verdict::{Action, Reason};

pub(super) const PLACES: [Place; 2] = [Place::Here, Place::Switched];

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all: Vec<Fixture> = Case::ALL.into_iter().flat_map(overflow).collect();
    all.extend(Case::ALL.into_iter().flat_map(settling));
    all.extend(Case::ALL.map(from_another_node));
    all.extend(Case::TCP.into_iter().flat_map(displaced));
    all.extend(Case::TCP.map(closing));
    all
}

/// The client's tuple.
pub(super) fn tuple(case: Case) -> Tuple {
    case.tuple(case.client(), case.published(1), NETWORK_NODE)
}

/// Both backends on this node, and tables that were full a moment ago.
pub(super) fn pressed(case: Case) -> World {
    let world = World::new().serve(case, &PLACES);
    world.tables.press(Pressure {
        full: (NOW - 100) | 1,
        used: (NOW - 50) | 1,
    });
    world
}

/// The backend that the tuple's hash has among [`PLACES`].
pub(super) fn hashed(case: Case, tuple: &Tuple) -> Place {
    let tables = World::new().serve(case, &PLACES).tables;
    let Selection::Backend(id) = by_hash(&tables, case.published_service(), tuple.hash(), 0) else {
        panic!("there are backends");
    };
    PLACES
        .into_iter()
        .find(|place| case.backend_id(*place) == id)
        .expect("one of them")
}

/// A packet of the client, delivered to a backend on this node.
pub(super) fn to(case: Case, frame: &Frame, place: Place) -> Step {
    let (action, ifindex) = match place {
        Place::Here => (Action::RedirectPeer, ROUTED_IF),
        _ => (Action::Redirect, SWITCHED_IF),
    };
    let macs = (workload_mac(ifindex), mac(ifindex));
    let out = frame.clone().to(case.backend(place)).ttl(63).macs(macs.0, macs.1);
    Step::new(Entry::TcNode, NODE_IF, frame.build()).redirects(action, Reason::ForwardLocal, ifindex, out.build())
}

/// A packet of the backend, sent to the client.
pub(super) fn answer(case: Case, place: Place) -> Step {
    let ifindex = if place == Place::Here { ROUTED_IF } else { SWITCHED_IF };
    let frame = case
        .frame(case.backend(place), case.client())
        .macs(mac(ifindex), workload_mac(ifindex));
    let out = frame.clone().from(case.published(1)).ttl(63).macs(ROUTER, mac(NODE_IF));
    Step::new(Entry::FromWorkload, ifindex, frame.build()).redirects(
        Action::Redirect,
        Reason::ReplyDirect,
        NODE_IF,
        out.build(),
    )
}

/// What a client sends after the first packet.
pub(super) fn next(case: Case) -> Frame {
    case.frame(case.client(), case.published(1)).macs(mac(NODE_IF), ROUTER)
}

/// The way back from a backend to the flow.
pub(super) fn back(case: Case, place: Place) -> Tuple {
    case.tuple(case.backend(place), case.client(), NETWORK)
}

/// Fills the flow table, or that of replies.
fn fill(world: World, case: Case, flows: bool) -> World {
    fill_but(world, case, flows, 0)
}

/// Fills it but for some entries.
pub(super) fn fill_but(world: World, case: Case, flows: bool, but: usize) -> World {
    for n in 0..(FLOWS - but) as u16 {
        let client = (case.node(200), 2_000 + n).into();
        if flows {
            let other = case.tuple(client, case.published(1), NETWORK_NODE);
            let flow = Flow {
                backend: case.backend_id(Place::Here),
                generation: 7,
                last_seen: NOW,
                timeout: 1000,
                ..Flow::default()
            };
            world.tables.put_flow(other, flow);
        } else {
            let other = case.tuple(client, case.published(1), NETWORK_NODE);
            let back = case.tuple(case.backend(Place::Here), client, NETWORK);
            world.tables.put_reply(back, reply_of(&other, false));
        }
    }
    world
}

fn overflow(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("pressure_{what}_{}", case.name());
    let tuple = tuple(case);
    let place = hashed(case, &tuple);
    let opened = move |step: Step| {
        step.then(move |tables| {
            let flow = tables.overflow()[&tuple];
            assert_eq!((flow.state, flow.flags), (FLOW_NEW, FLOW_FLAG_OVERFLOW));
            assert_eq!(flow.backend, case.backend_id(place));
            assert!(tables.overflow_replies()[&back(case, place)].leads_as(&reply_of(&tuple, false)));
            assert!(!tables.flows().contains_key(&tuple));
        })
    };
    let world = || World::new().serve(case, &PLACES);
    let no_room = || {
        let mut world = fill(world(), case, true);
        world.tables.no_overflow = true;
        world
    };
    vec![
        Fixture::new(
            name("full"),
            "a full table: the flow goes to the overflow table, with the backend that its hash has",
            fill(world(), case, true),
        )
        .step(opened(to(case, &case.opening(), place)))
        .step(to(case, &case.opening(), place)),
        Fixture::new(
            name("full_replies"),
            "a full table of replies: so does a flow that finds no room there",
            fill(world(), case, false),
        )
        .step(opened(to(case, &case.opening(), place))),
        Fixture::new(
            name("hold"),
            "shortly after, no new flow takes room in the table itself",
            pressed(case),
        )
        .step(opened(to(case, &case.opening(), place)).then(move |tables| {
            assert!(tables.flows().is_empty() && tables.replies().is_empty());
            assert!(tables.cursors.borrow().is_empty(), "no turn is taken");
        })),
        Fixture::new(name("over"), "when the pressure is over, they do again", {
            let world = pressed(case);
            world.tables.press(Pressure {
                full: (NOW - crate::pressure::HOLD - 20) | 1,
                used: (NOW - 50) | 1,
            });
            world
        })
        .step(to(case, &case.opening(), Place::Here).then(move |tables| assert_eq!(tables.flows()[&tuple].flags, 0))),
        Fixture::new(
            name("replaced"),
            "a flow that has expired in the table itself is replaced there, where it would hide the new one",
            fill_but(pressed(case), case, true, 1)
                .flow(case, tuple, Place::Here, None)
                .change(tuple, |flow| {
                    flow.last_seen = NOW - 1000;
                    flow.timeout = 500;
                }),
        )
        .step(to(case, &case.opening(), place).then(move |tables| {
            assert_eq!(tables.flows()[&tuple].flags, 0);
            assert!(tables.overflow().is_empty());
        })),
        Fixture::new(
            name("no_room"),
            "without any room a new flow is refused, and that is said",
            no_room(),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, case.opening().build()).drops(Reason::DropFlowTableFull)),
    ]
}

/// A flow that began in the overflow table, as long ago as one of [`World::flow`].
fn overflowed(world: World, case: Case, place: Place, state: u8) -> World {
    let tuple = tuple(case);
    let mut flow = World::new().flow(case, tuple, place, None).tables.flows()[&tuple];
    flow.flags |= FLOW_FLAG_OVERFLOW;
    flow.state = state;
    world.tables.put_overflow(tuple, flow);
    world
        .tables
        .put_overflow_reply(back(case, place), reply_of(&tuple, false));
    world
}

fn settling(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("pressure_{what}_{}", case.name());
    let tuple = tuple(case);
    let place = Place::Switched;
    let settled = move |step: Step| {
        step.then(move |tables| {
            let (flow, settings) = (tables.flows()[&tuple], tables.settings);
            let timeout = if case.tcp() {
                settings.tcp_established
            } else {
                settings.udp_established
            };
            assert_eq!((flow.state, flow.flags), (FLOW_ESTABLISHED, 0));
            assert_eq!((flow.backend, flow.timeout), (case.backend_id(place), timeout));
            assert_eq!(flow.created, NOW - 1000, "it has begun before");
            assert!(!tables.overflow().contains_key(&tuple));
            assert!(tables.replies()[&back(case, place)].leads_as(&reply_of(&tuple, false)));
            assert_eq!(tables.service_counters()[&case.published_service()].flows, 0);
        })
    };
    let stays = move |step: Step| {
        step.then(move |tables| {
            assert!(!tables.flows().contains_key(&tuple));
            assert!(tables.overflow().contains_key(&tuple));
        })
    };
    let quiet = |world: World| {
        world.tables.press(Pressure {
            full: (NOW - 500) | 1,
            used: (NOW - 50) | 1,
        });
        world
    };
    vec![
        Fixture::new(
            name("settles"),
            "answered, and the client goes on: the flow moves to the table itself",
            quiet(overflowed(pressed(case), case, place, FLOW_NEW)),
        )
        .step(stays(answer(case, place)))
        .step(settled(to(case, &next(case), place)))
        .step(answer(case, place)),
        Fixture::new(
            name("unanswered"),
            "who is not answered takes no room",
            quiet(overflowed(pressed(case), case, place, FLOW_NEW)),
        )
        .step(stays(to(case, &next(case), place))),
        Fixture::new(
            name("stays"),
            "without room in the table itself it goes on where it is",
            quiet(fill(
                overflowed(pressed(case), case, place, FLOW_ESTABLISHED),
                case,
                true,
            )),
        )
        .step(stays(to(case, &next(case), place)))
        .step(stays(to(case, &next(case), place)))
        .step(stays(answer(case, place))),
        Fixture::new(
            name("afterwards"),
            "long after, what is in the overflow table is still found",
            {
                let world = overflowed(World::new(), case, place, FLOW_ESTABLISHED);
                let timeout = world.tables.settings.tcp_established;
                world.tables.press(Pressure {
                    full: 0,
                    used: NOW.wrapping_sub(timeout - 10) | 1,
                });
                world
            },
        )
        .step(answer(case, place)),
    ]
}

/// A connection that its backend has closed: in the table itself it would not be known that it has.
fn closing(case: Case) -> Fixture {
    let tuple = tuple(case);
    let flags = FLOW_FLAG_OVERFLOW | FLOW_FLAG_ANSWERED | FLOW_FLAG_FIN_BACKEND;
    let world = overflowed(pressed(case), case, Place::Switched, FLOW_CLOSING);
    let flow = Flow {
        flags,
        ..world.tables.overflow()[&tuple]
    };
    world.tables.put_overflow(tuple, flow);
    world.tables.press(Pressure {
        full: (NOW - 500) | 1,
        used: (NOW - 50) | 1,
    });
    Fixture::new(
        format!("pressure_closing_{}", case.name()),
        "a connection that one side has closed stays in the overflow table, and what is known of it",
        world,
    )
    .step(to(case, &next(case), Place::Switched).then(move |tables| {
        assert!(!tables.flows().contains_key(&tuple));
        let flow = tables.overflow()[&tuple];
        assert_eq!((flow.state, flow.flags), (FLOW_CLOSING, flags));
    }))
}

/// A flow of another node's client.
fn from_another_node(case: Case) -> Fixture {
    let tuple = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let backend = case.backend(Place::Here);
    let wrapped = |inner: &Frame| {
        let outer = ((case.node(2), 0xc123).into(), (case.node(1), TUNNEL_PORT).into());
        let packet = tunnel(outer, 1, NETWORK, backend, &inner.packet());
        let kind = if case.v6 { 0x86dd } else { 0x0800 };
        let frame = ethernet(mac(NODE_IF), node_mac(2), kind, &packet);
        let out = inner
            .clone()
            .to(backend)
            .ttl(62)
            .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
            .build();
        Step::new(Entry::TcNode, NODE_IF, frame).redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, out)
    };
    let frame = case
        .frame(backend, case.client())
        .macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let answered =
        Step::new(Entry::FromWorkload, ROUTED_IF, frame.build()).sends(Action::Redirect, Reason::ReplyTunnel, NODE_IF);
    let first = case.first(case.client(), case.published(2)).ttl(63);
    let data = case.frame(case.client(), case.published(2)).ttl(63);
    let world = pressed(case);
    world.tables.press(Pressure {
        full: (NOW - 500) | 1,
        used: 0,
    });
    Fixture::new(
        format!("pressure_tunnel_{}", case.name()),
        "what another node has chosen stays chosen, in the overflow table and in the table itself",
        world,
    )
    .step(wrapped(&first).then(move |tables| {
        let flow = tables.overflow()[&tuple];
        assert_eq!(
            (flow.state, flow.origin, flow.backend),
            (FLOW_NEW, 2, case.backend_id(Place::Here))
        );
    }))
    .step(wrapped(&data).then(move |tables| {
        assert!(!tables.flows().contains_key(&tuple), "not answered yet");
    }))
    .step(answered)
    .step(wrapped(&data).then(move |tables| {
        let flow = tables.flows()[&tuple];
        assert_eq!((flow.state, flow.origin, flow.flags), (FLOW_ESTABLISHED, 2, 0));
    }))
}

/// Connections that were displaced from the overflow table.
fn displaced(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("pressure_{what}_{}", case.name());
    let tuple = tuple(case);
    let place = hashed(case, &tuple);
    let reset = super::drain::reset(next(case), (case.published(1), case.client()));
    vec![
        Fixture::new(
            name("displaced"),
            "a connection that the overflow table has forgotten goes on at the same backend",
            pressed(case),
        )
        .step(to(case, &next(case), place).then(move |tables| {
            assert_eq!(tables.overflow()[&tuple].backend, case.backend_id(place));
        }))
        .step(answer(case, place))
        .step(to(case, &next(case), place)),
        Fixture::new(name("forgotten"), "one that would have expired by now is reset", {
            let world = pressed(case);
            let timeout = world.tables.settings.tcp_established;
            world.tables.press(Pressure {
                full: 0,
                used: NOW.wrapping_sub(timeout + 10) | 1,
            });
            world
        })
        .step(Step::new(Entry::TcNode, NODE_IF, next(case).build()).transmits(Reason::ResetUnknownFlow, reset.build())),
    ]
}
