//! What is no error about a live flow, or not for who sends it.

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::{Error, router};
use crate::abi::NETWORK_NODE;
use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::world::{Case, NODE_IF, Place, ROUTED_IF, ROUTER, World, mac};
use crate::verdict::Reason;

/// Nothing is said about what is no live flow's, and nothing but an error in order says something.
pub(super) fn passed(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let error = || Error::new(case, router(case), case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
    let header = if case.v6 { 40 } else { 20 };
    let quote = 14 + header + 8;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = error().build();
        change(&mut frame);
        frame
    };
    let mut all = vec![
        ("no_flow", World::new(), error().build(), Reason::PassIcmpError),
        (
            "expired",
            world().change(tuple, |flow| flow.timeout = 100),
            error().build(),
            Reason::PassIcmpError,
        ),
        (
            "reused",
            world().change(tuple, |flow| flow.generation -= 1),
            error().build(),
            Reason::PassIcmpError,
        ),
        ("short", world(), error().quoted(Some(7)).build(), Reason::PassIcmpError),
        (
            "elsewhere",
            world(),
            // To another address than that of the quoted packet's sender.
            changed(&|frame| frame[14 + header - 1] ^= 1),
            Reason::PassIcmpError,
        ),
        (
            "of_error",
            world(),
            changed(&|frame| frame[quote + if case.v6 { 6 } else { 9 }] = if case.v6 { 58 } else { 1 }),
            Reason::PassIcmpError,
        ),
        (
            "version",
            world(),
            changed(&|frame| frame[quote] ^= 0x10),
            Reason::PassIcmpError,
        ),
        (
            // A redirect; in ICMPv6 as well.
            "redirect",
            world(),
            error().kind(if case.v6 { (137, 0) } else { (5, 1) }, 0).build(),
            Reason::PassProtocol,
        ),
    ];
    if !case.v6 {
        all.push((
            "later_fragment",
            world(),
            changed(&|frame| frame[quote + 7] = 1),
            Reason::PassIcmpError,
        ));
    }
    let fixture = |(what, world, frame, reason)| {
        Fixture::new(
            format!("error_{what}_{}", case.name()),
            "only an error in order about a live flow is touched",
            world,
        )
        .step(Step::new(Entry::TcNode, NODE_IF, frame).passes(reason))
    };
    all.into_iter().map(fixture).collect()
}

pub(super) fn dropped(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let told = Error::new(case, router(case), case.published(1), case.client());
    let here = case.backend(Place::Here);
    let refused = Error::new(case, here.ip(), case.client(), here);
    let own: SocketAddr = (case.node(1), 40_001).into();
    let forged = case.tuple(own, case.published(1), NETWORK_NODE);
    vec![
        Fixture::new(name("ttl"), "no hop left", world())
            .step(Step::new(Entry::TcNode, NODE_IF, told.ttl(1).build()).drops(Reason::DropTtl)),
        Fixture::new(
            name("no_route"),
            "no way to the client",
            world().unroutable(case.client().ip()),
        )
        .step(Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()).drops(Reason::DropNoRoute)),
        Fixture::new(
            name("forged_host"),
            "no way into this node's own sockets for who writes its address as his own",
            World::new().flow(case, forged, Place::Here, None),
        )
        .step(
            Step::new(
                Entry::FromWorkload,
                ROUTED_IF,
                Error::new(case, here.ip(), own, here).build(),
            )
            .drops(Reason::DropForgedSource),
        ),
    ]
}
