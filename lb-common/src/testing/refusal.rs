//! Backends that refuse a connection which another one could take.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, ethernet, tunnel};
use super::world::{
    CLIENT_IF, Case, NEIGHBOUR_IF, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, SWITCHED_IF, TUNNEL_PORT, World, mac,
    node_mac, workload_mac,
};
use crate::abi::{
    BACKEND_DRAINING, BACKEND_GONE, FLOW_CLOSED, FLOW_ESTABLISHED, FLOW_FLAG_ANSWERED, FLOW_FLAG_HAIRPIN,
    FLOW_FLAG_REFUSED, FLOW_NEW, NETWORK_NODE,
};
use crate::tuple::Tuple;
use crate::verdict::{Action, Reason};

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::TCP {
        all.extend(published(case));
        all.extend(spared(case));
        all.extend(tunnelled(case));
        all.push(vip(case));
        all.push(inside(case));
        all.push(hairpin(case));
    }
    all
}

/// The RST that answers [`Case::first`]'s SYN.
fn rst(frame: Frame) -> Frame {
    frame.flags(0x14).numbers(0, 0x0102_0305).window(0).payload(b"")
}

/// What its client gets to see in its place.
fn ack(frame: Frame) -> Frame {
    rst(frame).flags(0x10).numbers(0, 0x0102_0304)
}

/// From a backend to the client outside.
fn reply(case: Case, place: Place) -> Frame {
    let ifindex = place.ifindex();
    let frame = case.frame(case.backend(place), case.client());
    frame.macs(mac(ifindex), workload_mac(ifindex))
}

/// The same as the client gets it.
fn out(case: Case, frame: Frame) -> Vec<u8> {
    let frame = frame.from(case.published(1)).ttl(63);
    frame.macs(ROUTER, mac(NODE_IF)).build()
}

fn from(place: Place, frame: &Frame) -> Step {
    Step::new(Entry::FromWorkload, place.ifindex(), frame.build())
}

/// Both sides of a flow that has just begun.
fn begun(case: Case, tuple: Tuple, place: Place, origin: Option<u32>) -> World {
    World::new()
        .serve(case, &[place, Place::Switched])
        .flow(case, tuple, place, origin)
        .change(tuple, |flow| flow.state = FLOW_NEW)
}

fn published(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("refusal_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let state = move |tables: &super::tables::MemoryTables| {
        let flow = tables.flows()[&tuple];
        (flow.state, flow.flags)
    };
    let refuses = || {
        from(Place::Here, &rst(reply(case, Place::Here))).redirects(
            Action::Redirect,
            Reason::ReplyRetry,
            NODE_IF,
            out(case, ack(reply(case, Place::Here))),
        )
    };
    let to_other = || {
        let sent = case.opening().to(case.backend(Place::Switched)).ttl(63);
        let sent = sent.macs(workload_mac(SWITCHED_IF), mac(SWITCHED_IF));
        Step::new(Entry::TcNode, NODE_IF, case.opening().build()).redirects(
            Action::Redirect,
            Reason::ForwardLocal,
            SWITCHED_IF,
            sent.build(),
        )
    };
    let again = || {
        Fixture::new(name("published"), "", begun(case, tuple, Place::Here, None))
            .step(refuses().then(move |tables| {
                assert_eq!(state(tables), (FLOW_CLOSED, FLOW_FLAG_REFUSED));
                assert_eq!(tables.flows()[&tuple].timeout, tables.settings.tcp_closed);
            }))
            // The answer to the same SYN, sent twice.
            .step(refuses())
            .step(to_other().then(move |tables| assert_eq!(state(tables), (FLOW_NEW, FLOW_FLAG_REFUSED))))
    };
    let other = |frame: Frame| from(Place::Switched, &frame);
    let refused = rst(reply(case, Place::Switched));
    let accepted = reply(case, Place::Switched)
        .flags(0x12)
        .numbers(7, 0x0102_0305)
        .payload(b"");
    let on = |step: Step, frame: &Frame| {
        step.redirects(Action::Redirect, Reason::ReplyDirect, NODE_IF, out(case, frame.clone()))
    };
    vec![
        Fixture {
            name: name("accepted"),
            why: "the client asks again, and another backend takes the connection: the refusal is forgotten",
            ..again()
        }
        .step(
            on(other(accepted.clone()), &accepted)
                .then(move |tables| assert_eq!(state(tables), (FLOW_NEW, FLOW_FLAG_ANSWERED))),
        ),
        Fixture {
            name: name("twice"),
            why: "the second refusal is the client's; a connection on the same tuple later may be tried twice again",
            ..again()
        }
        .step(on(other(refused.clone()), &refused).then(move |tables| assert_eq!(state(tables), (FLOW_CLOSED, 0)))),
        Fixture::new(
            name("answer"),
            "what the client says to the acknowledgement leaves the flow waiting for its SYN",
            begun(case, tuple, Place::Here, None),
        )
        .step(refuses())
        .step({
            let frame = case.opening().flags(4).numbers(0x0102_0304, 0).tcp_options(&[]);
            let sent = frame.clone().to(case.backend(Place::Here)).ttl(63);
            let sent = sent.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
            Step::new(Entry::TcNode, NODE_IF, frame.build())
                .redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, sent.build())
                .then(move |tables| assert_eq!(state(tables), (FLOW_CLOSED, FLOW_FLAG_REFUSED)))
        })
        .step(to_other()),
    ]
}

