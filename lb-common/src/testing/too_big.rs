//! Packets that do not fit the tunnel.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{ethernet, icmp_error};
use super::published::room;
use super::world::{Case, NODE_IF, Place, ROUTER, World, mac};
use crate::abi::NETWORK_NODE;
use crate::verdict::Reason;

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(too_big).collect()
}

fn too_big(case: Case) -> Vec<Fixture> {
    let world = || World::new().serve(case, &[Place::Node2]);
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = move || world().flow(case, tuple, Place::Node2, None);
    let header = if case.v6 { 40 } else { 20 } + if case.tcp() { 20 } else { 8 };
    let fits = usize::from(room(case.v6)) - header;
    let frame = |payload: usize| {
        let frame = case
            .frame(case.client(), case.published(1))
            .payload(&vec![0x5a; payload]);
        frame.macs(mac(NODE_IF), ROUTER)
    };
    let answer = |packet: &[u8]| {
        let quote = match (case.v6, case.tcp()) {
            (false, true) => 40,
            (false, false) => 28,
            (true, true) => 60,
            (true, false) => 48,
        };
        let kind = if case.v6 { (2, 0) } else { (3, 4) };
        let error = icmp_error(
            case.published(1).ip(),
            case.client().ip(),
            kind,
            room(case.v6).into(),
            &packet[..quote],
        );
        ethernet(ROUTER, mac(NODE_IF), if case.v6 { 0x86dd } else { 0x0800 }, &error)
    };
    let big = frame(fits + 1);
    let segments = frame(2 * fits);
    let mut all = Vec::new();
    for (entry, hook) in [(Entry::XdpNode, "xdp"), (Entry::TcNode, "tc")] {
        all.push(
            Fixture::new(
                format!("published_too_big_{hook}_{}", case.name()),
                "one byte more than the tunnel takes is answered with the size that fits, from the frontend",
                world(),
            )
            .step(Step::new(entry, NODE_IF, big.build()).transmits(Reason::AnswerTooBig, answer(&big.packet()))),
        );
    }
    if case.tcp() {
        all.push(
            Fixture::new(
                format!("published_segments_too_big_{}", case.name()),
                "of a buffer with several segments it is the segment that must fit",
                world(),
            )
            .step(
                Step::new(Entry::TcNode, NODE_IF, segments.build())
                    .segmented(fits + 1)
                    .transmits(Reason::AnswerTooBig, answer(&segments.packet())),
            ),
        );
    }
    all
}
