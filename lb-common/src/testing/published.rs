//! Published ports: a client outside speaks to this node.

mod by_hand;
mod turns;

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Mac, ethernet, tunnel};
use super::world::{
    Case, NETWORK, NODE_IF, NOW, Place, ROUTED_IF, ROUTER, SECOND_IF, SWITCHED_IF, TUNNEL_PORT, World, mac, node_mac,
    reply_of, workload_mac,
};
use crate::abi::{FLOW_CLOSED, FLOW_NEW, INTERFACE_WORKLOAD, InterfaceKey, NETWORK_NODE, Node};
use crate::address::Address;
use crate::verdict::{Action, Reason};

/// Largest packet that fits the tunnel of a family.
pub(super) const fn room(v6: bool) -> u16 {
    1500 - if v6 { 40 + 8 + 36 } else { 20 + 8 + 36 }
}

/// SYN options whose MSS fits the tunnel.
pub(super) fn clamped(v6: bool) -> [u8; 8] {
    let [high, low] = (room(v6) - if v6 { 60 } else { 40 }).to_be_bytes();
    [2, 4, high, low, 4, 2, 1, 1]
}

/// The opening packet as node 1 sends it through the tunnel to a backend.
fn tunnelled(case: Case, place: Place, macs: (Mac, Mac)) -> Vec<u8> {
    let mut inner = case.opening().ttl(63);
    if case.tcp() {
        inner = inner.tcp_options(&clamped(case.v6));
    }
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let port = 0xc000 | (tuple.hash() & 0x3fff) as u16;
    let node = place.node() as u8 + 1;
    let outer = ((case.node(1), port).into(), (case.node(node), TUNNEL_PORT).into());
    let packet = tunnel(outer, 1, NETWORK, case.backend(place), &inner.packet());
    ethernet(macs.0, macs.1, if case.v6 { 0x86dd } else { 0x0800 }, &packet)
}

/// The opening packet as the routed backend receives it.
fn delivered(case: Case) -> Vec<u8> {
    let macs = (workload_mac(ROUTED_IF), mac(ROUTED_IF));
    case.opening()
        .to(case.backend(Place::Here))
        .ttl(63)
        .macs(macs.0, macs.1)
        .build()
}

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = vec![by_hand::v4(), by_hand::v6()];
    for case in Case::ALL {
        all.extend(local(case));
        all.extend(remote(case));
        all.push(turns::round_robin(case));
        all.push(turns::weights(case));
    }
    all.push(tunnel_of_the_other_family());
    all.push(no_checksum());
    all.extend(Case::TCP.map(retransmission));
    all
}

