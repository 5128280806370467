//! Datagrams in fragments: in order and reordered, all take the way of the first.

mod dropped;
mod inside;

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::frame::{Frame, Mac, ethernet, fragments, tunnel};
use super::tables::MemoryTables;
use super::world::{
    CLIENT_IF, Case, GATEWAY_IF, LOOPBACK_IF, NETWORK, NODE_IF, Place, ROUTED_IF, ROUTER, TUNNEL_PORT, World, mac,
    node_mac, workload_mac,
};
use crate::abi::{FLOW_FLAG_HOST, NETWORK_NODE};
use crate::verdict::{Action, Reason};

const FORWARD: u8 = 1;
const REPLY: u8 = 2;
const ID: u16 = 0x1234;

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for case in Case::ALL {
        all.extend(published(case));
        all.extend(remote(case));
        all.extend(replies(case));
        all.push(vips(case));
        all.push(own(case));
        all.extend(inside::forward(case));
        all.extend(inside::back(case));
        all.extend(dropped::lost(case));
    }
    for case in Case::UDP {
        all.extend(dropped::refused(case));
    }
    for case in [Case::TCP[0], Case::UDP[0]] {
        all.push(masked(case));
    }
    all
}

/// Something long, of odd length.
fn long(case: Case, from: SocketAddr, to: SocketAddr) -> Frame {
    let body: Vec<u8> = (0..299).map(|n| n as u8).collect();
    case.frame(from, to).payload(&body)
}

fn kind(case: Case) -> u16 {
    if case.v6 { 0x86dd } else { 0x0800 }
}

/// Three fragments of a packet, each as a frame.
fn cut(case: Case, frame: &Frame, macs: (Mac, Mac)) -> [Vec<u8>; 3] {
    let all = fragments(&frame.packet(), ID, &[96, 200]);
    let frames = all.iter().map(|packet| ethernet(macs.0, macs.1, kind(case), packet));
    let frames: Vec<_> = frames.collect();
    frames.try_into().expect("three fragments")
}

/// The same inside the tunnel, between this node and another one.
fn tunnelled(case: Case, frame: &Frame, to: bool, direction: u8, place: Place) -> [Vec<u8>; 3] {
    let all = fragments(&frame.packet(), ID, &[96, 200]);
    let wrap = |packet: &Vec<u8>| {
        // All fragments of a flow take the same port: ports are known of each.
        let port = 0xc000 | (frame.tuple().hash() & 0x3fff) as u16;
        let (own, other) = (case.node(1), case.node(2));
        let (outer, macs): ((SocketAddr, SocketAddr), _) = if to {
            (
                ((own, port).into(), (other, TUNNEL_PORT).into()),
                (node_mac(2), mac(NODE_IF)),
            )
        } else {
            (
                ((other, 50_000).into(), (own, TUNNEL_PORT).into()),
                (mac(NODE_IF), node_mac(2)),
            )
        };
        let packet = tunnel(outer, direction, NETWORK, case.backend(place), packet);
        ethernet(macs.0, macs.1, kind(case), &packet)
    };
    let frames: Vec<_> = all.iter().map(wrap).collect();
    frames.try_into().expect("three fragments")
}

/// The first fragment, then the last, then the one between them.
const ORDER: [usize; 3] = [0, 2, 1];

/// Adds a step for each fragment.
fn each(mut fixture: Fixture, step: impl Fn(usize) -> Step) -> Fixture {
    for n in ORDER {
        fixture = fixture.step(step(n));
    }
    fixture
}

/// Fragments that were counted as lost, because they came before their first one.
fn lost_early(tables: &MemoryTables) -> u64 {
    let counters = tables.counters();
    counters
        .get(&Reason::DropFragmentEarly.code())
        .map_or(0, |counter| counter.packets)
}

fn published(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("fragments_{what}_{}", case.name());
    let tuple = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let world = || World::new().flow(case, tuple, Place::Here, None);
    let frame = long(case, case.client(), case.published(1));
    let sent = cut(case, &frame, (mac(NODE_IF), ROUTER));
    let out = frame.clone().to(case.backend(Place::Here)).ttl(63);
    let out = cut(case, &out, (workload_mac(ROUTED_IF), mac(ROUTED_IF)));
    let deliver = |n: usize| {
        Step::new(Entry::TcNode, NODE_IF, sent[n].clone()).redirects(
            Action::RedirectPeer,
            Reason::ForwardLocal,
            ROUTED_IF,
            out[n].clone(),
        )
    };
    let xdp = |n: usize| Step::new(Entry::XdpNode, NODE_IF, sent[n].clone()).passes(Reason::PassFragment);
    let nobody = long(case, case.client(), (case.node(1), 9).into());
    let nobody = cut(case, &nobody, (mac(NODE_IF), ROUTER));
    let early = |n: usize| Step::new(Entry::TcNode, NODE_IF, sent[n].clone()).passes(Reason::PassFragment);
    let own = |n: usize| Step::new(Entry::TcNode, NODE_IF, nobody[n].clone()).passes(Reason::PassNotService);
    vec![
        each(
            Fixture::new(
                name("local"),
                "fragments follow the first to its backend, in whatever order; XDP leaves them to tc",
                world(),
            )
            .step(xdp(0))
            .step(xdp(1)),
            deliver,
        ),
        Fixture::new(
            name("early"),
            "those that come before the first may be the node's own; it tells that they were not, and they are counted as lost",
            world(),
        )
        .step(early(2).then(|tables| assert_eq!(lost_early(tables), 0)))
        .step(early(1))
        .step(deliver(0).then(|tables| assert_eq!(lost_early(tables), 2)))
        .step(deliver(2).then(|tables| assert_eq!(lost_early(tables), 2))),
        Fixture::new(
            name("early_own"),
            "of a datagram of the node's own nothing is lost, in whatever order",
            world(),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, nobody[2].clone()).passes(Reason::PassFragment))
        .step(own(0))
        .step(own(1).then(|tables| assert_eq!(lost_early(tables), 0))),
        each(Fixture::new(name("other"), "the node's own pass", world()), own),
    ]
}

