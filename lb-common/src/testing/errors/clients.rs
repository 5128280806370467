//! Errors for workloads, the node's own processes and masked clients that speak to published ports.

use std::format;
use std::net::{Ipv4Addr, SocketAddr};
use std::vec;
use std::vec::Vec;

use super::{Error, FORWARD, REPLY};
use crate::abi::{FLOW_FLAG_HOST, NETWORK_NODE};
use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::world::{
    CLIENT_IF, Case, GATEWAY_IF, LOOPBACK_IF, NODE_IF, Place, ROUTED_IF, World, mac, workload_mac,
};
use crate::verdict::{Action, Reason};

/// Workloads and the node's own processes as clients of published ports.
pub(super) fn own_clients(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_{what}_{}", case.name());
    let here = case.backend(Place::Here);
    let inside = case.tuple(case.inside(), case.published(1), NETWORK_NODE);
    let told = Error::new(case, case.inside().ip(), case.published(1), case.inside());
    let told = told.macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let mut all = vec![
        Fixture::new(
            name("workload"),
            "a workload's error about the reply of a published port reaches the backend",
            World::new().flow(case, inside, Place::Here, None),
        )
        .step(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build()).redirects(
                Action::RedirectPeer,
                Reason::ErrorToBackend,
                ROUTED_IF,
                told.clone()
                    .about(here, case.inside())
                    .ttl(63)
                    .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
                    .build(),
            ),
        ),
    ];
    let own: SocketAddr = (case.node(1), 40_001).into();
    let mut talks = vec![("host", own, case.published(1), own)];
    if !case.v6 {
        let localhost = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mask = (Ipv4Addr::new(198, 18, 0, 0), 40_001).into();
        talks.push((
            "localhost",
            localhost(40_001),
            localhost(case.published(1).port()),
            mask,
        ));
    }
    for (what, client, frontend, known) in talks {
        let tuple = case.tuple(known, case.published(1), NETWORK_NODE);
        let world = |place| {
            World::new()
                .flow(case, tuple, place, None)
                .change(tuple, |flow| flow.flags = FLOW_FLAG_HOST)
        };
        let told = Error::new(case, client.ip(), frontend, client);
        let refused = Error::new(case, here.ip(), known, here).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
        let masked = told.clone().source(known.ip());
        all.push(
            Fixture::new(
                name(what),
                "a process of the node and a backend hear each other's errors",
                world(Place::Here),
            )
            .step(
                Step::new(Entry::FromHost, LOOPBACK_IF, told.build()).redirects(
                    Action::Redirect,
                    Reason::ErrorToBackend,
                    ROUTED_IF,
                    masked
                        .clone()
                        .about(here, known)
                        .ttl(63)
                        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
                        .build(),
                ),
            )
            .step(
                Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()).redirects(
                    Action::DeliverHost,
                    Reason::ErrorToClient,
                    LOOPBACK_IF,
                    refused
                        .clone()
                        .source(frontend.ip())
                        .about(client, frontend)
                        .ttl(63)
                        .macs([0; 6], [0; 6])
                        .build(),
                ),
            ),
        );
        let told_on = masked.about(case.published(1), known).ttl(63);
        let came = Error::new(case, case.published(1).ip(), known, case.published(1)).ttl(63);
        all.push(
            Fixture::new(
                name(&format!("{what}_remote")),
                "with one on another node too",
                world(Place::Node2),
            )
            .step(Step::new(Entry::FromHost, LOOPBACK_IF, told.build()).redirects(
                Action::Redirect,
                Reason::ErrorToBackend,
                NODE_IF,
                told_on.tunnelled(true, 2, FORWARD, Place::Node2),
            ))
            .step(
                Step::new(Entry::TcNode, NODE_IF, came.tunnelled(false, 2, REPLY, Place::Node2)).redirects(
                    Action::DeliverHost,
                    Reason::ErrorToClient,
                    LOOPBACK_IF,
                    came.source(frontend.ip()).about(client, frontend).ttl(62).build(),
                ),
            ),
        );
        if what == "host" {
            let pass = Step::new(Entry::FromHost, LOOPBACK_IF, told.build()).passes(Reason::PassIcmpError);
            all.push(
                Fixture::new(
                    name("host_other"),
                    "the node says nothing about flows that are not its own",
                    World::new().flow(case, tuple, Place::Here, None),
                )
                .step(pass),
            );
        }
    }
    all
}

/// Clients behind the gateway bridge.
pub(super) fn masked(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_gateway_{what}_{}", case.name());
    let tuple = case.tuple(case.masked(), case.published(1), NETWORK_NODE);
    let world = |place| World::new().flow(case, tuple, place, None);
    let here = case.backend(Place::Here);
    let told = Error::new(case, case.gateway().ip(), case.published(1), case.gateway());
    let told = told.macs(mac(GATEWAY_IF), workload_mac(GATEWAY_IF));
    let masked = told
        .clone()
        .source(case.masked().ip())
        .about(case.published(1), case.masked());
    let refused = Error::new(case, here.ip(), case.masked(), here).macs(mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let came = Error::new(case, case.published(1).ip(), case.masked(), case.published(1)).ttl(63);
    let bare = |error: &Error| {
        let error = error.clone().source(case.published(1).ip());
        let error = error.about(case.gateway(), case.published(1));
        error.macs(workload_mac(GATEWAY_IF), mac(GATEWAY_IF))
    };
    let to_gateway =
        |step: Step, out: Error| step.redirects(Action::Redirect, Reason::ErrorToClient, GATEWAY_IF, out.build());
    vec![
        Fixture::new(
            name("here"),
            "a masked client and a backend hear each other's errors",
            world(Place::Here),
        )
        .step(
            Step::new(Entry::FromWorkload, GATEWAY_IF, told.build()).redirects(
                Action::RedirectPeer,
                Reason::ErrorToBackend,
                ROUTED_IF,
                masked
                    .clone()
                    .about(here, case.masked())
                    .ttl(63)
                    .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
                    .build(),
            ),
        )
        .step(to_gateway(
            Step::new(Entry::FromWorkload, ROUTED_IF, refused.build()),
            bare(&refused).ttl(63),
        )),
        Fixture::new(name("remote"), "with one on another node too", world(Place::Node2))
            .step(Step::new(Entry::FromWorkload, GATEWAY_IF, told.build()).redirects(
                Action::Redirect,
                Reason::ErrorToBackend,
                NODE_IF,
                masked.clone().ttl(63).tunnelled(true, 2, FORWARD, Place::Node2),
            ))
            .step(to_gateway(
                Step::new(Entry::TcNode, NODE_IF, came.tunnelled(false, 2, REPLY, Place::Node2)),
                bare(&came).ttl(62),
            )),
        Fixture::new(
            name("forged"),
            "nobody else speaks about their flows",
            world(Place::Here),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, masked.build()).passes(Reason::PassIcmpError))
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, masked.build()).passes(Reason::PassIcmpError)),
    ]
}