fn local(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("published_{what}_{}", case.name());
    let opening = case.opening().build();
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let back = case.tuple(case.backend(Place::Here), case.client(), NETWORK);
    let to_peer = |step: Step| step.redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, delivered(case));
    let tc = Step::new(Entry::TcNode, NODE_IF, opening.clone());
    let xdp = Step::new(Entry::XdpNode, NODE_IF, opening.clone());
    let switched = (workload_mac(SWITCHED_IF), mac(SWITCHED_IF));
    let unseen = (workload_mac(99), mac(SWITCHED_IF));
    let sent = |place: Place, macs: (Mac, Mac)| {
        case.opening()
            .to(case.backend(place))
            .ttl(63)
            .macs(macs.0, macs.1)
            .build()
    };
    vec![
        Fixture::new(
            name("local"),
            "tc delivers to a backend behind a veth, and writes the flow down",
            World::new(),
        )
        .step(to_peer(tc).then(move |tables| {
            let flow = tables.flows()[&tuple];
            assert_eq!((flow.state, flow.origin), (FLOW_NEW, 0));
            assert_eq!(flow.source_port, tuple.source_port);
            assert_eq!(tables.replies()[&back], reply_of(&tuple, false));
            assert_eq!(tables.cursors.borrow()[&case.published_service()], 1);
        })),
        Fixture::new(
            name("local_xdp"),
            "XDP writes the flow down and leaves delivery to tc, which chooses no second time",
            World::new(),
        )
        .step(xdp.passes(Reason::PassToTc).then(move |tables| {
            assert_eq!(tables.flows()[&tuple].state, FLOW_NEW);
        }))
        .step(
            to_peer(Step::new(Entry::TcNode, NODE_IF, opening.clone())).then(move |tables| {
                assert_eq!(tables.cursors.borrow()[&case.published_service()], 1);
            }),
        ),
        Fixture::new(
            name("switched"),
            "a backend behind a switch port gets the frame from that port",
            World::new().serve(case, &[Place::Switched]),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, opening.clone()).redirects(
            Action::Redirect,
            Reason::ForwardLocal,
            SWITCHED_IF,
            sent(Place::Switched, switched),
        )),
        Fixture::new(
            name("unseen"),
            "a backend whose interface is not known yet is reached by the kernel's route",
            World::new().serve(case, &[Place::Unseen]),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, opening.clone()).redirects(
            Action::Redirect,
            Reason::ForwardLocal,
            SWITCHED_IF,
            sent(Place::Unseen, unseen),
        )),
        Fixture::new(name("ttl"), "what has no hop left is dropped", World::new())
            .step(Step::new(Entry::TcNode, NODE_IF, case.opening().ttl(1).build()).drops(Reason::DropTtl)),
        Fixture::new(
            name("partial"),
            "XDP leaves an unfinished checksum to tc, and writes nothing down",
            World::new(),
        )
        .step(
            Step::new(Entry::XdpNode, NODE_IF, case.opening().partial().build())
                .passes(Reason::PassPartialChecksum)
                .then(|tables| assert!(tables.flows().is_empty())),
        ),
        Fixture::new(
            name("established"),
            "an established flow stays with its backend, whatever the slots say",
            World::new()
                .serve(case, &[Place::Switched])
                .flow(case, tuple, Place::Here, None),
        )
        .step({
            let frame = case.frame(case.client(), case.published(1));
            let out = frame.clone().to(case.backend(Place::Here)).ttl(63);
            Step::new(Entry::TcNode, NODE_IF, frame.macs(mac(NODE_IF), ROUTER).build())
                .redirects(
                    Action::RedirectPeer,
                    Reason::ForwardLocal,
                    ROUTED_IF,
                    out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build(),
                )
                .then(move |tables| assert!(tables.flows()[&tuple].last_seen >= NOW))
        }),
        Fixture::new(
            name("expired"),
            "a flow past its time is as if it were not there",
            World::new()
                .flow(case, tuple, Place::Switched, None)
                .change(tuple, |flow| flow.timeout = 400),
        )
        .step(to_peer(Step::new(Entry::TcNode, NODE_IF, opening.clone()))),
        Fixture::new(name("padded"), "bytes behind the IP packet do not matter", World::new()).step({
            let frame = case.opening().payload(b"").tcp_options(&[]).padding(6);
            let out = frame.clone().to(case.backend(Place::Here)).ttl(63);
            Step::new(Entry::TcNode, NODE_IF, frame.build()).redirects(
                Action::RedirectPeer,
                Reason::ForwardLocal,
                ROUTED_IF,
                out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build(),
            )
        }),
    ]
}

fn remote(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("published_{what}_{}", case.name());
    let opening = case.opening().build();
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = |place| World::new().serve(case, &[place]);
    let out = tunnelled(case, Place::Node2, (node_mac(2), mac(NODE_IF)));
    let far = tunnelled(case, Place::Node3, (node_mac(3), mac(SECOND_IF)));
    let on = |entry| Step::new(entry, NODE_IF, opening.clone());
    let nowhere = || world(Place::Node2).unroutable(case.node(2));
    vec![
        Fixture::new(
            name("remote_xdp"),
            "XDP tunnels to another node and clamps the MSS; no reply entry is needed",
            world(Place::Node2),
        )
        .step(
            on(Entry::XdpNode)
                .transmits(Reason::ForwardTunnel, out.clone())
                .then(move |tables| {
                    assert!(tables.flows().contains_key(&tuple));
                    assert!(tables.replies().is_empty());
                }),
        ),
        Fixture::new(name("remote_tc"), "tc does the same", world(Place::Node2))
            .step(on(Entry::TcNode).transmits(Reason::ForwardTunnel, out)),
        Fixture::new(
            name("remote_second"),
            "a node behind the other interface is reached by that one",
            world(Place::Node3),
        )
        .step(on(Entry::XdpNode).redirects(Action::Redirect, Reason::ForwardTunnel, SECOND_IF, far.clone())),
        Fixture::new(
            name("remote_second_workload"),
            "XDP sends nothing out of a workload's interface, which may not take it",
            {
                let mut world = world(Place::Node3);
                let second = world.tables.interfaces.get_mut(&InterfaceKey::node(SECOND_IF));
                second.expect("an interface").flags = INTERFACE_WORKLOAD;
                world
            },
        )
        .step(on(Entry::XdpNode).passes(Reason::PassToTc))
        .step(on(Entry::TcNode).redirects(Action::Redirect, Reason::ForwardTunnel, SECOND_IF, far.clone())),
        Fixture::new(name("remote_second_tc"), "tc does the same", world(Place::Node3))
            .step(on(Entry::TcNode).redirects(Action::Redirect, Reason::ForwardTunnel, SECOND_IF, far)),
        Fixture::new(
            name("remote_unresolved"),
            "XDP leaves an unknown MAC to tc, which lets the kernel find it",
            world(Place::Node4),
        )
        .step(on(Entry::XdpNode).passes(Reason::PassUnresolved))
        .step(on(Entry::TcNode).redirects(
            Action::RedirectNeighbour,
            Reason::ForwardTunnel,
            NODE_IF,
            tunnelled(case, Place::Node4, (mac(NODE_IF), ROUTER)),
        )),
        Fixture::new(
            name("remote_no_route"),
            "no route: XDP asks tc, tc drops and says so",
            nowhere(),
        )
        .step(on(Entry::XdpNode).passes(Reason::PassToTc))
        .step(on(Entry::TcNode).drops(Reason::DropNoRoute)),
        Fixture::new(name("remote_ttl"), "no hop left for the tunnel", world(Place::Node2))
            .step(Step::new(Entry::XdpNode, NODE_IF, case.opening().ttl(1).build()).drops(Reason::DropTtl)),
        Fixture::new(name("remote_no_tunnel"), "a node without a tunnel address", {
            let mut world = world(Place::Node2);
            world.tables.nodes.insert(1, Node::default());
            world
        })
        .step(on(Entry::XdpNode).drops(Reason::DropNoTunnel)),
    ]
}

