//! Backends that drain or are gone.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::Frame;
use super::world::{Case, NODE_IF, Place, ROUTED_IF, ROUTER, SWITCHED_IF, World, mac, workload_mac};
use crate::abi::{
    BACKEND_DRAINING, BACKEND_GONE, FLOW_CLOSED, FLOW_CLOSING, FLOW_FLAG_FIN_BACKEND, FLOW_FLAG_FIN_CLIENT, FLOW_NEW,
    NETWORK_NODE,
};
use crate::verdict::{Action, Reason};

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all: Vec<Fixture> = Case::TCP.into_iter().flat_map(tcp).collect();
    all.extend(Case::UDP.into_iter().flat_map(udp));
    all.extend(Case::ALL.map(generation));
    all
}

/// The frame as a backend on this node gets it.
fn to(case: Case, frame: &Frame, place: Place) -> Step {
    let (action, ifindex) = match place {
        Place::Here => (Action::RedirectPeer, ROUTED_IF),
        _ => (Action::Redirect, SWITCHED_IF),
    };
    let out = frame
        .clone()
        .to(case.backend(place))
        .ttl(63)
        .macs(workload_mac(ifindex), mac(ifindex));
    Step::new(Entry::TcNode, NODE_IF, frame.build()).redirects(action, Reason::ForwardLocal, ifindex, out.build())
}

/// The RST that answers a segment with ACK.
pub(super) fn reset(frame: Frame, (from, to): (std::net::SocketAddr, std::net::SocketAddr)) -> Frame {
    let frame = frame.from(from).to(to).turned().untagged().ttl(64).window(0).padding(0);
    frame.flags(4).numbers(0x9abc_def0, 0).tcp_options(&[]).payload(b"")
}

fn data(case: Case) -> Frame {
    case.frame(case.client(), case.published(1)).macs(mac(NODE_IF), ROUTER)
}

fn tcp(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("drain_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let flow = |state| {
        World::new()
            .serve(case, &[Place::Switched])
            .flow(case, tuple, Place::Here, None)
            .backend_state(case, Place::Here, state)
    };
    let refused = reset(data(case), (case.published(1), case.client())).build();
    let answer = |reason| Step::new(Entry::TcNode, NODE_IF, data(case).build()).transmits(reason, refused.clone());
    vec![
        Fixture::new(
            name("stays"),
            "an established connection stays on a draining backend",
            flow(BACKEND_DRAINING),
        )
        .step(to(case, &data(case), Place::Here)),
        Fixture::new(name("live_syn"), "a stray SYN does not end it", flow(BACKEND_DRAINING)).step(to(
            case,
            &case.opening(),
            Place::Here,
        )),
        Fixture::new(
            name("new_syn"),
            "a connection that was never answered is chosen again",
            flow(BACKEND_DRAINING).change(tuple, |flow| flow.state = FLOW_NEW),
        )
        .step(to(case, &case.opening(), Place::Switched)),
        Fixture::new(
            name("closed_syn"),
            "a SYN on the tuple of a closed connection is a new one",
            flow(BACKEND_DRAINING).change(tuple, |flow| flow.state = FLOW_CLOSED),
        )
        .step(to(case, &case.opening(), Place::Switched)),
        Fixture::new(
            name("closing_syn"),
            "a SYN on the tuple of a connection that closes is a new one too",
            flow(BACKEND_DRAINING).change(tuple, |flow| {
                (flow.state, flow.flags) = (FLOW_CLOSING, FLOW_FLAG_FIN_CLIENT);
            }),
        )
        .step(to(case, &case.opening(), Place::Switched)),
        Fixture::new(
            name("half_closed_syn"),
            "unless its client has not closed yet: then the SYN is an old one",
            flow(BACKEND_DRAINING).change(tuple, |flow| {
                (flow.state, flow.flags) = (FLOW_CLOSING, FLOW_FLAG_FIN_BACKEND);
            }),
        )
        .step(to(case, &case.opening(), Place::Here)),
        Fixture::new(
            name("last_syn"),
            "where nothing but draining backends is left, one choice holds for XDP, tc and the repeated SYN",
            World::new()
                .serve(case, &[Place::Here, Place::Switched])
                .backend_state(case, Place::Here, BACKEND_DRAINING)
                .backend_state(case, Place::Switched, BACKEND_DRAINING),
        )
        .step(Step::new(Entry::XdpNode, NODE_IF, case.opening().build()).passes(Reason::PassToTc))
        .step(to(case, &case.opening(), Place::Here))
        .step(to(case, &case.opening(), Place::Here).then(move |tables| {
            assert_eq!(tables.cursors.borrow()[&case.published_service()], 1);
        })),
        Fixture::new(
            name("gone"),
            "a connection whose backend is gone is reset at once, and forgotten",
            flow(BACKEND_GONE),
        )
        .step(answer(Reason::ResetBackendGone).then(move |tables| assert!(tables.flows().is_empty())))
        .step(answer(Reason::ResetUnknownFlow)),
        Fixture::new(name("gone_syn"), "a SYN finds another backend", flow(BACKEND_GONE)).step(to(
            case,
            &case.opening(),
            Place::Switched,
        )),
        Fixture::new(
            name("renamed_syn"),
            "whatever the number of its old flow's service means now, a SYN is for whom the frontend leads to",
            flow(BACKEND_GONE).change(tuple, |flow| flow.service = 77),
        )
        .step(to(case, &case.opening(), Place::Switched)),
        Fixture::new(
            name("unknown"),
            "a segment of no known connection is reset",
            World::new(),
        )
        .step(answer(Reason::ResetUnknownFlow)),
        Fixture::new(
            name("unknown_fin"),
            "without ACK, what the segment takes of the sequence is acknowledged: 21 bytes and a FIN",
            World::new(),
        )
        .step({
            let refused = reset(data(case), (case.published(1), case.client())).flags(0x14);
            Step::new(Entry::TcNode, NODE_IF, data(case).flags(1).build())
                .transmits(Reason::ResetUnknownFlow, refused.numbers(0, 0x1234_5678 + 22).build())
        }),
        Fixture::new(name("unknown_rst"), "a RST is never answered", World::new())
            .step(Step::new(Entry::TcNode, NODE_IF, data(case).flags(0x14).build()).drops(Reason::ResetUnknownFlow)),
    ]
}