fn remote(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("fragments_tunnel_{what}_{}", case.name());
    let own = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let foreign = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let entry = || World::new().flow(case, own, Place::Node2, None);
    let behind = || World::new().flow(case, foreign, Place::Here, Some(1));

    let frame = long(case, case.client(), case.published(1));
    let sent = cut(case, &frame, (mac(NODE_IF), ROUTER));
    let through = tunnelled(case, &frame.ttl(63), true, FORWARD, Place::Node2);
    let inner = long(case, case.client(), case.published(2)).ttl(63);
    let came = tunnelled(case, &inner, false, FORWARD, Place::Here);
    let out = inner.clone().to(case.backend(Place::Here)).ttl(62);
    let out = cut(case, &out, (workload_mac(ROUTED_IF), mac(ROUTED_IF)));
    let answer = long(case, case.published(1), case.client()).ttl(63);
    let back = tunnelled(case, &answer, false, REPLY, Place::Node2);
    let left = cut(case, &answer.clone().ttl(62), (ROUTER, mac(NODE_IF)));
    vec![
        each(
            Fixture::new(name("forward"), "through the tunnel to a remote backend", entry()),
            |n| Step::new(Entry::TcNode, NODE_IF, sent[n].clone()).transmits(Reason::ForwardTunnel, through[n].clone()),
        ),
        each(
            Fixture::new(name("delivered"), "whose node delivers them", behind()),
            |n| {
                Step::new(Entry::TcNode, NODE_IF, came[n].clone()).redirects(
                    Action::RedirectPeer,
                    Reason::ForwardLocal,
                    ROUTED_IF,
                    out[n].clone(),
                )
            },
        ),
        each(
            Fixture::new(name("reply"), "and those of the reply reach the client", entry())
                .step(Step::new(Entry::XdpNode, NODE_IF, back[0].clone()).passes(Reason::PassFragment)),
            |n| Step::new(Entry::TcNode, NODE_IF, back[n].clone()).transmits(Reason::ReplyFromTunnel, left[n].clone()),
        ),
        Fixture::new(
            name("early"),
            "in the tunnel there is nothing but services: without the first, nothing",
            behind(),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, came[1].clone()).drops(Reason::DropFragment))
        .step(Step::new(Entry::TcNode, NODE_IF, back[1].clone()).drops(Reason::DropFragment)),
    ]
}

fn replies(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("fragments_reply_{what}_{}", case.name());
    let own = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let foreign = case.tuple(case.client(), case.published(2), NETWORK_NODE);
    let frame = long(case, case.backend(Place::Here), case.client());
    let sent = cut(case, &frame, (mac(ROUTED_IF), workload_mac(ROUTED_IF)));
    let out = frame.clone().from(case.published(1)).ttl(63);
    let out = cut(case, &out, (ROUTER, mac(NODE_IF)));
    let inner = frame.clone().from(case.published(2)).ttl(63);
    let mut through = tunnelled(case, &inner, true, REPLY, Place::Here);
    // Its way is worked out before it is translated.
    let port = (0xc000 | (frame.tuple().hash() & 0x3fff) as u16).to_be_bytes();
    let at = if case.v6 { 54 } else { 34 };
    for frame in &mut through {
        frame[at..at + 2].copy_from_slice(&port);
    }
    let step = |n: usize| Step::new(Entry::FromWorkload, ROUTED_IF, sent[n].clone());
    vec![
        each(
            Fixture::new(
                name("direct"),
                "fragments of a reply leave with the frontend as their source",
                World::new().flow(case, own, Place::Here, None),
            ),
            |n| step(n).redirects(Action::Redirect, Reason::ReplyDirect, NODE_IF, out[n].clone()),
        ),
        Fixture::new(
            name("early"),
            "what a backend sends may be its own until the first one tells",
            World::new().flow(case, own, Place::Here, None),
        )
        .step(step(1).passes(Reason::PassFragment))
        .step(
            step(0)
                .redirects(Action::Redirect, Reason::ReplyDirect, NODE_IF, out[0].clone())
                .then(|tables| assert_eq!(lost_early(tables), 1)),
        ),
        each(
            Fixture::new(
                name("tunnel"),
                "or through the tunnel",
                World::new().flow(case, foreign, Place::Here, Some(1)),
            ),
            |n| step(n).redirects(Action::Redirect, Reason::ReplyTunnel, NODE_IF, through[n].clone()),
        ),
    ]
}