fn retransmission(case: Case) -> Fixture {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let step = || {
        Step::new(Entry::TcNode, NODE_IF, case.opening().build()).redirects(
            Action::RedirectPeer,
            Reason::ForwardLocal,
            ROUTED_IF,
            delivered(case),
        )
    };
    Fixture::new(
        format!("published_syn_again_{}", case.name()),
        "a repeated SYN goes where the first went; after the end of the connection it begins a new one",
        World::new().serve(case, &[Place::Here, Place::Switched]),
    )
    .step(step())
    .step(step().then(move |tables| assert_eq!(tables.cursors.borrow()[&case.published_service()], 1)))
    .step({
        let reset = case.frame(case.client(), case.published(1)).flags(4).payload(b"");
        let out = reset.clone().to(case.backend(Place::Here)).ttl(63);
        Step::new(Entry::TcNode, NODE_IF, reset.macs(mac(NODE_IF), ROUTER).build())
            .redirects(
                Action::RedirectPeer,
                Reason::ForwardLocal,
                ROUTED_IF,
                out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build(),
            )
            .then(move |tables| assert_eq!(tables.flows()[&tuple].state, FLOW_CLOSED))
    })
    .step({
        let out = case.opening().to(case.backend(Place::Switched)).ttl(63);
        Step::new(Entry::TcNode, NODE_IF, case.opening().build()).redirects(
            Action::Redirect,
            Reason::ForwardLocal,
            SWITCHED_IF,
            out.macs(workload_mac(SWITCHED_IF), mac(SWITCHED_IF)).build(),
        )
    })
}

fn no_checksum() -> Fixture {
    let case = Case::UDP[0];
    let frame = case.opening().unsummed();
    let out = frame.clone().to(case.backend(Place::Here)).ttl(63);
    Fixture::new(
        "published_no_checksum_udp4",
        "a datagram without a checksum gets none",
        World::new(),
    )
    .step(Step::new(Entry::TcNode, NODE_IF, frame.build()).redirects(
        Action::RedirectPeer,
        Reason::ForwardLocal,
        ROUTED_IF,
        out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build(),
    ))
}

fn tunnel_of_the_other_family() -> Fixture {
    let case = Case::UDP[1];
    let mut world = World::new().serve(case, &[Place::Node2]);
    for id in [0, 1] {
        world.tables.nodes.get_mut(&id).expect("a node").tunnel_v6 = Address::ANY;
    }
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let port = 0xc000 | (tuple.hash() & 0x3fff) as u16;
    let v4 = Case::UDP[0];
    let outer = ((v4.node(1), port).into(), (v4.node(2), TUNNEL_PORT).into());
    let inner = case.opening().ttl(63).packet();
    let packet = tunnel(outer, 1, NETWORK, case.backend(Place::Node2), &inner);
    Fixture::new(
        "published_remote_v6_in_v4",
        "IPv6 goes through an IPv4 tunnel where nodes have no other",
        world,
    )
    .step(Step::new(Entry::XdpNode, NODE_IF, case.opening().build()).transmits(
        Reason::ForwardTunnel,
        ethernet(node_mac(2), mac(NODE_IF), 0x0800, &packet),
    ))
}
