//! Errors inside a network: about what a VIP has said, or was told.

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::{Error, kinds, untouched};
use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::world::{CLIENT_IF, Case, NETWORK, Place, ROUTED_IF, World, mac, workload_mac};
use crate::verdict::Reason;

pub(super) fn vips(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("error_vip_{what}_{}", case.name());
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let world = |place| World::new().flow(case, tuple, place, None);
    let here = case.backend(Place::Here);
    let refused = |source| Error::new(case, source, case.inside(), here);
    let told = Error::new(case, case.inside().ip(), case.vip(), case.inside());
    let told = told.macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let there = case.backend(Place::Node2);
    vec![
        Fixture::new(
            name("to_client"),
            "a backend's error comes from the VIP, where the client receives it",
            world(Place::Here),
        )
        .step(Step::new(Entry::FromWorkload, ROUTED_IF, refused(here.ip()).build()).passes(Reason::PassNetwork))
        .step(untouched(
            Step::new(Entry::ToWorkload, CLIENT_IF, refused(here.ip()).build()).continues(
                Reason::ErrorToClient,
                refused(case.vip().ip()).about(case.inside(), case.vip()).build(),
            ),
            &world(Place::Here),
            tuple,
        )),
        Fixture::new(
            name("router"),
            "who carries the network speaks for himself",
            world(Place::Here),
        )
        .step({
            let (_, kind, rest) = kinds(case)[1];
            let error = refused(case.host(1)).kind(kind, rest).quoted(Some(8));
            Step::new(Entry::ToWorkload, CLIENT_IF, error.build()).continues(
                Reason::ErrorToClient,
                error.clone().about(case.inside(), case.vip()).build(),
            )
        }),
        Fixture::new(
            name("to_backend"),
            "a client's error about a reply goes to the backend's MAC, and quotes what the backend has sent",
            world(Place::Here),
        )
        .step(untouched(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build()).continues(
                Reason::ErrorToBackend,
                told.clone()
                    .about(here, case.inside())
                    .macs(workload_mac(ROUTED_IF), workload_mac(CLIENT_IF))
                    .build(),
            ),
            &world(Place::Here),
            tuple,
        )),
        Fixture::new(
            name("to_remote"),
            "to one on another node too, by the network itself",
            world(Place::Node2),
        )
        .step(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build())
                .continues(Reason::ErrorToBackend, told.clone().about(there, case.inside()).build()),
        ),
        Fixture::new(
            name("unknown"),
            "about other packets of the network nobody has anything to say",
            World::new(),
        )
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, told.build()).passes(Reason::PassIcmpError))
        .step(Step::new(Entry::ToWorkload, CLIENT_IF, refused(here.ip()).build()).passes(Reason::PassIcmpError)),
    ]
}

pub(super) fn hairpins(case: Case) -> Vec<Fixture> {
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let world = || World::new().flow(case, tuple, Place::Client, None);
    let backend = case.backend(Place::Client);
    let as_vip: SocketAddr = (case.vip().ip(), case.inside().port()).into();
    let macs = (mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let own = case.inside().ip();
    let refused = Error::new(case, own, as_vip, backend).macs(macs.0, macs.1);
    let told = Error::new(case, own, case.vip(), case.inside()).macs(macs.0, macs.1);
    let turned = |error: &Error| error.clone().source(case.vip().ip()).macs(macs.1, macs.0);
    vec![
        Fixture::new(
            format!("error_hairpin_{}", case.name()),
            "a backend that was chosen itself hears its own errors, from either side",
            world(),
        )
        .step(Step::new(Entry::FromWorkload, CLIENT_IF, refused.build()).transmits(
            Reason::ErrorToClient,
            turned(&refused).about(case.inside(), case.vip()).build(),
        ))
        .step(untouched(
            Step::new(Entry::FromWorkload, CLIENT_IF, told.build())
                .transmits(Reason::ErrorToBackend, turned(&told).about(backend, as_vip).build()),
            &world(),
            tuple,
        )),
    ]
}