/// Refusals that nobody can do better than to pass on.
fn spared(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let frame = rst(reply(case, Place::Here));
    let begun = || begun(case, tuple, Place::Here, None);
    let all = [
        ("alone", "of the only backend", begun().serve(case, &[Place::Here])),
        (
            "draining",
            "where the others drain",
            begun().backend_state(case, Place::Switched, BACKEND_DRAINING),
        ),
        (
            "gone",
            "where the others are gone",
            begun().backend_state(case, Place::Switched, BACKEND_GONE),
        ),
        (
            "established",
            "of a connection that has begun",
            begun().change(tuple, |flow| flow.state = FLOW_ESTABLISHED),
        ),
    ];
    let fixture = |(what, why, world)| {
        Fixture::new(format!("refusal_{what}_{}", case.name()), why, world).step(
            from(Place::Here, &frame)
                .redirects(Action::Redirect, Reason::ReplyDirect, NODE_IF, out(case, frame.clone()))
                .then(move |tables| {
                    let flow = tables.flows()[&tuple];
                    assert_eq!((flow.state, flow.flags), (FLOW_CLOSED, 0));
                }),
        )
    };
    all.into_iter().map(fixture).collect()
}

/// A backend's node passes a refusal on; the entry node, which has chosen, chooses again.
fn tunnelled(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("refusal_{what}_{}", case.name());
    let kind = if case.v6 { 0x86dd } else { 0x0800 };
    let foreign = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let frame = rst(reply(case, Place::Here));
    let sent = {
        let inner = frame.clone().from(case.published(2)).ttl(63).packet();
        let port = 0xc000 | (case.tuple(case.backend(Place::Here), case.client(), NETWORK).hash() & 0x3fff) as u16;
        let outer = ((case.node(1), port).into(), (case.node(2), TUNNEL_PORT).into());
        let packet = tunnel(outer, 2, NETWORK, case.backend(Place::Here), &inner);
        ethernet(node_mac(2), mac(NODE_IF), kind, &packet)
    };
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let inner = case.frame(case.published(1), case.client()).ttl(63);
    let came = {
        let outer = ((case.node(2), 50_000).into(), (case.node(1), TUNNEL_PORT).into());
        let packet = tunnel(
            outer,
            2,
            NETWORK,
            case.backend(Place::Node2),
            &rst(inner.clone()).packet(),
        );
        ethernet(mac(NODE_IF), node_mac(2), kind, &packet)
    };
    let out = ack(inner).ttl(62).macs(ROUTER, mac(NODE_IF)).build();
    let mut all = vec![
        Fixture::new(
            name("tunnel"),
            "the backend's node leaves it to the entry node",
            begun(case, foreign, Place::Here, Some(1)),
        )
        .step(
            from(Place::Here, &frame)
                .redirects(Action::Redirect, Reason::ReplyTunnel, NODE_IF, sent)
                .then(move |tables| {
                    let flow = tables.flows()[&foreign];
                    assert_eq!((flow.state, flow.flags), (FLOW_CLOSED, 0));
                }),
        ),
    ];
    for (entry, hook) in [(Entry::XdpNode, "xdp"), (Entry::TcNode, "tc")] {
        let back = Step::new(entry, NODE_IF, came.clone());
        let back = back.transmits(Reason::ReplyRetry, out.clone());
        all.push(
            Fixture::new(
                name(&format!("from_tunnel_{hook}")),
                "which makes the client ask again, and chooses another backend",
                begun(case, tuple, Place::Node2, None),
            )
            .step(back.then(move |tables| {
                let flow = tables.flows()[&tuple];
                assert_eq!((flow.state, flow.flags), (FLOW_CLOSED, FLOW_FLAG_REFUSED));
            }))
            .step({
                let sent = case.opening().to(case.backend(Place::Switched)).ttl(63);
                let sent = sent.macs(workload_mac(SWITCHED_IF), mac(SWITCHED_IF));
                Step::new(Entry::TcNode, NODE_IF, case.opening().build()).redirects(
                    Action::Redirect,
                    Reason::ForwardLocal,
                    SWITCHED_IF,
                    sent.build(),
                )
            }),
        );
    }
    all
}

