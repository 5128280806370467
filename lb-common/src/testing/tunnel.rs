//! What other nodes send through the tunnel.

mod refused;

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, Mac, ethernet, tunnel};
use super::world::{
    CLIENT_IF, Case, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, World, mac, node_mac, reply_of,
    workload_mac,
};
use crate::abi::{Backend, FLOW_CLOSED, FLOW_ESTABLISHED, FLOW_NEW, NETWORK_NODE, UDP};
use crate::verdict::{Action, Reason};

const FORWARD: u8 = 1;
const REPLY: u8 = 2;

/// A tunnel packet from a node to node 1's first interface.
fn from_node(case: Case, node: u8, direction: u8, backend: SocketAddr, inner: &[u8]) -> Vec<u8> {
    wrapped(case, (case.node(node), 50_000).into(), direction, backend, inner)
}

fn wrapped(case: Case, sender: SocketAddr, direction: u8, backend: SocketAddr, inner: &[u8]) -> Vec<u8> {
    let outer = (sender, (case.node(1), TUNNEL_PORT).into());
    let packet = tunnel(outer, direction, NETWORK, backend, inner);
    let macs: (Mac, Mac) = (mac(NODE_IF), node_mac(2));
    ethernet(macs.0, macs.1, if sender.is_ipv6() { 0x86dd } else { 0x0800 }, &packet)
}

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        all.extend(forward(case));
        all.extend(reply(case));
        all.extend(refused::fixtures(case));
    }
    all.push(other_family());
    all.extend(Case::ALL.map(collision));
    all.extend([Case::UDP[0], Case::UDP[1]].map(forged));
    all
}

/// A workload that speaks the nodes' own language: masqueraded on its way out, it would pass for a node.
fn forged(case: Case) -> Fixture {
    let inner = case.first(case.client(), case.published(2));
    let outer = (case.inside(), (case.node(2), TUNNEL_PORT).into());
    let packet = tunnel(outer, FORWARD, NETWORK, case.backend(Place::Here), &inner.packet());
    let kind = if case.inside().is_ipv6() { 0x86dd } else { 0x0800 };
    let frame = ethernet(mac(CLIENT_IF), workload_mac(CLIENT_IF), kind, &packet);
    Fixture::new(
        format!("tunnel_forged_by_workload_{}", case.name()),
        "what a workload sends to a node's tunnel port goes nowhere",
        World::new(),
    )
    .step(Step::new(Entry::FromWorkload, CLIENT_IF, frame).drops(Reason::DropTunnelSource))
    .step({
        let elsewhere = (case.client().ip(), TUNNEL_PORT).into();
        let frame = Frame::new(UDP, case.inside(), elsewhere).build();
        Step::new(Entry::FromWorkload, CLIENT_IF, frame).passes(Reason::PassNotService)
    })
}

/// One client, one source port, two entry nodes, one backend.
fn collision(case: Case) -> Fixture {
    let direct = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let tuple = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let inner = case.first(case.client(), case.published(2)).ttl(63);
    let frame = from_node(case, 2, FORWARD, case.backend(Place::Here), &inner.packet());
    Fixture::new(
        format!("tunnel_collision_{}", case.name()),
        "flows of one client that come by two nodes are kept apart at their backend",
        World::new().flow(case, direct, Place::Here, None),
    )
    .step(
        Step::new(Entry::TcNode, NODE_IF, frame)
            .sends(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF)
            .then(move |tables| {
                let port = tables.flows()[&tuple].source_port;
                assert_ne!(port, tuple.source_port);
                let back = case.tuple(case.backend(Place::Here), (case.client().ip(), port).into(), NETWORK);
                assert_eq!(tables.replies()[&back], reply_of(&tuple, false));
            }),
    )
}

