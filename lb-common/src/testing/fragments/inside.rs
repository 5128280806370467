//! Fragments between a VIP's client and backend where the node need not route them: handed over as whole packets are.

use std::format;
use std::vec;
use std::vec::Vec;

use super::{cut, each, long, lost_early};
use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::world::{
    Case, NEIGHBOUR_IF, NETWORK, NODE_IF, Place, ROUTED_IF, World, mac, node_mac, workload_mac,
};
use crate::verdict::{Action, Reason};

/// A world in which the client behind a routed veth has a flow to the VIP, whose backend is at a place.
fn world(case: Case, place: Place) -> World {
    let tuple = case.tuple(case.neighbour(), case.vip(), NETWORK);
    World::new().flow(case, tuple, place, None)
}

pub(super) fn forward(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("fragments_inside_{what}_{}", case.name());
    let frame = long(case, case.neighbour(), case.vip());
    let sent = cut(case, &frame, (mac(NEIGHBOUR_IF), workload_mac(NEIGHBOUR_IF)));
    let step = |n: usize| Step::new(Entry::FromWorkload, NEIGHBOUR_IF, sent[n].clone());
    let to = |place, macs| cut(case, &frame.clone().to(case.backend(place)).ttl(63), macs);
    let here = to(Place::Here, (workload_mac(ROUTED_IF), mac(ROUTED_IF)));
    let far = to(Place::Node2, (node_mac(2), mac(NODE_IF)));
    let local = Fixture::new(
        name("forward"),
        "from one routed veth into the far end of another; without the first, nothing is said to a VIP",
        world(case, Place::Here),
    );
    let remote = Fixture::new(
        name("forward_remote"),
        "to another node by the node's own interface",
        world(case, Place::Node2),
    );
    vec![
        each(local.step(step(1).drops(Reason::DropFragment)), |n| {
            step(n).redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, here[n].clone())
        }),
        each(remote, |n| {
            step(n).redirects(Action::Redirect, Reason::ForwardNetwork, NODE_IF, far[n].clone())
        }),
    ]
}

pub(super) fn back(case: Case) -> Vec<Fixture> {
    let here = (mac(ROUTED_IF), workload_mac(ROUTED_IF));
    let there = (mac(NODE_IF), node_mac(2));
    let ways = [
        ("reply", Place::Here, Entry::FromWorkload, ROUTED_IF, here),
        ("reply_from_node", Place::Node2, Entry::TcNode, NODE_IF, there),
    ];
    let mut all = Vec::new();
    for (what, place, entry, ifindex, macs) in ways {
        let reply = long(case, case.backend(place), case.neighbour());
        let came = cut(case, &reply, macs);
        let back = reply.from(case.vip()).ttl(63);
        let back = cut(case, &back, (workload_mac(NEIGHBOUR_IF), mac(NEIGHBOUR_IF)));
        let step = |n: usize| Step::new(entry, ifindex, came[n].clone());
        let put = |n: usize| step(n).redirects(Action::RedirectPeer, Reason::ReplyVip, NEIGHBOUR_IF, back[n].clone());
        all.push(each(
            Fixture::new(
                format!("fragments_inside_{what}_{}", case.name()),
                "those of a reply are put into the client's end, in whatever order",
                world(case, place),
            ),
            put,
        ));
        all.push(
            Fixture::new(
                format!("fragments_inside_{what}_early_{}", case.name()),
                "one before the first may be the node's own; the first one has it counted as lost",
                world(case, place),
            )
            .step(
                step(1)
                    .passes(Reason::PassFragment)
                    .then(|tables| assert_eq!(lost_early(tables), 0)),
            )
            .step(put(0).then(|tables| assert_eq!(lost_early(tables), 1)))
            .step(put(2).then(|tables| assert_eq!(lost_early(tables), 1))),
        );
    }
    all
}
