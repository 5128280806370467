//! Replies of backends on this node to clients of published ports.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{ethernet, tunnel};
use super::published::room;
use super::world::{
    Case, LOOPBACK_IF, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, World, mac, node_mac, workload_mac,
};
use crate::abi::{FLOW_CLOSED, FLOW_CLOSING, FLOW_ESTABLISHED, FLOW_FLAG_HOST, FLOW_NEW, NETWORK_NODE};
use crate::verdict::{Action, Reason};

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all: Vec<Fixture> = Case::ALL.into_iter().flat_map(replies).collect();
    all.extend(Case::TCP.map(ending));
    all
}

fn replies(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("reply_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let host = (case.node(1), 40_001).into();
    let own = case.tuple(host, case.published(1), NETWORK_NODE);
    let foreign = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let frame = case
        .frame(case.backend(Place::Here), case.client())
        .macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let step = || Step::new(Entry::FromWorkload, ROUTED_IF, frame.build());
    let out = frame
        .clone()
        .from(case.published(1))
        .ttl(63)
        .macs(ROUTER, mac(NODE_IF))
        .build();
    let back = |frame: &super::frame::Frame| {
        let inner = frame.clone().from(case.published(2)).ttl(63).packet();
        let port = 0xc000 | (case.tuple(case.backend(Place::Here), case.client(), NETWORK).hash() & 0x3fff) as u16;
        let outer = ((case.node(1), port).into(), (case.node(2), TUNNEL_PORT).into());
        let packet = tunnel(outer, 2, NETWORK, case.backend(Place::Here), &inner);
        ethernet(
            node_mac(2),
            mac(NODE_IF),
            if case.v6 { 0x86dd } else { 0x0800 },
            &packet,
        )
    };
    let mut all = vec![
        Fixture::new(
            name("direct"),
            "the reply leaves with the frontend as its source; the flow is established",
            world().change(tuple, |flow| flow.state = FLOW_NEW),
        )
        .step(
            step()
                .redirects(Action::Redirect, Reason::ReplyDirect, NODE_IF, out)
                .then(move |tables| assert_eq!(tables.flows()[&tuple].state, FLOW_ESTABLISHED)),
        ),
        Fixture::new(
            name("tunnel"),
            "a flow that came through the tunnel is answered through it",
            World::new().flow(case, foreign, Place::Here, Some(1)),
        )
        .step(step().redirects(Action::Redirect, Reason::ReplyTunnel, NODE_IF, back(&frame))),
        Fixture::new(
            name("host"),
            "a client on the node itself gets its reply through the loopback interface",
            World::new()
                .flow(case, own, Place::Here, None)
                .change(own, |flow| flow.flags = FLOW_FLAG_HOST),
        )
        .step({
            let reply = case
                .frame(case.backend(Place::Here), host)
                .macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
            let out = reply.clone().from(case.published(1)).ttl(63).macs([0; 6], [0; 6]);
            Step::new(Entry::FromWorkload, ROUTED_IF, reply.build()).redirects(
                Action::DeliverHost,
                Reason::ReplyDirect,
                LOOPBACK_IF,
                out.build(),
            )
        }),
        Fixture::new(
            name("forged_host"),
            "nobody else sends to this node's own sockets by writing its address as his own",
            World::new().flow(case, own, Place::Here, None),
        )
        .step(
            Step::new(
                Entry::FromWorkload,
                ROUTED_IF,
                case.frame(case.backend(Place::Here), host).build(),
            )
            .drops(Reason::DropForgedSource),
        ),
        Fixture::new(
            name("expired"),
            "without its flow it is a packet like any other",
            world().change(tuple, |flow| flow.timeout = 100),
        )
        .step(step().passes(Reason::PassNotService)),
        Fixture::new(name("ttl"), "no hop left", world())
            .step(Step::new(Entry::FromWorkload, ROUTED_IF, frame.clone().ttl(1).build()).drops(Reason::DropTtl)),
        Fixture::new(
            name("no_route"),
            "no way to the client",
            world().unroutable(case.client().ip()),
        )
        .step(step().drops(Reason::DropNoRoute)),
        Fixture::new(
            name("other_backend"),
            "the tuple's flow has gone to another backend: what the old one still says is not translated",
            world().change(tuple, |flow| flow.backend = case.backend_id(Place::Switched)),
        )
        .step(step().passes(Reason::PassNotService)),
    ];
    let mut moved = world();
    let here = moved.tables.backends[&case.backend_id(Place::Here)];
    let other = case.backend_id(Place::Switched);
    moved
        .tables
        .backends
        .insert(other, crate::abi::Backend { port: 9000, ..here });
    all.push(
        Fixture::new(
            name("other_port"),
            "nor what the old one says from another port of the same address",
            moved.change(tuple, |flow| flow.backend = other),
        )
        .step(step().passes(Reason::PassNotService)),
    );
    if case.tcp() {
        let options = |v6: bool| {
            let [high, low] = (room(v6) - if v6 { 60 } else { 40 }).to_be_bytes();
            // Behind a NOP, so that the two bytes straddle words.
            [1, 2, 4, high, low, 1, 1, 1]
        };
        let frame = frame.flags(0x12).payload(b"");
        let before = frame.clone().tcp_options(&[1, 2, 4, 0x05, 0xb4, 1, 1, 1]);
        let after = frame.tcp_options(&options(case.v6));
        all.push(
            Fixture::new(
                name("tunnel_syn_ack"),
                "the MSS of a SYN-ACK is clamped too, at an odd offset too",
                World::new().flow(case, foreign, Place::Here, Some(1)),
            )
            .step(Step::new(Entry::FromWorkload, ROUTED_IF, before.build()).redirects(
                Action::Redirect,
                Reason::ReplyTunnel,
                NODE_IF,
                back(&after),
            )),
        );
    }
    all
}

/// FIN from either side, then RST.
fn ending(case: Case) -> Fixture {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let from_backend = case
        .frame(case.backend(Place::Here), case.client())
        .flags(0x11)
        .macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let from_client = case
        .frame(case.client(), case.published(1))
        .flags(0x11)
        .macs(mac(NODE_IF), ROUTER);
    let to_client = from_backend
        .clone()
        .from(case.published(1))
        .ttl(63)
        .macs(ROUTER, mac(NODE_IF));
    let to_backend = from_client.clone().to(case.backend(Place::Here)).ttl(63);
    let to_backend = to_backend.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    Fixture::new(
        format!("reply_fin_{}", case.name()),
        "one FIN closes a side, the second the flow, and each shortens its time",
        World::new().flow(case, tuple, Place::Here, None),
    )
    .step(
        Step::new(Entry::FromWorkload, ROUTED_IF, from_backend.build())
            .redirects(Action::Redirect, Reason::ReplyDirect, NODE_IF, to_client.build())
            .then(move |tables| {
                let flow = tables.flows()[&tuple];
                assert_eq!((flow.state, flow.timeout), (FLOW_CLOSING, tables.settings.tcp_closing));
            }),
    )
    .step(
        Step::new(Entry::TcNode, NODE_IF, from_client.build())
            .redirects(
                Action::RedirectPeer,
                Reason::ForwardLocal,
                ROUTED_IF,
                to_backend.build(),
            )
            .then(move |tables| {
                let flow = tables.flows()[&tuple];
                assert_eq!((flow.state, flow.timeout), (FLOW_CLOSED, tables.settings.tcp_closed));
            }),
    )
}
