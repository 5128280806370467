//! Clients and backends of a VIP that are both behind routed veths of one node.

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::Frame;
use super::world::{
    Case, NEIGHBOUR_IF, NETWORK, NODE_IF, OTHER_NETWORK, Place, ROUTED_IF, SWITCHED_IF, World, mac, node_mac, reply_of,
    workload_mac,
};
use crate::abi::{BACKEND_GONE, FLOW_ESTABLISHED, FLOW_NEW, InterfaceKey};
use crate::tuple::Tuple;
use crate::verdict::{Action, Reason};

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        all.extend(forward(case));
        all.extend(back(case));
        all.extend(back_from_node(case));
        all.extend(gone(case));
    }
    all
}

/// The client's packet as its interface receives it.
fn sent(frame: Frame) -> Frame {
    frame.macs(mac(NEIGHBOUR_IF), workload_mac(NEIGHBOUR_IF))
}

fn forward(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("inside_{what}_{}", case.name());
    let tuple = case.tuple(case.neighbour(), case.vip(), NETWORK);
    let opening = sent(case.first(case.neighbour(), case.vip()));
    let step = |frame: &Frame| Step::new(Entry::FromWorkload, NEIGHBOUR_IF, frame.build());
    let to = |place| opening.clone().to(case.backend(place));
    let delivered = to(Place::Here).macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).ttl(63);
    let far = to(Place::Node2).macs(node_mac(2), mac(NODE_IF)).ttl(63);
    let large = sent(case.frame(case.neighbour(), case.vip()).payload(&[7; 1600]));
    let last = opening.clone().ttl(1);
    let mut foreign = World::new();
    let interface = foreign.tables.interfaces.get_mut(&InterfaceKey::node(ROUTED_IF));
    interface.expect("the world has it").network = OTHER_NETWORK;
    vec![
        Fixture::new(
            name("forward"),
            "from one routed veth into the far end of another, as the node would route it",
            World::new(),
        )
        .step(
            step(&opening)
                .redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, delivered.build())
                .then(move |tables| {
                    assert_eq!(tables.flows()[&tuple].state, FLOW_NEW);
                    let back = case.tuple(case.backend(Place::Here), case.neighbour(), NETWORK);
                    assert_eq!(tables.replies()[&back], reply_of(&tuple, false));
                }),
        ),
        Fixture::new(
            name("forward_last_hop"),
            "that a packet has come to its end is the node's to say",
            World::new(),
        )
        .step(step(&last).continues(
            Reason::ForwardNetwork,
            last.clone().to(case.backend(Place::Here)).build(),
        )),
        Fixture::new(
            name("forward_switched"),
            "to a switch port the node carries it",
            World::new().serve(case, &[Place::Switched]),
        )
        .step(step(&opening).continues(Reason::ForwardNetwork, to(Place::Switched).build())),
        Fixture::new(
            name("forward_remote"),
            "to another node by the node's own interface",
            World::new().serve(case, &[Place::Node2]),
        )
        .step(step(&opening).redirects(Action::Redirect, Reason::ForwardNetwork, NODE_IF, far.build())),
        Fixture::new(
            name("forward_far"),
            "where there is no route the node says so",
            World::new().serve(case, &[Place::Node3]),
        )
        .step(step(&opening).continues(Reason::ForwardNetwork, to(Place::Node3).build())),
        Fixture::new(
            name("forward_large"),
            "and that something does not fit",
            World::new()
                .serve(case, &[Place::Node2])
                .flow(case, tuple, Place::Node2, None),
        )
        .step(step(&large).continues(
            Reason::ForwardNetwork,
            large.clone().to(case.backend(Place::Node2)).build(),
        )),
        Fixture::new(
            name("forward_unasked"),
            "where nothing is handed over the node carries all of it",
            unasked(World::new().serve(case, &[Place::Node2, Place::Here])),
        )
        .step(step(&opening).continues(Reason::ForwardNetwork, to(Place::Node2).build())),
        Fixture::new(name("forward_here_unasked"), "here too", unasked(World::new()))
            .step(step(&opening).continues(Reason::ForwardNetwork, to(Place::Here).build())),
        Fixture::new(
            name("forward_foreign"),
            "nothing is put into an interface of another network",
            foreign,
        )
        .step(step(&opening).continues(Reason::ForwardNetwork, to(Place::Here).build())),
    ]
}

