//! Processes of the node itself: they ask its own addresses, over the loopback interface.

use std::format;
use std::net::{Ipv4Addr, SocketAddr};
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, Mac, ethernet, icmp_error, tunnel};
use super::published::clamped;
use super::tables::MemoryTables;
use super::world::{
    Case, LOOPBACK_IF, NETWORK, NODE_IF, Place, ROUTED_IF, TUNNEL_MTU, TUNNEL_PORT, World, mac, node_mac, workload_mac,
};
use crate::abi::{FLOW_FLAG_HOST, NETWORK_NODE};
use crate::verdict::{Action, Reason};

/// Frames on the loopback interface have no addresses.
const NOBODY: (Mac, Mac) = ([0; 6], [0; 6]);

/// What a process speaks to, what it is itself, and what both are called everywhere else.
#[derive(Clone, Copy)]
struct Talk {
    what: &'static str,
    client: SocketAddr,
    frontend: SocketAddr,
    known_client: SocketAddr,
    known_frontend: SocketAddr,
}

fn talks(case: Case) -> Vec<Talk> {
    let own = (case.node(1), 40_001).into();
    let mut all = vec![Talk {
        what: "own",
        client: own,
        frontend: case.published(1),
        known_client: own,
        known_frontend: case.published(1),
    }];
    if !case.v6 {
        let port = case.published(1).port();
        all.push(Talk {
            what: "localhost",
            client: (Ipv4Addr::LOCALHOST, 40_001).into(),
            frontend: (Ipv4Addr::LOCALHOST, port).into(),
            known_client: (Ipv4Addr::new(198, 18, 0, 0), 40_001).into(),
            known_frontend: case.published(1),
        });
    }
    all
}

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        for talk in talks(case) {
            all.push(local(case, talk));
            all.push(remote(case, talk));
            all.push(refused(case, talk));
            all.push(oversized(case, talk));
        }
        all.extend(passed(case));
    }
    all
}

fn on_loopback(frame: Frame) -> Step {
    Step::new(Entry::FromHost, LOOPBACK_IF, frame.macs(NOBODY.0, NOBODY.1).build())
}

fn local(case: Case, talk: Talk) -> Fixture {
    let opening = case.first(talk.client, talk.frontend);
    let sent = opening
        .clone()
        .from(talk.known_client)
        .to(case.backend(Place::Here))
        .ttl(63)
        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    let tuple = case.tuple(talk.known_client, talk.known_frontend, NETWORK_NODE);
    let answer = case
        .frame(case.backend(Place::Here), talk.known_client)
        .macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let answered = answer
        .clone()
        .from(talk.frontend)
        .to(talk.client)
        .ttl(63)
        .macs(NOBODY.0, NOBODY.1);
    Fixture::new(
        format!("host_{}_local_{}", talk.what, case.name()),
        "a process of the node reaches a backend here, and hears whom it asked",
        World::new(),
    )
    .step(
        on_loopback(opening)
            .redirects(Action::Redirect, Reason::ForwardLocal, ROUTED_IF, sent.build())
            .then(move |tables| assert_eq!(tables.flows()[&tuple].flags, FLOW_FLAG_HOST)),
    )
    .step(Step::new(Entry::FromWorkload, ROUTED_IF, answer.build()).redirects(
        Action::DeliverHost,
        Reason::ReplyDirect,
        LOOPBACK_IF,
        answered.build(),
    ))
}

fn remote(case: Case, talk: Talk) -> Fixture {
    let opening = case.first(talk.client, talk.frontend);
    let mut inner = opening.clone().from(talk.known_client).to(talk.known_frontend).ttl(63);
    if case.tcp() {
        inner = inner.tcp_options(&clamped(case.v6));
    }
    let kind = if case.v6 { 0x86dd } else { 0x0800 };
    let tuple = case.tuple(talk.known_client, talk.known_frontend, NETWORK_NODE);
    let port = 0xc000 | (tuple.hash() & 0x3fff) as u16;
    let outer = ((case.node(1), port).into(), (case.node(2), TUNNEL_PORT).into());
    let packet = tunnel(outer, 1, NETWORK, case.backend(Place::Node2), &inner.packet());
    let sent = ethernet(node_mac(2), mac(NODE_IF), kind, &packet);

    let inner = case.frame(talk.known_frontend, talk.known_client);
    let outer = ((case.node(2), 50_000).into(), (case.node(1), TUNNEL_PORT).into());
    let packet = tunnel(outer, 2, NETWORK, case.backend(Place::Node2), &inner.packet());
    let back = ethernet(mac(NODE_IF), node_mac(2), kind, &packet);
    let answered = case.frame(talk.frontend, talk.client).ttl(63).macs(NOBODY.0, NOBODY.1);
    Fixture::new(
        format!("host_{}_remote_{}", talk.what, case.name()),
        "a process of the node reaches a backend elsewhere by addresses that mean something there; XDP leaves the reply to tc",
        World::new().serve(case, &[Place::Node2]),
    )
    .step(on_loopback(opening).redirects(Action::Redirect, Reason::ForwardTunnel, NODE_IF, sent))
    .step(Step::new(Entry::XdpNode, NODE_IF, back.clone()).passes(Reason::PassToTc))
    .step(Step::new(Entry::TcNode, NODE_IF, back).redirects(
        Action::DeliverHost,
        Reason::ReplyFromTunnel,
        LOOPBACK_IF,
        answered.build(),
    ))
}

