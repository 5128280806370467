//! What holds for every packet, with etherparse as the judge of checksums and headers.

mod mirrored;
mod read;
mod sent;

use std::net::{IpAddr, SocketAddr};

use etherparse::checksum::Sum16BitWords;
use lb_common::testing::fixture::{Entry, Input, Output, run};
use lb_common::testing::fixtures;
use lb_common::testing::frame::Frame;
use lb_common::testing::mutate::{Random, mutate};
use lb_common::testing::world::{
    CLIENT_IF, GATEWAY_IF, LOOPBACK_IF, NODE_IF, NOW, Place, ROUTED_IF, ROUTER, World, mac, workload_mac,
};
use lb_common::verdict::{Action, Kind, Reason};
use lb_common::wire::checksum::Diff;
use proptest::collection::vec;
use proptest::prelude::*;

use mirrored::mirrored;
use read::read_frame;
use sent::{Sent, case, place, sent};

fn input(entry: Entry, ifindex: u32, frame: &Frame) -> Input {
    Input {
        entry,
        ifindex,
        frame: frame.build(),
        segment: 0,
        namespace: 0,
        side_tag: false,
    }
}

/// The largest MSS that leaves room for the tunnel on a path of 1500 bytes.
fn largest_mss(v6: bool) -> u16 {
    if v6 { 1500 - 84 - 60 } else { 1500 - 64 - 40 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The update of one word gives what a sum over everything gives.
    #[test]
    fn incremental_checksum_is_the_full_one(mut data in vec(any::<u8>(), 4..80), at in any::<prop::sample::Index>(), new: [u8; 2]) {
        data.truncate(data.len() & !1);
        let full = |data: &[u8]| Sum16BitWords::new().add_slice(data).ones_complement();
        let at = at.index(data.len() / 2) * 2;
        let old = [data[at], data[at + 1]];
        let before = full(&data).to_ne_bytes();
        data[at..at + 2].copy_from_slice(&new);
        let updated = Diff::ZERO.change2(old, new).apply(before);
        // Of data that are all zero the sum is zero, which no update can tell from its other form.
        if data.iter().any(|byte| *byte != 0) {
            prop_assert_eq!(u16::from_ne_bytes(updated), full(&data));
        }
    }

    /// Published ports: there and back, every sum is right, the payload is whole, and the client hears whom it called.
    #[test]
    fn published_there_and_back(case in case(), place in place(), xdp: bool, sent in sent(), answer in vec(any::<u8>(), 0..1200)) {
        let world = World::new().serve(case, &[place]);
        let frame = sent.frame(case, case.client().ip(), case.published(1)).macs(mac(NODE_IF), ROUTER);
        let entry = if xdp { Entry::XdpNode } else { Entry::TcNode };
        let input = input(entry, NODE_IF, &frame);
        let output = run(&world.tables, &input, NOW);
        if output.verdict.action == Action::Pass {
            prop_assert_eq!(&output.frame, &input.frame);
            return Ok(());
        }
        prop_assert_eq!(output.verdict.reason.kind(), Kind::Forward, "{:?}", output.verdict);
        let there = read_frame(&output.frame);
        prop_assert_eq!(&there.payload, &sent.payload);
        prop_assert_eq!(there.ttl, sent.ttl - 1);
        prop_assert_eq!(there.tunnelled, place.node() != 0);
        let client: SocketAddr = (case.client().ip(), sent.port).into();
        prop_assert_eq!(there.source, client);
        prop_assert_eq!(there.destination, if there.tunnelled { case.published(1) } else { case.backend(place) });
        if case.tcp() {
            let limit = if there.tunnelled { largest_mss(case.v6) } else { u16::MAX };
            prop_assert_eq!(there.mss, Some(sent.mss.min(limit)));
        }
        if there.tunnelled || place == Place::Unseen {
            return Ok(());
        }
        let reply = case.frame(there.destination, there.source).payload(&answer).ttl(sent.ttl);
        let ifindex = world.tables.backends[&case.backend_id(place)].ifindex;
        let output = run(&world.tables, &self::input(Entry::FromWorkload, ifindex, &reply), NOW);
        prop_assert_eq!(output.verdict.reason, Reason::ReplyDirect);
        let back = read_frame(&output.frame);
        prop_assert_eq!((back.source, back.destination), (case.published(1), client));
        prop_assert_eq!((back.ttl, back.payload), (sent.ttl - 1, answer));
    }

    /// Clients on the node itself: the backend sees whom every node knows, the client hears whom it asked.
    #[test]
    fn local_clients_there_and_back(case in case(), which in 0usize..3, place in place(), sent in sent(), answer in vec(any::<u8>(), 0..1200)) {
        let mask = |host| IpAddr::from([198, 18, 0, host]);
        let node = case.published(1);
        let localhost = SocketAddr::from(([127, 0, 0, 1], node.port()));
        // Who asks, whom, and what the two are called elsewhere.
        let (client, asked, known, entry, ifindex) = match (case.v6, which) {
            (false, 0) => (localhost.ip(), localhost, mask(0), Entry::FromHost, LOOPBACK_IF),
            (false, 1) => (case.gateway().ip(), node, mask(5), Entry::FromWorkload, GATEWAY_IF),
            _ => (node.ip(), node, node.ip(), Entry::FromHost, LOOPBACK_IF),
        };
        let sent = Sent { ttl: sent.ttl.max(3), ..sent };
        let world = World::new().serve(case, &[place]);
        let frame = sent.frame(case, client, asked);
        let output = run(&world.tables, &input(entry, ifindex, &frame), NOW);
        prop_assert_eq!(output.verdict.reason.kind(), Kind::Forward, "{:?}", output.verdict);
        let there = read_frame(&output.frame);
        prop_assert_eq!(there.source, SocketAddr::new(known, sent.port));
        prop_assert_eq!(there.destination, if there.tunnelled { node } else { case.backend(place) });
        prop_assert_eq!((there.ttl, &there.payload), (sent.ttl - 1, &sent.payload));
        if there.tunnelled || place == Place::Unseen {
            return Ok(());
        }
        let reply = case.frame(there.destination, there.source).payload(&answer).ttl(sent.ttl);
        let port = world.tables.backends[&case.backend_id(place)].ifindex;
        let output = run(&world.tables, &input(Entry::FromWorkload, port, &reply), NOW);
        prop_assert_eq!(output.verdict.ifindex, ifindex);
        prop_assert_eq!(output.verdict.action == Action::DeliverHost, entry == Entry::FromHost);
        let back = read_frame(&output.frame);
        prop_assert_eq!((back.source, back.destination), (asked, SocketAddr::new(client, sent.port)));
        prop_assert_eq!((back.ttl, back.payload), (sent.ttl - 1, answer));
    }

    /// VIPs: the same inside a network, where the TTL stays; a client that is its own backend, too.
    #[test]
    fn vip_there_and_back(case in case(), place in place(), sent in sent(), answer in vec(any::<u8>(), 0..1200)) {
        let world = World::new().serve(case, &[place]);
        let frame = sent.frame(case, case.inside().ip(), case.vip()).macs(mac(CLIENT_IF), workload_mac(CLIENT_IF));
        let output = run(&world.tables, &input(Entry::FromWorkload, CLIENT_IF, &frame), NOW);
        let hairpin = place == Place::Client;
        prop_assert_eq!(output.verdict.reason, if hairpin { Reason::Hairpin } else { Reason::ForwardNetwork });
        let there = read_frame(&output.frame);
        let client: SocketAddr = (case.inside().ip(), sent.port).into();
        let seen = if hairpin { (case.vip().ip(), sent.port).into() } else { client };
        prop_assert_eq!((there.source, there.destination), (seen, case.backend(place)));
        prop_assert_eq!((there.ttl, &there.payload), (sent.ttl, &sent.payload));

        let reply = case.frame(there.destination, there.source).payload(&answer).ttl(sent.ttl);
        let entry = if hairpin { Entry::FromWorkload } else { Entry::ToWorkload };
        let output = run(&world.tables, &input(entry, CLIENT_IF, &reply), NOW);
        prop_assert_eq!(output.verdict.reason, if hairpin { Reason::Hairpin } else { Reason::ReplyVip });
        let back = read_frame(&output.frame);
        prop_assert_eq!((back.source, back.destination), (case.vip(), client));
        prop_assert_eq!((back.ttl, back.payload), (sent.ttl, answer));
    }

    /// From the entry node through the tunnel to the backend, and the whole way back: two nodes' worlds, one conversation.
    #[test]
    fn through_two_nodes_and_back(case in case(), sent in sent(), answer in vec(any::<u8>(), 0..1200)) {
        // The entry node is node 1; the backend's node is node 1 of another world, whose node 2 is the entry.
        let sent = Sent { ttl: sent.ttl.max(4), ..sent };
        let entry = World::new().serve(case, &[Place::Node2]);
        let frame = sent.frame(case, case.client().ip(), case.published(1));
        let output = run(&entry.tables, &input(Entry::XdpNode, NODE_IF, &frame), NOW);
        prop_assume!(output.verdict.reason != Reason::PassPartialChecksum);
        prop_assert_eq!(output.verdict.reason, Reason::ForwardTunnel);

        let other = mirrored(case);
        let output = through(&other, Entry::TcNode, NODE_IF, output.frame);
        prop_assert_eq!(output.verdict.reason, Reason::ForwardLocal);
        let there = read_frame(&output.frame);
        prop_assert_eq!(there.destination, case.backend(Place::Node2));
        prop_assert_eq!((there.ttl, &there.payload), (sent.ttl - 2, &sent.payload));

        let reply = case.frame(there.destination, there.source).payload(&answer).ttl(sent.ttl);
        let output = through(&other, Entry::FromWorkload, ROUTED_IF, reply.build());
        prop_assert_eq!(output.verdict.reason, Reason::ReplyTunnel);
        let output = through(&entry, Entry::XdpNode, NODE_IF, output.frame);
        prop_assert_eq!(output.verdict.reason, Reason::ReplyFromTunnel);
        let back = read_frame(&output.frame);
        let client: SocketAddr = (case.client().ip(), sent.port).into();
        prop_assert_eq!((back.source, back.destination), (case.published(1), client));
        prop_assert_eq!((back.ttl, back.payload), (sent.ttl - 2, answer));
    }

    /// Refusals and ICMP errors have right sums and go to who is refused.
    #[test]
    fn answers_are_sound(case in case(), xdp: bool, sent in sent(), pad in 0usize..30) {
        let world = World::new().serve(case, &[]);
        let frame = sent.frame(case, case.client().ip(), case.published(1)).padding(pad);
        let entry = if xdp { Entry::XdpNode } else { Entry::TcNode };
        let output = run(&world.tables, &input(entry, NODE_IF, &frame), NOW);
        if output.verdict.action == Action::Pass {
            return Ok(());
        }
        prop_assert_eq!(output.verdict.action, Action::Transmit);
        let answer = read_frame(&output.frame);
        prop_assert_eq!(answer.source.ip(), case.published(1).ip());
        prop_assert_eq!(answer.destination.ip(), case.client().ip());
        if case.tcp() {
            prop_assert_eq!((answer.source.port(), answer.destination.port()), (8080, sent.port));
        } else {
            // The quote is the packet as it came.
            prop_assert_eq!(&answer.payload[..], &frame.packet()[..answer.payload.len()]);
        }
    }

    /// Bytes from nowhere: no program panics, and what is passed is as it was.
    #[test]
    fn random_bytes_do_no_harm(head in prop::sample::select(vec![&[][..], &[0x08, 0][..], &[0x86, 0xdd], &[0x08, 6], &[0x81, 0, 0, 1, 8, 0]]),
                               mut bytes in vec(any::<u8>(), 0..300), ifindex in prop::sample::select(vec![NODE_IF, ROUTED_IF, CLIENT_IF])) {
        if bytes.len() >= 12 + head.len() {
            bytes[12..12 + head.len()].copy_from_slice(head);
        }
        let world = World::new();
        for entry in Entry::ALL {
            harmless(&world, entry, ifindex, &bytes);
        }
    }

    /// Nor do packets that are nearly right.
    #[test]
    fn damaged_packets_do_no_harm(seed: u64, index in any::<prop::sample::Index>()) {
        thread_local!(static ALL: Vec<lb_common::testing::fixture::Fixture> = fixtures());
        ALL.with(|all| {
            let fixture = &all[index.index(all.len())];
            let mut random = Random::new(seed);
            let world = fixture.world.clone();
            for step in fixture.steps.iter().take(3) {
                let frame = mutate(&step.input.frame, &mut random, 3000);
                for entry in Entry::ALL {
                    harmless(&world, entry, step.input.ifindex, &frame);
                }
            }
        });
    }
}

fn harmless(world: &World, entry: Entry, ifindex: u32, frame: &[u8]) {
    for (segment, side_tag) in [(0, false), (1400, false), (0, true)] {
        let input = Input {
            entry,
            ifindex,
            frame: frame.to_vec(),
            segment,
            namespace: 0,
            side_tag,
        };
        let output = run(&world.tables, &input, NOW);
        if output.verdict.action == Action::Pass {
            assert_eq!(output.frame, frame, "{entry:?} {:?}", output.verdict);
        }
    }
}

fn through(world: &World, entry: Entry, ifindex: u32, frame: Vec<u8>) -> Output {
    let input = Input {
        entry,
        ifindex,
        frame,
        segment: 0,
        namespace: 0,
        side_tag: false,
    };
    run(&world.tables, &input, NOW)
}