/// A backend's answer to `client`, as the backend's interface receives it.
fn answer(case: Case, place: Place, client: SocketAddr) -> Frame {
    let ifindex = if place == Place::Here { ROUTED_IF } else { SWITCHED_IF };
    case.frame(case.backend(place), client)
        .macs(mac(ifindex), workload_mac(ifindex))
}

fn back(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("inside_{what}_{}", case.name());
    let flow = move |client| case.tuple(client, case.vip(), NETWORK);
    let world = |tuple: Tuple, place| World::new().flow(case, tuple, place, None);
    let (client, silent) = (case.neighbour(), case.silent());
    let reply = answer(case, Place::Here, client);
    let step = |frame: &Frame| Step::new(Entry::FromWorkload, ROUTED_IF, frame.build());
    let last = reply.clone().ttl(1);
    let switched = answer(case, Place::Switched, client);
    let unresolved = answer(case, Place::Here, silent);
    let fresh = world(flow(client), Place::Here).change(flow(client), |flow| flow.state = FLOW_NEW);
    vec![
        Fixture::new(
            name("reply"),
            "a reply is translated where it is sent, and put into the client's end",
            fresh,
        )
        .step(
            step(&reply)
                .redirects(
                    Action::RedirectPeer,
                    Reason::ReplyVip,
                    NEIGHBOUR_IF,
                    reply
                        .clone()
                        .from(case.vip())
                        .macs(workload_mac(NEIGHBOUR_IF), mac(NEIGHBOUR_IF))
                        .ttl(63)
                        .build(),
                )
                .then(move |tables| assert_eq!(tables.flows()[&flow(client)].state, FLOW_ESTABLISHED)),
        ),
        Fixture::new(
            name("reply_unresolved"),
            "the kernel resolves the client's address",
            world(flow(silent), Place::Here),
        )
        .step(step(&unresolved).redirects(
            Action::RedirectNeighbour,
            Reason::ReplyVip,
            NEIGHBOUR_IF,
            unresolved.clone().from(case.vip()).ttl(63).build(),
        )),
        Fixture::new(
            name("reply_last_hop"),
            "that it has come to its end is the node's to say",
            world(flow(client), Place::Here),
        )
        .step(step(&last).passes(Reason::PassNetwork)),
        Fixture::new(
            name("reply_switched"),
            "from a switch port the node carries it, and it is translated where it arrives",
            world(flow(client), Place::Switched),
        )
        .step(Step::new(Entry::FromWorkload, SWITCHED_IF, switched.build()).passes(Reason::PassNetwork)),
        Fixture::new(
            name("reply_unasked"),
            "nothing is handed over",
            unasked(world(flow(client), Place::Here)),
        )
        .step(step(&reply).passes(Reason::PassNetwork)),
        Fixture::new(
            name("reply_expired"),
            "what belongs to a flow past its time is nobody's",
            world(flow(client), Place::Here).change(flow(client), |flow| flow.timeout = 100),
        )
        .step(step(&reply).passes(Reason::PassNotService)),
    ]
}

/// No workload is on a routed veth that the agent knows, or the operator wants none handed over.
fn unasked(mut world: World) -> World {
    world.tables.settings.flags = 0;
    world
}