/// The refusal itself is that of clients outside.
fn refused(case: Case, talk: Talk) -> Fixture {
    let reason = if case.tcp() {
        Reason::ResetNoBackend
    } else {
        Reason::UnreachableNoBackend
    };
    Fixture::new(
        format!("host_{}_refused_{}", talk.what, case.name()),
        "who is refused hears it from whom he asked",
        World::new().serve(case, &[]),
    )
    .step(answers(case, talk, case.first(talk.client, talk.frontend), reason))
}

/// An answer to the process, whose bytes are those that a client outside would get.
fn answers(case: Case, talk: Talk, frame: Frame, reason: Reason) -> Step {
    let quote = frame.clone().packet();
    let out = if case.tcp() && reason == Reason::ResetNoBackend {
        // Sequence 0, and the acknowledgement of a SYN.
        case.frame(talk.frontend, talk.client)
            .flags(0x14)
            .window(0)
            .numbers(0, 0x0102_0305)
            .payload(b"")
            .ttl(64)
            .macs(NOBODY.0, NOBODY.1)
            .build()
    } else {
        let size = if case.v6 { 40 } else { 20 } + if case.tcp() { 20 } else { 8 };
        let (error, rest) = match (case.v6, reason) {
            (true, Reason::AnswerTooBig) => ((2, 0), TUNNEL_MTU),
            (true, _) => ((1, 4), 0),
            (false, Reason::AnswerTooBig) => ((3, 4), TUNNEL_MTU),
            (false, _) => ((3, 3), 0),
        };
        let kind = if case.v6 { 0x86dd } else { 0x0800 };
        let packet = icmp_error(talk.frontend.ip(), talk.client.ip(), error, rest.into(), &quote[..size]);
        ethernet(NOBODY.0, NOBODY.1, kind, &packet)
    };
    on_loopback(frame).redirects(Action::DeliverHost, reason, LOOPBACK_IF, out)
}

fn oversized(case: Case, talk: Talk) -> Fixture {
    let frame = case.first(talk.client, talk.frontend).payload(&[7; 2000]);
    Fixture::new(
        format!("host_{}_oversized_{}", talk.what, case.name()),
        "what only the loopback interface can carry is answered before a flow is opened, unless it is several segments",
        World::new(),
    )
    .step(answers(case, talk, frame.clone(), Reason::AnswerTooBig).then(|tables| assert!(tables.flows().is_empty())))
    .step(
        on_loopback(frame)
            .segmented(1400)
            .sends(Action::Redirect, Reason::ForwardLocal, ROUTED_IF),
    )
}

fn passed(case: Case) -> Vec<Fixture> {
    let own: SocketAddr = (case.node(1), 40_001).into();
    let port = |n| SocketAddr::new(case.node(1), n);
    let localhost = |port: u16| -> SocketAddr { (Ipv4Addr::LOCALHOST, port).into() };
    let nothing = |tables: &MemoryTables| assert!(tables.flows().is_empty() && tables.counters().is_empty());
    let mut frames = vec![
        (
            "port",
            "a port that nobody publishes is the host's own affair",
            case.first(own, port(9)),
        ),
        (
            "answer",
            "so is what a server of the host answers",
            case.first(port(8080), own),
        ),
        (
            "address",
            "an address that the cluster does not know as this node's",
            case.first(
                (case.host(1), 40_001).into(),
                SocketAddr::new(case.host(1), case.published(1).port()),
            ),
        ),
    ];
    if !case.v6 {
        frames.extend([
            (
                "localhost_port",
                "a port that nobody publishes, on the loopback address",
                case.first(localhost(40_001), localhost(9)),
            ),
            (
                "localhost_mixed",
                "from a loopback address to another one: its answer could not be told from others",
                case.first(localhost(40_001), case.published(1)),
            ),
        ]);
    }
    let all = frames.into_iter().map(|(what, why, frame)| {
        Fixture::new(format!("host_passed_{what}_{}", case.name()), why, World::new())
            .step(on_loopback(frame).then(nothing))
    });
    all.collect()
}
