//! Packets that do not fit the tunnel.

use std::format;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, ethernet, icmp_error};
use super::published::room;
use super::world::{Case, NODE_IF, Place, ROUTER, TUNNEL_MTU, World, mac};
use crate::abi::NETWORK_NODE;
use crate::verdict::Reason;

pub(super) fn fixtures() -> Vec<Fixture> {
    Case::ALL.into_iter().flat_map(too_big).collect()
}

/// Bytes that the tunnel adds.
pub(super) const fn overhead(v6: bool) -> usize {
    TUNNEL_MTU as usize - room(v6) as usize
}

/// A packet of a client's flow, `length` bytes of IP, and the answer that `room` fit.
pub(super) fn packet(case: Case, room: usize, length: usize) -> (Vec<u8>, Vec<u8>) {
    let frame = sized(case, length);
    (frame.build(), answer(case, room, &frame.packet()))
}

fn sized(case: Case, length: usize) -> Frame {
    let header = if case.v6 { 40 } else { 20 } + if case.tcp() { 20 } else { 8 };
    case.frame(case.client(), case.published(1))
        .payload(&vec![0x5a; length - header])
        .macs(mac(NODE_IF), ROUTER)
}

fn answer(case: Case, room: usize, packet: &[u8]) -> Vec<u8> {
    let quote = if case.v6 { 40 } else { 20 } + if case.tcp() { 20 } else { 8 };
    let kind = if case.v6 { (2, 0) } else { (3, 4) };
    let (from, to) = (case.published(1).ip(), case.client().ip());
    let error = icmp_error(from, to, kind, room as u32, &packet[..quote]);
    ethernet(ROUTER, mac(NODE_IF), if case.v6 { 0x86dd } else { 0x0800 }, &error)
}

fn too_big(case: Case) -> Vec<Fixture> {
    let world = || World::new().serve(case, &[Place::Node2]);
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = move || world().flow(case, tuple, Place::Node2, None);
    let room = usize::from(room(case.v6));
    let header = if case.v6 { 40 } else { 20 } + if case.tcp() { 20 } else { 8 };
    let fits = room - header;
    let answer = |packet: &[u8]| answer(case, room, packet);
    let big = sized(case, room + 1);
    let segments = sized(case, header + 2 * fits);
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