fn back_from_node(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("inside_{what}_{}", case.name());
    let flow = move |client| case.tuple(client, case.vip(), NETWORK);
    let world = |client| World::new().flow(case, flow(client), Place::Node2, None);
    let answer = |client| {
        let frame = case.frame(case.backend(Place::Node2), client);
        frame.macs(mac(NODE_IF), node_mac(2))
    };
    let (client, silent) = (case.neighbour(), case.silent());
    let reply = answer(client);
    let put = |frame: &Frame| {
        let frame = frame.clone().from(case.vip()).ttl(63);
        frame.macs(workload_mac(NEIGHBOUR_IF), mac(NEIGHBOUR_IF)).build()
    };
    let on = |entry, frame: &Frame| Step::new(entry, NODE_IF, frame.build());
    let left = |step: Step| step.passes(Reason::PassNotService);
    // A client's port may be one that is published.
    let published: SocketAddr = (client.ip(), case.published(1).port()).into();
    let same = answer(published);
    let mut foreign = world(client);
    let interface = foreign.tables.interfaces.get_mut(&InterfaceKey::node(NEIGHBOUR_IF));
    interface.expect("the world has it").network = OTHER_NETWORK;
    let hands_over = |frame: &Frame| {
        let (peer, out) = (Action::RedirectPeer, put(frame));
        on(Entry::TcNode, frame).redirects(peer, Reason::ReplyVip, NEIGHBOUR_IF, out)
    };
    vec![
        Fixture::new(
            name("reply_from_node"),
            "what comes back from another node is put into the client's end; XDP leaves it to tc",
            world(client).change(flow(client), |flow| flow.state = FLOW_NEW),
        )
        .step(left(on(Entry::XdpNode, &reply)))
        .step(hands_over(&reply).then(move |tables| assert_eq!(tables.flows()[&flow(client)].state, FLOW_ESTABLISHED))),
        Fixture::new(
            name("reply_from_node_published"),
            "also where the client's port is one that is published",
            world(published),
        )
        .step(hands_over(&same)),
        Fixture::new(
            name("reply_from_node_unresolved"),
            "the kernel resolves the client's address",
            world(silent),
        )
        .step(on(Entry::TcNode, &answer(silent)).redirects(
            Action::RedirectNeighbour,
            Reason::ReplyVip,
            NEIGHBOUR_IF,
            answer(silent).from(case.vip()).ttl(63).build(),
        )),
        Fixture::new(
            name("reply_from_node_foreign"),
            "in another network it is nobody's",
            foreign,
        )
        .step(left(on(Entry::TcNode, &reply))),
        Fixture::new(
            name("reply_from_node_expired"),
            "nor is what belongs to a flow past its time",
            world(client).change(flow(client), |flow| flow.timeout = 100),
        )
        .step(left(on(Entry::TcNode, &reply))),
        Fixture::new(
            name("reply_from_node_left"),
            "the node carries what is tagged or has come to its end",
            world(client),
        )
        .step(left(on(Entry::TcNode, &reply).side_tagged()))
        .step(left(on(Entry::TcNode, &reply.clone().ttl(1)))),
        Fixture::new(
            name("reply_from_node_unasked"),
            "where nothing is handed over nothing is looked for",
            unasked(world(client)),
        )
        .step(left(on(Entry::TcNode, &reply))),
    ]
}

/// Flows to a VIP that is no more.
fn gone(case: Case) -> Option<Fixture> {
    if !case.tcp() {
        return None;
    }
    let tuple = case.tuple(case.neighbour(), case.vip(), NETWORK);
    let segment = sent(case.frame(case.neighbour(), case.vip()));
    let mut world = World::new().flow(case, tuple, Place::Here, None);
    world = world.backend_state(case, Place::Here, BACKEND_GONE);
    world.tables.vips.clear();
    Some(
        Fixture::new(
            format!("inside_gone_{}", case.name()),
            "a connection to a VIP that was removed is reset",
            world,
        )
        .step(Step::new(Entry::FromWorkload, NEIGHBOUR_IF, segment.build()).sends(
            Action::Transmit,
            Reason::ResetBackendGone,
            0,
        )),
    )
}
