//! Routers between nodes, and what they say about the tunnel.

use std::format;
use std::net::{IpAddr, SocketAddr};
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{ethernet, icmp_error};
use super::too_big;
use super::world::{Case, NODE_IF, Place, ROUTER, TUNNEL_PORT, World, mac};
use crate::abi::{NETWORK_NODE, PathMtu};
use crate::pipeline::path_mtu::EXPIRES;
use crate::verdict::Reason;

/// What the router's next link takes.
const NARROW: u16 = 1400;

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(of).collect()
}

/// An error of `says` about a UDP packet between these two, eight bytes of it quoted.
fn error(case: Case, from: SocketAddr, to: SocketAddr, kind: (u8, u8), says: u32) -> Vec<u8> {
    let header = if case.v6 { 40 } else { 20 };
    let about = Case { protocol: 17, ..case }.frame(from, to).payload(&[0; 64]).packet();
    let packet = icmp_error(case.node(200), from.ip(), kind, says, &about[..header + 8]);
    ethernet(mac(NODE_IF), ROUTER, if case.v6 { 0x86dd } else { 0x0800 }, &packet)
}

fn of(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || {
        World::new()
            .serve(case, &[Place::Node2])
            .flow(case, tuple, Place::Node2, None)
    };
    let (own, other): (IpAddr, IpAddr) = (case.node(1), case.node(2));
    let tunnel = SocketAddr::new(other, TUNNEL_PORT);
    let kind = if case.v6 { (2, 0) } else { (3, 4) };
    let said = |frame: Vec<u8>| Step::new(Entry::TcNode, NODE_IF, frame);
    let learns = |mtu: u32, says: u32| {
        said(error(case, (own, 50_000).into(), tunnel, kind, says))
            .passes(Reason::PassPathMtu)
            .then(move |tables| {
                let paths = tables.path_mtus.borrow();
                assert_eq!(
                    paths.iter().map(|(node, path)| (*node, path.mtu)).collect::<Vec<_>>(),
                    [(1, mtu)]
                );
            })
    };
    let nothing = |step: Step, reason: Reason| {
        step.passes(reason)
            .then(|tables| assert!(tables.path_mtus.borrow().is_empty()))
    };
    let refused = |code: u8| {
        let kind = (if case.v6 { 1 } else { 3 }, code);
        let step = said(error(case, (own, 50_000).into(), tunnel, kind, 0));
        nothing(step, Reason::PassTunnelError)
    };
    let room = usize::from(NARROW) - too_big::overhead(case.v6);
    let (big, answer) = too_big::packet(case, room, room + 1);
    let (fits, _) = too_big::packet(case, room, room);
    let name = |what: &str| format!("path_mtu_{what}_{}", case.name());
    let known = |since: u32| {
        let world = world();
        let path = PathMtu {
            mtu: NARROW.into(),
            since,
        };
        world.tables.path_mtus.borrow_mut().insert(1, path);
        world
    };
    let through = |entry, frame: &Vec<u8>| {
        Step::new(entry, NODE_IF, frame.clone()).then(|tables| {
            let tunnelled = tables.counters().get(&Reason::ForwardTunnel.code()).map(|c| c.packets);
            assert_eq!(tunnelled, Some(1));
        })
    };
    let now = super::world::NOW;
    let least = if case.v6 { 1280 } else { 552 };
    let mut all = vec![
        Fixture::new(
            name("learned"),
            "who sends more than a router between the nodes takes is answered with what fits there",
            world(),
        )
        .step(learns(NARROW.into(), NARROW.into()))
        .step(Step::new(Entry::XdpNode, NODE_IF, big.clone()).transmits(Reason::AnswerTooBig, answer.clone()))
        .step(Step::new(Entry::TcNode, NODE_IF, big.clone()).transmits(Reason::AnswerTooBig, answer.clone())),
        Fixture::new(
            name("least"),
            "nobody is believed that a path takes next to nothing",
            world(),
        )
        .step(learns(least, 68)),
        Fixture::new(
            name("refused"),
            "that the other node cannot be reached, or does not want the tunnel, is counted, changes nothing and goes to nobody",
            world(),
        )
        .step(refused(1))
        .step(refused(if case.v6 { 4 } else { 3 })),
        Fixture::new(
            name("wider"),
            "an error that promises more than the tunnel takes anyway is none of ours",
            world(),
        )
        .step(nothing(
            said(error(case, (own, 50_000).into(), tunnel, kind, 9000)),
            Reason::PassIcmpError,
        )),
        Fixture::new(
            name("stranger"),
            "an error about a packet to who is no node teaches nothing",
            world(),
        )
        .step(nothing(
            said(error(
                case,
                (own, 50_000).into(),
                (case.node(99), TUNNEL_PORT).into(),
                kind,
                NARROW.into(),
            )),
            Reason::PassIcmpError,
        )),
        Fixture::new(
            name("port"),
            "an error about another port of a node teaches nothing",
            world(),
        )
        .step(nothing(
            said(error(
                case,
                (own, 50_000).into(),
                (other, TUNNEL_PORT + 1).into(),
                kind,
                NARROW.into(),
            )),
            Reason::PassIcmpError,
        )),
    ];
    for (what, since, why) in [
        (
            "remembered",
            now - EXPIRES + 100,
            "what was learned holds for ten minutes",
        ),
        (
            "expired",
            now - EXPIRES,
            "after ten minutes the full width is tried again",
        ),
    ] {
        let fixture = Fixture::new(name(what), why, known(since));
        all.push(if what == "expired" {
            fixture.step(through(Entry::TcNode, &big).sends(crate::verdict::Action::Transmit, Reason::ForwardTunnel, 0))
        } else {
            fixture
                .step(through(Entry::TcNode, &fits).sends(crate::verdict::Action::Transmit, Reason::ForwardTunnel, 0))
                .step(Step::new(Entry::XdpNode, NODE_IF, big.clone()).transmits(Reason::AnswerTooBig, answer.clone()))
        });
    }
    all
}