fn udp(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("drain_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = |slots: &[Place], state| {
        World::new()
            .serve(case, slots)
            .flow(case, tuple, Place::Here, None)
            .backend_state(case, Place::Here, state)
    };
    vec![
        Fixture::new(
            name("moves"),
            "datagrams leave a draining backend at once",
            world(&[Place::Switched], BACKEND_DRAINING),
        )
        .step(to(case, &data(case), Place::Switched).then(move |tables| {
            assert_eq!(tables.flows()[&tuple].backend, case.backend_id(Place::Switched));
        }))
        .step(to(case, &data(case), Place::Switched)),
        Fixture::new(
            name("last"),
            "unless nothing but draining backends is left",
            world(&[Place::Here], BACKEND_DRAINING),
        )
        .step(to(case, &data(case), Place::Here)),
        Fixture::new(
            name("gone"),
            "they leave one that is gone",
            world(&[Place::Switched], BACKEND_GONE),
        )
        .step(to(case, &data(case), Place::Switched)),
        Fixture::new(
            name("renamed"),
            "and go to whom the frontend leads to, whatever the number of their old service means now",
            world(&[Place::Switched], BACKEND_GONE).change(tuple, |flow| flow.service = 77),
        )
        .step(to(case, &data(case), Place::Switched).then(move |tables| {
            assert_eq!(tables.flows()[&tuple].service, case.published_service());
        })),
    ]
}

/// A backend's element given to another one meanwhile is not the flow's backend.
fn generation(case: Case) -> Fixture {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = World::new()
        .serve(case, &[Place::Switched])
        .flow(case, tuple, Place::Here, None)
        .change(tuple, |flow| flow.generation -= 1);
    let fixture = Fixture::new(
        format!("drain_reused_{}", case.name()),
        "an element that was given to another backend is not the flow's own",
        world,
    );
    if case.tcp() {
        let refused = reset(data(case), (case.published(1), case.client())).build();
        return fixture
            .step(Step::new(Entry::TcNode, NODE_IF, data(case).build()).transmits(Reason::ResetBackendGone, refused));
    }
    fixture.step(to(case, &data(case), Place::Switched))
}
