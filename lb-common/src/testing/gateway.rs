//! Clients behind the gateway bridge, whose subnet every node has: masked everywhere but on their own node.

use std::format;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, ethernet, icmp_error, tunnel};
use super::published::{clamped, room};
use super::world::{
    Case, GATEWAY_IF, LOOPBACK_IF, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, World, mac, node_mac,
    workload_mac,
};
use crate::abi::NETWORK_NODE;
use crate::verdict::{Action, Reason};

/// Only IPv4 is masked.
const CASES: [Case; 2] = [Case::ALL[0], Case::ALL[1]];

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in CASES {
        all.push(local(case));
        all.push(remote(case));
        all.push(itself(case));
        all.extend(refused(case));
        all.extend(passed(case));
        all.extend(forged(case));
    }
    all.extend([Case::ALL[2], Case::ALL[3]].map(unmasked));
    all
}

/// IPv6 clients behind the bridge have addresses of their own.
fn unmasked(case: Case) -> Fixture {
    let client: SocketAddr = (Ipv6Addr::new(0xfd18, 0, 0, 0, 0, 0, 0, 5), 40_001).into();
    let tuple = case.tuple(client, case.published(1), NETWORK_NODE);
    let frame = case.frame(client, case.published(1));
    let port = 0xc000 | (tuple.hash() & 0x3fff) as u16;
    let outer = ((case.node(1), port).into(), (case.node(2), TUNNEL_PORT).into());
    let inner = frame.clone().ttl(63).packet();
    let packet = tunnel(outer, 1, NETWORK, case.backend(Place::Node2), &inner);
    Fixture::new(
        format!("gateway_client_unmasked_{}", case.name()),
        "a client that needs no mask is carried to its backend as every other one, its later packets too",
        World::new().flow(case, tuple, Place::Node2, None),
    )
    .step(sent(frame).redirects(
        Action::Redirect,
        Reason::ForwardTunnel,
        NODE_IF,
        ethernet(node_mac(2), mac(NODE_IF), 0x86dd, &packet),
    ))
}

fn sent(frame: Frame) -> Step {
    let macs = (mac(GATEWAY_IF), workload_mac(GATEWAY_IF));
    Step::new(Entry::FromWorkload, GATEWAY_IF, frame.macs(macs.0, macs.1).build())
}

fn opening(case: Case) -> Frame {
    case.first(case.gateway(), case.published(1))
}

fn local(case: Case) -> Fixture {
    let delivered = opening(case)
        .from(case.masked())
        .to(case.backend(Place::Here))
        .ttl(63)
        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    let answer = case.frame(case.backend(Place::Here), case.masked());
    let answered = case
        .frame(case.published(1), case.gateway())
        .ttl(63)
        .macs(workload_mac(GATEWAY_IF), mac(GATEWAY_IF));
    let tuple = case.tuple(case.masked(), case.published(1), NETWORK_NODE);
    Fixture::new(
        format!("gateway_client_local_{}", case.name()),
        "its flow is that of the address it is masked with; its reply is addressed to itself",
        World::new(),
    )
    .step(
        sent(opening(case))
            .redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, delivered.build())
            .then(move |tables| assert_eq!(tables.flows()[&tuple].flags, 0)),
    )
    .step(Step::new(Entry::FromWorkload, ROUTED_IF, answer.build()).redirects(
        Action::Redirect,
        Reason::ReplyDirect,
        GATEWAY_IF,
        answered.build(),
    ))
}