fn forward(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("tunnel_{what}_{}", case.name());
    let backend = case.backend(Place::Here);
    let inner = case.first(case.client(), case.published(2)).ttl(63);
    let frame = from_node(case, 2, FORWARD, backend, &inner.packet());
    let tuple = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let out = inner
        .clone()
        .to(backend)
        .ttl(62)
        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
        .build();
    let data = case.frame(case.client(), case.published(2)).ttl(63);
    let data_out = data
        .clone()
        .to(backend)
        .ttl(62)
        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    let deliver = |step: Step, out: Vec<u8>| step.redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, out);
    // Who has no slot here decides nothing here: the entry node has chosen.
    let world = || World::new().serve(case, &[Place::Switched]);
    let mut moved = world().flow(case, tuple, Place::Here, Some(1));
    let here = moved.tables.backends[&case.backend_id(Place::Here)];
    let other = case.backend_id(Place::Switched);
    moved.tables.backends.insert(other, Backend { port: 9000, ..here });
    vec![
        Fixture::new(
            name("forward"),
            "the entry node's choice is delivered, and the way back is written down",
            world(),
        )
        .step(
            deliver(Step::new(Entry::TcNode, NODE_IF, frame.clone()), out.clone()).then(move |tables| {
                let flow = tables.flows()[&tuple];
                assert_eq!((flow.state, flow.origin), (FLOW_NEW, 2));
                assert!(tables.cursors.borrow().is_empty(), "no turn of ours is taken");
            }),
        ),
        Fixture::new(name("forward_xdp"), "XDP leaves delivery to tc", world())
            .step(Step::new(Entry::XdpNode, NODE_IF, frame.clone()).passes(Reason::PassToTc)),
        Fixture::new(
            name("forward_known"),
            "a known flow goes on",
            world().flow(case, tuple, Place::Here, Some(1)),
        )
        .step(deliver(
            Step::new(
                Entry::TcNode,
                NODE_IF,
                from_node(case, 2, FORWARD, backend, &data.packet()),
            ),
            data_out.build(),
        )),
        Fixture::new(
            name("forward_moved"),
            "where the entry node means another backend now, so does this one",
            world().flow(case, tuple, Place::Switched, Some(1)),
        )
        .step(
            deliver(Step::new(Entry::TcNode, NODE_IF, frame.clone()), out.clone()).then(move |tables| {
                assert_eq!(tables.flows()[&tuple].backend, case.backend_id(Place::Here));
            }),
        ),
        Fixture::new(
            name("forward_port"),
            "another port of the same address is another backend",
            moved.change(tuple, |flow| flow.backend = other),
        )
        .step(
            deliver(Step::new(Entry::TcNode, NODE_IF, frame.clone()), out.clone()).then(move |tables| {
                assert_eq!(tables.flows()[&tuple].backend, case.backend_id(Place::Here));
            }),
        ),
        Fixture::new(
            name("forward_again"),
            "a SYN after the end begins anew; a datagram goes on",
            world().flow(case, tuple, Place::Here, Some(1)).change(tuple, |flow| {
                flow.state = if case.tcp() { FLOW_CLOSED } else { FLOW_ESTABLISHED }
            }),
        )
        .step(
            deliver(Step::new(Entry::TcNode, NODE_IF, frame.clone()), out.clone()).then(move |tables| {
                let state = if case.tcp() { FLOW_NEW } else { FLOW_ESTABLISHED };
                assert_eq!(tables.flows()[&tuple].state, state);
            }),
        ),
        Fixture::new(
            name("forward_origin"),
            "where the client comes by another way now, its flow does not collide with itself",
            world().flow(case, tuple, Place::Here, None),
        )
        .step(
            deliver(Step::new(Entry::TcNode, NODE_IF, frame.clone()), out.clone())
                .then(move |tables| assert_eq!(tables.flows()[&tuple].origin, 2)),
        ),
        Fixture::new(name("forward_ttl"), "no hop left", world()).step(
            Step::new(
                Entry::TcNode,
                NODE_IF,
                from_node(case, 2, FORWARD, backend, &inner.clone().ttl(1).packet()),
            )
            .drops(Reason::DropTtl),
        ),
    ]
}

fn reply(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("tunnel_{what}_{}", case.name());
    let backend = case.backend(Place::Node2);
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Node2, None);
    let inner = case.frame(case.published(1), case.client()).ttl(63);
    let frame = from_node(case, 2, REPLY, backend, &inner.packet());
    let out = inner.clone().ttl(62).macs(ROUTER, mac(NODE_IF)).build();
    let mut all = vec![
        Fixture::new(
            name("reply_wrong_node"),
            "another node may not answer for the backend's",
            world(),
        )
        .step(
            Step::new(
                Entry::XdpNode,
                NODE_IF,
                from_node(case, 3, REPLY, backend, &inner.packet()),
            )
            .drops(Reason::DropTunnelFrontend),
        ),
        Fixture::new(
            name("reply_partial"),
            "XDP leaves an inner checksum that is not finished to tc, as it came",
            world(),
        )
        .step(
            Step::new(
                Entry::XdpNode,
                NODE_IF,
                from_node(case, 2, REPLY, backend, &inner.clone().partial().packet()),
            )
            .passes(Reason::PassPartialChecksum),
        ),
        Fixture::new(
            name("reply_unknown"),
            "a reply without a flow goes to nobody",
            World::new(),
        )
        .step(Step::new(Entry::XdpNode, NODE_IF, frame.clone()).drops(Reason::DropTunnelFrontend)),
        Fixture::new(name("reply_ttl"), "no hop left", world()).step(
            Step::new(
                Entry::XdpNode,
                NODE_IF,
                from_node(case, 2, REPLY, backend, &inner.clone().ttl(1).packet()),
            )
            .drops(Reason::DropTtl),
        ),
        Fixture::new(
            name("reply_no_route"),
            "no way to the client: XDP asks tc, tc drops",
            world().unroutable(case.client().ip()),
        )
        .step(Step::new(Entry::XdpNode, NODE_IF, frame.clone()).passes(Reason::PassToTc))
        .step(Step::new(Entry::TcNode, NODE_IF, frame.clone()).drops(Reason::DropNoRoute)),
    ];
    for (entry, hook) in [(Entry::XdpNode, "xdp"), (Entry::TcNode, "tc")] {
        all.push(
            Fixture::new(
                name(&format!("reply_{hook}")),
                "the reply goes to the client as it is; the flow is established",
                world().change(tuple, |flow| flow.state = FLOW_NEW),
            )
            .step(
                Step::new(entry, NODE_IF, frame.clone())
                    .transmits(Reason::ReplyFromTunnel, out.clone())
                    .then(move |tables| assert_eq!(tables.flows()[&tuple].state, FLOW_ESTABLISHED)),
            ),
        );
    }
    all
}

fn other_family() -> Fixture {
    let (v4, v6) = (Case::UDP[0], Case::UDP[1]);
    let inner = v6.first(v6.client(), v6.published(2)).ttl(63);
    let frame = wrapped(
        v4,
        (v4.node(2), 50_000).into(),
        FORWARD,
        v6.backend(Place::Here),
        &inner.packet(),
    );
    let out = inner.to(v6.backend(Place::Here)).ttl(62);
    Fixture::new(
        "tunnel_forward_v6_in_v4",
        "IPv6 comes out of an IPv4 tunnel",
        World::new(),
    )
    .step(Step::new(Entry::TcNode, NODE_IF, frame).redirects(
        Action::RedirectPeer,
        Reason::ForwardLocal,
        ROUTED_IF,
        out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build(),
    ))
}
