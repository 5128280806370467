//! Published ports that do not answer everybody.

use std::format;
use std::net::{IpAddr, Ipv4Addr};
use std::vec;
use std::vec::Vec;

use super::fixture::{Entry, Fixture, Step};
use super::world::{CLIENT_IF, Case, GATEWAY_IF, NODE_IF, Place, ROUTED_IF, World, mac, workload_mac};
use crate::abi::{BACKEND_GONE, FRONTEND_FILTERED, NETWORK_NODE, SOURCE_ALLOWED, SOURCE_DENIED, SourceKey};
use crate::verdict::{Action, Reason};

pub(super) fn fixtures() -> Vec<Fixture> {
    let mut all: Vec<_> = Case::ALL.into_iter().flat_map(of).collect();
    all.extend(Case::ALL.into_iter().filter(|case| !case.v6).flat_map(gateway));
    all
}

/// The published port of `case` answers by these prefixes; bits of the address's own family.
fn world(case: Case, rules: &[(IpAddr, u32, u32)]) -> World {
    let mut world = World::new();
    let port = case.published(1).port();
    let mut published = world.tables.frontends.iter_mut();
    let (_, frontend) = published
        .find(|(key, _)| {
            let family = if case.v6 { 6 } else { 4 };
            (key.network, key.port, key.protocol, key.family) == (NETWORK_NODE, port, case.protocol, family)
        })
        .expect("every case has a published port");
    frontend.flags = FRONTEND_FILTERED;
    for (address, bits, value) in rules {
        let key = SourceKey {
            bits: SourceKey::EVERYBODY + bits + if case.v6 { 0 } else { 96 },
            service: case.published_service(),
            address: (*address).into(),
        };
        world.tables.sources.insert(key, *value);
    }
    world
}

fn of(case: Case) -> Vec<Fixture> {
    let name = |what: &str| format!("filter_{what}_{}", case.name());
    let on = |entry| Step::new(entry, NODE_IF, case.opening().build());
    let client = case.client().ip();
    let (near, far) = if case.v6 { (64, 128) } else { (24, 32) };
    let whole = if case.v6 { 128 } else { 32 };
    let prefix = prefix(client, near);
    let out = case.opening().to(case.backend(Place::Here)).ttl(63);
    let out = out.macs(workload_mac(ROUTED_IF), mac(ROUTED_IF)).build();
    let served = |step: Step| step.redirects(Action::RedirectPeer, Reason::ForwardLocal, ROUTED_IF, out.clone());
    let denied = |step: Step| {
        step.drops(Reason::DropSourceDenied)
            .then(|tables| assert!(tables.flows().is_empty()))
    };
    let elsewhere = case.opening().to((case.stranger().ip(), 8080).into());
    let established = case.tuple(case.client(), case.published(1), NETWORK_NODE);
    let vip = case.vip_opening();
    vec![
        Fixture::new(
            name("allowed"),
            "a client with an allowed prefix is served",
            world(case, &[(prefix, near, SOURCE_ALLOWED)]),
        )
        .step(served(on(Entry::TcNode))),
        Fixture::new(name("closed"), "one that no prefix matches is not", world(case, &[]))
            .step(denied(on(Entry::XdpNode)))
            .step(denied(on(Entry::TcNode))),
        Fixture::new(
            name("longest"),
            "the longest prefix decides",
            world(case, &[(prefix, near, SOURCE_ALLOWED), (client, far, SOURCE_DENIED)]),
        )
        .step(denied(on(Entry::TcNode))),
        Fixture::new(name("everybody"), "everybody but those denied", {
            let mut world = world(case, &[(case.stranger().ip(), whole, SOURCE_DENIED)]);
            let everybody = SourceKey {
                bits: SourceKey::EVERYBODY,
                service: case.published_service(),
                ..SourceKey::default()
            };
            world.tables.sources.insert(everybody, SOURCE_ALLOWED);
            world
        })
        .step(served(on(Entry::TcNode))),
        Fixture::new(name("other_service"), "another service's prefixes say nothing", {
            let mut world = world(case, &[(prefix, near, SOURCE_ALLOWED)]);
            let (key, value) = world.tables.sources.pop_first().expect("one prefix");
            let service = case.vip_service();
            world.tables.sources.insert(SourceKey { service, ..key }, value);
            world
        })
        .step(denied(on(Entry::TcNode))),
        Fixture::new(
            name("elsewhere"),
            "what is not for this node is none of ours",
            world(case, &[]),
        )
        .step(Step::new(Entry::TcNode, NODE_IF, elsewhere.build()).passes(Reason::PassNotService)),
        Fixture::new(
            name("established"),
            "a flow that is there goes on",
            world(case, &[]).flow(case, established, Place::Here, None),
        )
        .step(
            Step::new(
                Entry::TcNode,
                NODE_IF,
                case.frame(case.client(), case.published(1)).build(),
            )
            .redirects(
                Action::RedirectPeer,
                Reason::ForwardLocal,
                ROUTED_IF,
                case.frame(case.client(), case.backend(Place::Here))
                    .ttl(63)
                    .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF))
                    .build(),
            ),
        ),
        Fixture::new(
            name("again"),
            "one that is to be chosen anew asks again",
            world(case, &[])
                .flow(case, established, Place::Here, None)
                .backend_state(case, Place::Here, BACKEND_GONE),
        )
        .step(on(Entry::TcNode).drops(Reason::DropSourceDenied)),
        Fixture::new(
            name("vip"),
            "clients inside the network are not asked for",
            world(case, &[]),
        )
        .step(
            Step::new(Entry::FromWorkload, CLIENT_IF, vip.clone().build()).continues(
                Reason::ForwardNetwork,
                vip.to(case.backend(Place::Here))
                    .macs(workload_mac(ROUTED_IF), workload_mac(CLIENT_IF))
                    .build(),
            ),
        ),
    ]
}

/// The first address of the prefix of `bits` that holds `address`.
fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - bits))).into(),
        IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - bits))).into(),
    }
}

/// A masked client goes by its own address.
fn gateway(case: Case) -> Vec<Fixture> {
    let sent = || {
        let frame = case.first(case.gateway(), case.published(1));
        let frame = frame.macs(mac(GATEWAY_IF), workload_mac(GATEWAY_IF));
        Step::new(Entry::FromWorkload, GATEWAY_IF, frame.build())
    };
    let delivered = case
        .first(case.masked(), case.backend(Place::Here))
        .ttl(63)
        .macs(workload_mac(ROUTED_IF), mac(ROUTED_IF));
    let with = |what: &str, client: IpAddr| {
        Fixture::new(
            format!("filter_{what}_{}", case.name()),
            "a masked client goes by its own address",
            world(case, &[(client, 32, SOURCE_ALLOWED)]),
        )
    };
    vec![
        with("gateway", case.gateway().ip()).step(sent().redirects(
            Action::RedirectPeer,
            Reason::ForwardLocal,
            ROUTED_IF,
            delivered.build(),
        )),
        with("gateway_mask", case.masked().ip()).step(sent().drops(Reason::DropSourceDenied)),
    ]
}