fn remote(case: Case) -> Fixture {
    let mut inner = opening(case).from(case.masked()).ttl(63);
    if case.tcp() {
        inner = inner.tcp_options(&clamped(false));
    }
    let tuple = case.tuple(case.masked(), case.published(1), NETWORK_NODE);
    let port = 0xc000 | (tuple.hash() & 0x3fff) as u16;
    let outer = ((case.node(1), port).into(), (case.node(2), TUNNEL_PORT).into());
    let packet = tunnel(outer, 1, NETWORK, case.backend(Place::Node2), &inner.packet());
    let there = ethernet(node_mac(2), mac(NODE_IF), 0x0800, &packet);
    let inner = case.frame(case.published(1), case.masked());
    let outer = ((case.node(2), 50_000).into(), (case.node(1), TUNNEL_PORT).into());
    let packet = tunnel(outer, 2, NETWORK, case.backend(Place::Node2), &inner.packet());
    let back = ethernet(mac(NODE_IF), node_mac(2), 0x0800, &packet);
    let answered = case
        .frame(case.published(1), case.gateway())
        .ttl(63)
        .macs(workload_mac(GATEWAY_IF), mac(GATEWAY_IF));
    Fixture::new(
        format!("gateway_client_remote_{}", case.name()),
        "the other node sees the mask alone; XDP leaves taking it off to tc",
        World::new().serve(case, &[Place::Node2]),
    )
    .step(sent(opening(case)).redirects(Action::Redirect, Reason::ForwardTunnel, NODE_IF, there))
    .step(Step::new(Entry::XdpNode, NODE_IF, back.clone()).passes(Reason::PassToTc))
    .step(Step::new(Entry::TcNode, NODE_IF, back).redirects(
        Action::Redirect,
        Reason::ReplyFromTunnel,
        GATEWAY_IF,
        answered.build(),
    ))
}

/// Client and backend are one: the mask tells them apart, and nothing else is needed.
fn itself(case: Case) -> Fixture {
    let mut world = World::new();
    let backend = world.tables.backends.get_mut(&case.backend_id(Place::Here));
    let backend = backend.expect("every place has a backend");
    backend.delivery = case.gateway().ip().into();
    backend.delivery_network = NETWORK_NODE;
    backend.ifindex = GATEWAY_IF;
    backend.mac = workload_mac(GATEWAY_IF);
    let target = SocketAddr::new(case.gateway().ip(), case.backend(Place::Here).port());
    let macs = (workload_mac(GATEWAY_IF), mac(GATEWAY_IF));
    let delivered = opening(case).from(case.masked()).to(target).ttl(63);
    let answered = case.frame(case.published(1), case.gateway()).ttl(63);
    Fixture::new(
        format!("gateway_client_itself_{}", case.name()),
        "a backend behind the bridge can be its own client",
        world,
    )
    .step(sent(opening(case)).redirects(
        Action::RedirectPeer,
        Reason::ForwardLocal,
        GATEWAY_IF,
        delivered.macs(macs.0, macs.1).build(),
    ))
    .step(sent(case.frame(target, case.masked())).transmits(Reason::ReplyDirect, answered.macs(macs.0, macs.1).build()))
}

fn refused(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("gateway_client_{what}_{}", case.name());
    let macs = (workload_mac(GATEWAY_IF), mac(GATEWAY_IF));
    let mut all = Vec::new();
    if case.tcp() {
        let reset = case
            .frame(case.published(1), case.gateway())
            .flags(0x14)
            .window(0)
            .numbers(0, 0x0102_0305)
            .payload(b"")
            .macs(macs.0, macs.1);
        all.push(
            Fixture::new(
                name("refused"),
                "who is refused hears it by his own address",
                World::new().serve(case, &[]),
            )
            .step(sent(opening(case)).transmits(Reason::ResetNoBackend, reset.build())),
        );
    } else {
        let frame = opening(case).payload(&[1; 1460]);
        let quote = frame.clone().packet();
        let (node, client) = (case.published(1).ip(), case.gateway().ip());
        let packet = icmp_error(node, client, (3, 4), room(false).into(), &quote[..28]);
        all.push(
            Fixture::new(
                name("too_big"),
                "what does not fit the tunnel is answered as it came",
                World::new().serve(case, &[Place::Node2]),
            )
            .step(sent(frame).transmits(Reason::AnswerTooBig, ethernet(macs.0, macs.1, 0x0800, &packet))),
        );
    }
    all
}