fn vip(case: Case) -> Fixture {
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let frame = case.frame(case.backend(Place::Here), case.inside());
    let frame = frame.macs(workload_mac(CLIENT_IF), workload_mac(ROUTED_IF));
    let sent = case.vip_opening().to(case.backend(Place::Switched));
    let sent = sent.macs(workload_mac(SWITCHED_IF), workload_mac(CLIENT_IF));
    let second = case.frame(case.backend(Place::Switched), case.inside());
    let to_client = |frame: &Frame| Step::new(Entry::ToWorkload, CLIENT_IF, frame.build());
    Fixture::new(
        format!("refusal_vip_{}", case.name()),
        "inside a network it is the client's own node that makes it ask again",
        begun(case, tuple, Place::Here, None),
    )
    .step(Step::new(Entry::FromWorkload, ROUTED_IF, rst(frame.clone()).build()).passes(Reason::PassNetwork))
    .step(to_client(&rst(frame.clone())).continues(Reason::ReplyRetry, ack(frame).from(case.vip()).build()))
    .step(
        Step::new(Entry::FromWorkload, CLIENT_IF, case.vip_opening().build())
            .continues(Reason::ForwardNetwork, sent.build()),
    )
    .step(to_client(&rst(second.clone())).continues(Reason::ReplyVip, rst(second).from(case.vip()).build()))
}

fn inside(case: Case) -> Fixture {
    let tuple = case.tuple(case.neighbour(), case.vip(), NETWORK);
    let back = case.frame(case.backend(Place::Here), case.neighbour());
    let sent = back.clone().macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let put = back.from(case.vip()).ttl(63);
    let put = put.macs(workload_mac(NEIGHBOUR_IF), mac(NEIGHBOUR_IF));
    Fixture::new(
        format!("refusal_inside_{}", case.name()),
        "where the reply is handed over at once, it is made into that at once",
        begun(case, tuple, Place::Here, None),
    )
    .step(Step::new(Entry::FromWorkload, ROUTED_IF, rst(sent).build()).redirects(
        Action::RedirectPeer,
        Reason::ReplyRetry,
        NEIGHBOUR_IF,
        ack(put).build(),
    ))
}

fn hairpin(case: Case) -> Fixture {
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let as_vip = (case.vip().ip(), case.inside().port()).into();
    let frame = case.frame(case.backend(Place::Client), as_vip);
    let frame = frame.macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let back = frame.clone().from(case.vip()).to(case.inside()).turned();
    Fixture::new(
        format!("refusal_hairpin_{}", case.name()),
        "also a backend that was chosen itself asks another one",
        begun(case, tuple, Place::Client, None),
    )
    .step(
        Step::new(Entry::FromWorkload, CLIENT_IF, rst(frame).build())
            .transmits(Reason::ReplyRetry, ack(back).build())
            .then(move |tables| {
                let flow = tables.flows()[&tuple];
                let kept = FLOW_FLAG_REFUSED | FLOW_FLAG_HAIRPIN;
                assert_eq!((flow.state, flow.flags), (FLOW_CLOSED, kept));
            }),
    )
    .step({
        let sent = case.vip_opening().to(case.backend(Place::Switched));
        let sent = sent.macs(workload_mac(SWITCHED_IF), workload_mac(CLIENT_IF));
        Step::new(Entry::FromWorkload, CLIENT_IF, case.vip_opening().build())
            .continues(Reason::ForwardNetwork, sent.build())
            .then(move |tables| {
                let flow = tables.flows()[&tuple];
                assert_eq!((flow.state, flow.flags), (FLOW_NEW, FLOW_FLAG_REFUSED));
            })
    })
}
