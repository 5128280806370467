//! What is no packet of another node's, or says what this node does not know.

use std::format;
use std::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use super::{FORWARD, from_node, wrapped};
use crate::abi::BACKEND_GONE;
use crate::testing::fixture::{Entry, Fixture, Step};
use crate::testing::frame::{ethernet, icmp, tunnel};
use crate::testing::world::{Case, NETWORK, NODE_IF, Place, TUNNEL_PORT, World, mac, node_mac};
use crate::verdict::Reason;

pub(super) fn fixtures(case: Case) -> Vec<Fixture> {
    let backend = case.backend(Place::Here);
    let inner = case.first(case.client(), case.published(2)).ttl(63);
    let whole = inner.packet();
    let good = from_node(case, 2, FORWARD, backend, &whole);
    let world = World::new;
    let short = &whole[..whole.len() - 1];
    let ping = icmp(
        case.client().ip(),
        case.published(2).ip(),
        64,
        &[8, 0, 0, 0, 0, 1, 0, 1],
    );
    let nowhere = SocketAddr::new(case.published(2).ip(), 9);
    let no_backend = (case.host(200), 8000).into();
    let ip = ETHERNET + if case.v6 { 40 } else { 20 };
    const ETHERNET: usize = 14;
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[ip + 8 + at] = byte;
        frame
    };
    let elsewhere = {
        let outer = ((case.node(2), 50_000).into(), (case.node(9), TUNNEL_PORT).into());
        let packet = tunnel(outer, FORWARD, NETWORK, backend, &whole);
        ethernet(
            mac(NODE_IF),
            node_mac(2),
            if case.v6 { 0x86dd } else { 0x0800 },
            &packet,
        )
    };
    let cases: Vec<(&str, &'static str, World, Vec<u8>, Reason)> = vec![
        (
            "foreign_node",
            "an address that is no node's may not use the tunnel",
            world(),
            wrapped(case, (case.client().ip(), 50_000).into(), FORWARD, backend, &whole),
            Reason::DropTunnelSource,
        ),
        (
            "own_node",
            "nor may who pretends to be this node",
            world(),
            from_node(case, 1, FORWARD, backend, &whole),
            Reason::DropTunnelSource,
        ),
        (
            "foreign_frontend",
            "a node speaks for its own addresses alone",
            world(),
            from_node(case, 3, FORWARD, backend, &whole),
            Reason::DropTunnelFrontend,
        ),
        (
            "unpublished",
            "a port that nobody publishes leads nowhere",
            world(),
            from_node(case, 2, FORWARD, backend, &inner.clone().to(nowhere).packet()),
            Reason::DropTunnelFrontend,
        ),
        (
            "unknown_backend",
            "the tunnel leads to backends of this node alone",
            world(),
            from_node(case, 2, FORWARD, no_backend, &whole),
            Reason::DropTunnelBackend,
        ),
        (
            "gone_backend",
            "not to one that is gone",
            world().backend_state(case, Place::Here, BACKEND_GONE),
            good.clone(),
            Reason::DropTunnelBackend,
        ),
        (
            "short",
            "an inner packet that ends too early",
            world(),
            from_node(case, 2, FORWARD, backend, short),
            Reason::DropTunnelMalformed,
        ),
        (
            "no_ports",
            "an inner packet that is neither TCP nor UDP",
            world(),
            from_node(case, 2, FORWARD, backend, &ping),
            Reason::DropTunnelMalformed,
        ),
    ];
    let mut all: Vec<Fixture> = cases
        .into_iter()
        .map(|(what, why, world, frame, reason)| {
            Fixture::new(format!("tunnel_{what}_{}", case.name()), why, world)
                .step(Step::new(Entry::TcNode, NODE_IF, frame).drops(reason))
        })
        .collect();
    // The port may be another tunnel's too.
    for (what, frame) in [
        ("other_class", with(9, 0xb2)),
        ("other_version", with(13, 2)),
        ("other_direction", with(12, 3)),
        ("no_option", with(0, 0)),
        ("other_inner", with(3, 0x58)),
        ("elsewhere", elsewhere),
    ] {
        for (entry, hook) in [(Entry::XdpNode, "xdp"), (Entry::TcNode, "tc")] {
            all.push(
                Fixture::new(
                    format!("tunnel_{what}_{hook}_{}", case.name()),
                    "what is not ours goes to whose it is, untouched",
                    world(),
                )
                .step(Step::new(entry, NODE_IF, frame.clone()).passes(Reason::PassNotService)),
            );
        }
    }
    all
}
