//! Errors that come through the tunnel, or go through it.

use std::format;
use std::vec;
use std::vec::Vec;

use super::{Error, FORWARD, REPLY, kinds, router, untouched};
use crate::abi::NETWORK_NODE;
use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::world::{Case, NODE_IF, Place, ROUTED_IF, ROUTER, World, mac, workload_mac};
use crate::verdict::{Action, Reason};

pub(super) fn through_the_tunnel(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_tunnel_{what}_{}", case.name());
    let own = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let foreign = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let entry = || World::new().flow(case, own, Place::Node2, None);
    let behind = || World::new().flow(case, foreign, Place::Here, Some(1));
    let here = case.backend(Place::Here);

    // About replies: from the entry node to the backend's.
    let told = Error::new(case, router(case), case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
    let inner = Error::new(case, router(case), case.published(2), case.client()).ttl(63);
    let finished = inner.clone().about(here, case.client()).ttl(62);
    let finished = finished.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    // About requests: from the backend's node to the entry node.
    let refused = Error::new(case, here.ip(), case.client(), here).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let back = refused
        .clone()
        .source(case.published(2).ip())
        .about(case.client(), case.published(2))
        .ttl(63);
    let came = Error::new(case, case.published(1).ip(), case.client(), case.published(1)).ttl(63);
    let left = came.clone().ttl(62).macs(ROUTER, mac(NODE_IF));

    let forward = |frame: Vec<u8>| Step::new(Entry::TcNode, NODE_IF, frame);
    vec![
        Fixture::new(
            name("to_backend"),
            "an error about a reply goes on to the backend's node as it came",
            entry(),
        )
        .step(untouched(
            forward(told.build()).transmits(
                Reason::ErrorToBackend,
                told.clone().ttl(63).tunnelled(true, 2, FORWARD, Place::Node2),
            ),
            &entry(),
            own,
        )),
        Fixture::new(name("delivered"), "which finishes it", behind())
            .step(
                Step::new(Entry::XdpNode, NODE_IF, inner.tunnelled(false, 2, FORWARD, Place::Here))
                    .passes(Reason::PassToTc),
            )
            .step(untouched(
                forward(inner.tunnelled(false, 2, FORWARD, Place::Here)).redirects(
                    Action::RedirectPeer,
                    Reason::ErrorToBackend,
                    ROUTED_IF,
                    finished.build(),
                ),
                &behind(),
                foreign,
            )),
        Fixture::new(
            name("to_client"),
            "an error about a client's packet goes back to the entry node, translated",
            behind(),
        )
        .step(untouched(
            Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()).redirects(
                Action::Redirect,
                Reason::ErrorToClient,
                NODE_IF,
                back.tunnelled(true, 2, REPLY, Place::Here),
            ),
            &behind(),
            foreign,
        )),
        Fixture::new(name("sent"), "which sends it on; XDP leaves it to tc", entry())
            .step(
                Step::new(Entry::XdpNode, NODE_IF, came.tunnelled(false, 2, REPLY, Place::Node2))
                    .passes(Reason::PassIcmpError),
            )
            .step(untouched(
                forward(came.tunnelled(false, 2, REPLY, Place::Node2)).transmits(Reason::ErrorToClient, left.build()),
                &entry(),
                own,
            )),
        Fixture::new(
            name("foreign"),
            "who is not the flow's other node says nothing about it, and nobody about a flow that is not",
            behind(),
        )
        .step(forward(inner.tunnelled(false, 3, FORWARD, Place::Here)).drops(Reason::DropTunnelFrontend))
        .step(forward(inner.tunnelled(false, 2, FORWARD, Place::Switched)).drops(Reason::DropTunnelFrontend))
        .step(forward(came.tunnelled(false, 2, REPLY, Place::Node2)).drops(Reason::DropTunnelFrontend))
        .step(
            forward(inner.clone().quoted(Some(7)).tunnelled(false, 2, FORWARD, Place::Here))
                .drops(Reason::DropTunnelMalformed),
        ),
    ]
}

/// Routers quote more than the tunnel has room for.
pub(super) fn too_long(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_tunnel_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = |mtu| {
        let mut world = World::new().flow(case, tuple, Place::Node2, None);
        world.tables.settings.tunnel_mtu = mtu;
        world
    };
    let (_, kind, rest) = kinds(case)[2];
    // The length of the quote, of which what follows it takes no part, is told in the header (RFC 4884).
    let length = if case.v6 { 0x0800_0000 } else { 0x0010_0000 };
    let whole = |rest| {
        let mut error = Error::new(case, router(case), case.published(1), case.client()).macs(mac(NODE_IF), ROUTER);
        error.about = error.about.payload(&[0x5a; 1180]);
        error.kind(kind, rest)
    };
    let kept = if case.tcp() { 20 } else { 8 };
    let cut = whole(rest).quoted(Some(kept)).ttl(63);
    vec![
        Fixture::new(
            name("cut"),
            "what does not fit is cut to what every sender needs",
            world(1280),
        )
        .step(
            Step::new(Entry::TcNode, NODE_IF, whole(rest | length).build())
                .transmits(Reason::ErrorToBackend, cut.tunnelled(true, 2, FORWARD, Place::Node2)),
        ),
        Fixture::new(name("no_room"), "and what then does not fit is no path", world(100))
            .step(Step::new(Entry::TcNode, NODE_IF, whole(rest).build()).drops(Reason::DropTooBig)),
    ]
}