fn vips(case: Case) -> Fixture {
    let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
    let frame = long(case, case.inside(), case.vip());
    let sent = cut(case, &frame, (mac(CLIENT_IF), workload_mac(CLIENT_IF)));
    let out = frame.to(case.backend(Place::Here));
    let out = cut(case, &out, (workload_mac(ROUTED_IF), workload_mac(CLIENT_IF)));
    let reply = long(case, case.backend(Place::Here), case.inside());
    let macs = (workload_mac(CLIENT_IF), workload_mac(ROUTED_IF));
    let (came, back) = (cut(case, &reply, macs), cut(case, &reply.from(case.vip()), macs));
    let fixture = Fixture::new(
        format!("fragments_vip_{}", case.name()),
        "to a VIP, and back; without the first, nothing is said to a VIP",
        World::new().flow(case, tuple, Place::Here, None),
    )
    .step(Step::new(Entry::FromWorkload, CLIENT_IF, sent[1].clone()).drops(Reason::DropFragment))
    .step(Step::new(Entry::ToWorkload, CLIENT_IF, came[1].clone()).passes(Reason::PassFragment));
    let fixture = each(fixture, |n| {
        Step::new(Entry::FromWorkload, CLIENT_IF, sent[n].clone()).continues(Reason::ForwardNetwork, out[n].clone())
    });
    each(fixture, |n| {
        Step::new(Entry::ToWorkload, CLIENT_IF, came[n].clone()).continues(Reason::ReplyVip, back[n].clone())
    })
}

/// The node's own processes, whose own packets no fragments are: the loopback interface is wide enough for all.
fn own(case: Case) -> Fixture {
    let client: SocketAddr = (case.node(1), 40_001).into();
    let tuple = case.tuple(client, case.published(1), NETWORK_NODE);
    let sent = cut(case, &long(case, client, case.published(1)), ([0; 6], [0; 6]));
    let reply = long(case, case.backend(Place::Here), client);
    let came = cut(case, &reply, (mac(ROUTED_IF), workload_mac(ROUTED_IF)));
    let back = cut(case, &reply.from(case.published(1)).ttl(63), ([0; 6], [0; 6]));
    let world = World::new()
        .flow(case, tuple, Place::Here, None)
        .change(tuple, |flow| flow.flags = FLOW_FLAG_HOST);
    let fixture = Fixture::new(
        format!("fragments_host_{}", case.name()),
        "a process of the node gets the fragments of a reply",
        world,
    )
    .step(Step::new(Entry::FromHost, LOOPBACK_IF, sent[0].clone()).passes(Reason::PassFragment));
    each(fixture, |n| {
        Step::new(Entry::FromWorkload, ROUTED_IF, came[n].clone()).redirects(
            Action::DeliverHost,
            Reason::ReplyDirect,
            LOOPBACK_IF,
            back[n].clone(),
        )
    })
}

/// A client behind the gateway bridge.
fn masked(case: Case) -> Fixture {
    let tuple = case.tuple(case.masked(), case.published(1), NETWORK_NODE);
    let frame = long(case, case.gateway(), case.published(1));
    let sent = cut(case, &frame, (mac(GATEWAY_IF), workload_mac(GATEWAY_IF)));
    let out = frame.from(case.masked()).to(case.backend(Place::Here)).ttl(63);
    let out = cut(case, &out, (workload_mac(ROUTED_IF), mac(ROUTED_IF)));
    let reply = long(case, case.backend(Place::Here), case.masked());
    let came = cut(case, &reply, (mac(ROUTED_IF), workload_mac(ROUTED_IF)));
    let back = reply.from(case.published(1)).to(case.gateway()).ttl(63);
    let back = cut(case, &back, (workload_mac(GATEWAY_IF), mac(GATEWAY_IF)));
    let fixture = Fixture::new(
        format!("fragments_gateway_{}", case.name()),
        "a masked client and a backend",
        World::new().flow(case, tuple, Place::Here, None),
    );
    let fixture = each(fixture, |n| {
        Step::new(Entry::FromWorkload, GATEWAY_IF, sent[n].clone()).redirects(
            Action::RedirectPeer,
            Reason::ForwardLocal,
            ROUTED_IF,
            out[n].clone(),
        )
    });
    each(fixture, |n| {
        Step::new(Entry::FromWorkload, ROUTED_IF, came[n].clone()).redirects(
            Action::Redirect,
            Reason::ReplyDirect,
            GATEWAY_IF,
            back[n].clone(),
        )
    })
}
