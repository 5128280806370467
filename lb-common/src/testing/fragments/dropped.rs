//! Fragments that go nowhere.

use std::format;
use std::vec;
use std::vec::Vec;

use super::{ID, cut, kind, long};
use crate::abi::NETWORK_NODE;
use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::frame::{ethernet, fragments, icmp_error};
use crate::testing::published::room;
use crate::testing::world::{
    CLIENT_IF, Case, NETWORK, NODE_IF, NOW, Place, ROUTED_IF, ROUTER, World, mac, workload_mac,
};
use crate::verdict::{Action, Reason};

/// Fragments whose first one says nothing for them any more.
pub(super) fn lost(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("fragments_{what}_{}", case.name());
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let frame = long(case, case.inside(), case.vip());
    let sent = cut(case, &frame, (mac(CLIENT_IF), workload_mac(CLIENT_IF)));
    let first = |seen| {
        let world = World::new().flow(case, tuple, Place::Here, None);
        let key = crate::abi::FragmentKey {
            source: tuple.source,
            destination: tuple.destination,
            id: ID.into(),
            network_protocol: tuple.network_protocol(),
        };
        let fragment = crate::abi::Fragment {
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            seen,
        };
        world.tables.fragments.borrow_mut().insert(key, fragment);
        world
    };
    let later = || Step::new(Entry::FromWorkload, CLIENT_IF, sent[1].clone());
    let own = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let fits = usize::from(room(case.v6));
    let wide = case
        .frame(case.client(), case.published(1))
        .payload(&vec![0x5a; 2 * fits]);
    let wide = fragments(&wide.packet(), ID, &[fits / 8 * 8]);
    let wide = wide
        .iter()
        .map(|packet| ethernet(mac(NODE_IF), ROUTER, kind(case), packet));
    let wide: Vec<_> = wide.collect();
    let answer = {
        let quote = match (case.v6, case.tcp()) {
            (false, true) => 40,
            (false, false) => 28,
            (true, true) => 60,
            (true, false) => 56,
        };
        let kinds = if case.v6 { (2, 0) } else { (3, 4) };
        let (from, to) = (case.published(1).ip(), case.client().ip());
        let error = icmp_error(from, to, kinds, room(case.v6).into(), &wide[0][14..14 + quote]);
        ethernet(ROUTER, mac(NODE_IF), kind(case), &error)
    };
    vec![
        Fixture::new(
            name("recent"),
            "half a minute they wait for each other",
            first(NOW - crate::abi::ticks(29_000)),
        )
        .step(later().sends(Action::Continue, Reason::ForwardNetwork, 0)),
        Fixture::new(
            name("stale"),
            "then the number is another datagram's",
            first(NOW - crate::abi::ticks(31_000)),
        )
        .step(later().drops(Reason::DropFragment)),
        Fixture::new(
            name("too_big"),
            "the first that does not fit the tunnel is answered, with its ports; the others need no answer",
            World::new().flow(case, own, Place::Node2, None),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, wide[0].clone()).transmits(Reason::AnswerTooBig, answer))
        .step(Step::new(Entry::TcNode, NODE_IF, wide[1].clone()).drops(Reason::DropTooBig)),
    ]
}

/// What is refused is refused in silence: an error could not quote ports in every family.
pub(super) fn refused(case: Case) -> Vec<Fixture> {
    let sent = cut(
        case,
        &long(case, case.client(), case.published(1)),
        (mac(NODE_IF), ROUTER),
    );
    let on = |n: usize| Step::new(Entry::TcNode, NODE_IF, sent[n].clone());
    vec![
        Fixture::new(
            format!("fragments_refused_{}", case.name()),
            "without a backend nothing of a datagram goes anywhere",
            World::new().serve(case, &[]),
        )
        .step(on(0).drops(Reason::UnreachableNoBackend))
        .step(on(1).drops(Reason::DropFragment)),
        Fixture::new(
            format!("fragments_opening_{}", case.name()),
            "a first fragment opens a flow, the others do not open a second one",
            World::new(),
        )
        .step(on(0).sends(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF))
        .step(
            on(1)
                .sends(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF)
                .then(move |tables| {
                    assert_eq!(tables.flows().len(), 1);
                    assert_eq!(tables.cursors.borrow()[&case.published_service()], 1);
                }),
        ),
    ]
}
