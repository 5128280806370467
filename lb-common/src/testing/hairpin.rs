//! A backend that is a client of its own service, and is chosen itself.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::world::{CLIENT_IF, Case, NETWORK, NETWORK as HERE, Place, World, mac, reply_of, workload_mac};
use crate::abi::{FLOW_ESTABLISHED, FLOW_FLAG_HAIRPIN};
use crate::verdict::Reason;

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(hairpins).collect()
}

fn hairpins(case: Case) -> Vec<Fixture> {
    let macs = (mac(CLIENT_IF), workload_mac(CLIENT_IF));
    let world = World::new().serve(case, &[Place::Client]);
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let backend = case.backend(Place::Client);
    // The backend sees the VIP: its own address would never leave it again.
    let seen = (case.vip().ip(), case.inside().port()).into();
    let there = case.vip_opening().from(seen).to(backend).turned();
    let answer = case.frame(backend, seen).macs(macs.0, macs.1);
    let back = answer.clone().from(case.vip()).to(case.inside()).turned();

    let published = case.first(case.inside(), case.published(1)).macs(macs.0, macs.1);
    let node = (case.published(1).ip(), case.inside().port()).into();
    let published_there = published.clone().from(node).to(backend).ttl(63).turned();
    let published_answer = case.frame(backend, node).macs(macs.0, macs.1);
    let published_back = published_answer
        .clone()
        .from(case.published(1))
        .to(case.inside())
        .turned();
    let from = |frame: Vec<u8>| Step::new(Entry::FromWorkload, CLIENT_IF, frame);
    vec![
        Fixture::new(
            format!("hairpin_vip_{}", case.name()),
            "the packet turns back to its sender with the VIP as its source, and so does the answer",
            world.clone(),
        )
        .step(
            from(case.vip_opening().build())
                .transmits(Reason::Hairpin, there.build())
                .then(move |tables| {
                    assert_eq!(tables.flows()[&tuple].flags, FLOW_FLAG_HAIRPIN);
                    let back = case.tuple(backend, seen, HERE);
                    assert_eq!(tables.replies()[&back], reply_of(&tuple, true));
                }),
        )
        .step(
            from(answer.build())
                .transmits(Reason::Hairpin, back.build())
                .then(move |tables| assert_eq!(tables.flows()[&tuple].state, FLOW_ESTABLISHED)),
        ),
        Fixture::new(
            format!("hairpin_published_{}", case.name()),
            "through the published port of its own node, too",
            world,
        )
        .step(from(published.build()).transmits(Reason::Hairpin, published_there.build()))
        .step(from(published_answer.build()).transmits(Reason::Hairpin, published_back.build())),
    ]
}