fn passed(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("gateway_client_passed_{what}_{}", case.name());
    let off = {
        let mut world = World::new();
        world.tables.settings.bridge_mask = 0;
        world
    };
    let delivered = opening(case)
        .to(case.backend(Place::Here))
        .ttl(63)
        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    let unmasked =
        sent(opening(case)).redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, delivered.build());
    let pass = |frame: Frame| {
        let step = sent(frame);
        step.passes(Reason::PassNotService)
            .then(|tables| assert!(tables.flows().is_empty()))
    };
    vec![
        Fixture::new(
            name("node"),
            "another node's address: docker masquerades it",
            World::new(),
        )
        .step(pass(case.first(case.gateway(), case.published(2)))),
        Fixture::new(name("port"), "a port that nobody publishes", World::new())
            .step(pass(case.first(case.gateway(), SocketAddr::new(case.node(1), 9)))),
        Fixture::new(name("off"), "without such a bridge nobody is masked", off).step(unmasked),
    ]
}

fn forged(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("gateway_forged_{what}_{}", case.name());
    let at_node = |frame: Frame| Step::new(Entry::TcNode, NODE_IF, frame.macs(mac(NODE_IF), ROUTER).build());
    let xdp = |frame: Frame| Step::new(Entry::XdpNode, NODE_IF, frame.macs(mac(NODE_IF), ROUTER).build());
    let from_mask = case.first(case.masked(), case.published(1));
    let inside = Step::new(Entry::FromWorkload, ROUTED_IF, from_mask.clone().build());
    let tuple = case.tuple(case.masked(), case.published(1), NETWORK_NODE);
    let network = |host: [u8; 2]| -> SocketAddr { (Ipv4Addr::new(198, 18, host[0], host[1]), 40_001).into() };
    // A container that writes the address of the subnet as its own is masked as the loopback address is.
    let zero: SocketAddr = (Ipv4Addr::new(172, 18, 0, 0), 40_001).into();
    let answer = case.frame(case.backend(Place::Here), network([0, 0]));
    let beyond = {
        let mut world = World::new();
        world.tables.settings.bridge_mask = u32::from_ne_bytes([255, 255, 255, 0]);
        let tuple = case.tuple(network([9, 5]), case.published(1), NETWORK_NODE);
        world.flow(case, tuple, Place::Here, None)
    };
    vec![
        Fixture::new(
            name("source"),
            "nobody outside may pass for a masked client, even of a flow that is there",
            World::new().flow(case, tuple, Place::Here, None),
        )
        .step(xdp(from_mask.clone()).drops(Reason::DropForgedSource))
        .step(at_node(from_mask.clone()).drops(Reason::DropForgedSource))
        .step(inside.drops(Reason::DropForgedSource)),
        Fixture::new(
            name("elsewhere"),
            "what is not for a published port is none of our business",
            World::new(),
        )
        .step(at_node(from_mask.to(SocketAddr::new(case.node(1), 9))).passes(Reason::PassNotService)),
        Fixture::new(
            name("localhost"),
            "nobody but the node itself is answered on its loopback address",
            World::new(),
        )
        .step(sent(case.first(zero, case.published(1))).sends(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF))
        .step(Step::new(Entry::FromWorkload, ROUTED_IF, answer.build()).drops(Reason::DropForgedSource)),
        Fixture::new(name("beyond"), "a mask behind which nobody can be", beyond).step(
            Step::new(
                Entry::FromWorkload,
                ROUTED_IF,
                case.frame(case.backend(Place::Here), network([9, 5])).build(),
            )
            .drops(Reason::DropNoRoute),
        ),
        Fixture::new(
            name("outside"),
            "one of our own addresses, written by somebody outside: no reply reaches our sockets",
            World::new(),
        )
        .step(
            at_node(case.first((case.node(1), 40_001).into(), case.published(1))).sends(
                Action::RedirectPeer,
                Reason::ForwardLocal,
                ROUTED_IF,
            ),
        )
        .step(
            Step::new(
                Entry::FromWorkload,
                ROUTED_IF,
                case.frame(case.backend(Place::Here), (case.node(1), 40_001).into())
                    .build(),
            )
            .drops(Reason::DropForgedSource),
        ),
        Fixture::new(
            name("interface"),
            "the loopback interface has no other programs",
            World::new(),
        )
        .step(Step::new(Entry::FromWorkload, LOOPBACK_IF, opening(case).build()).passes(Reason::PassInterface)),
    ]
}
