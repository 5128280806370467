//! The naming rules as tables, and isolation as a property.

use std::net::IpAddr;

use hickory_proto::rr::RecordType::{self, A, AAAA, ANY, MX, PTR, TXT};
use proptest::prelude::*;

use super::*;
use crate::model::snapshot::{Backend, BackendState, EndpointMode, Network, Node};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn backend(name: &str, addresses: &[&str], state: BackendState) -> Backend {
    let addresses = addresses.iter().map(|a| ip(a)).collect();
    Backend {
        name: name.into(),
        node: "n1".into(),
        addresses,
        port: None,
        state,
        weight: 1,
        pending: false,
        aliases: Vec::new(),
    }
}

fn service(network: &str, name: &str, mode: EndpointMode, vips: &[&str], backends: Vec<Backend>) -> Service {
    Service {
        name: name.into(),
        network: network.into(),
        mode,
        vips: vips.iter().map(|a| ip(a)).collect(),
        aliases: Vec::new(),
        ports: Vec::new(),
        any_port: false,
        sources: Default::default(),
        tcp_timeout: None,
        udp_timeout: None,
        backends,
    }
}

fn network(name: &str, id: u32, subnets: &[&str]) -> Network {
    Network {
        name: name.into(),
        id,
        subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
        encrypted: false,
        overlay: false,
        ingress: false,
    }
}

/// Two networks: `front` dual-stack with all sorts of services, `back.end` (a dot in its name) with one.
pub(in crate::dns) fn snapshot() -> Snapshot {
    use BackendState::{Draining, Ready};
    use EndpointMode::{Dnsrr, Vip};
    let mut web = service(
        "front",
        "web",
        Vip,
        &["10.1.0.100", "fd01::100"],
        vec![
            backend("web.1", &["10.1.0.1", "fd01::1"], Ready),
            backend("web.2", &["10.1.0.2"], Ready),
            backend("web.3", &["10.1.0.3"], Draining),
        ],
    );
    web.aliases = vec!["WWW".into(), "shared".into()];
    web.backends[0].aliases = vec!["C0FFEE012345".into()];
    let mut api = service(
        "front",
        "api",
        Vip,
        &["10.1.0.101"],
        vec![backend("api.1", &["10.1.0.11"], Ready)],
    );
    api.aliases = vec!["shared".into()];
    Snapshot {
        generation: 7,
        nodes: vec![Node {
            name: "n1".into(),
            id: None,
            addresses: vec![ip("192.0.2.1")],
        }],
        networks: vec![
            network("front", 1, &["10.1.0.0/24", "fd01::/64"]),
            network("back.end", 2, &["10.2.0.0/24"]),
        ],
        services: vec![
            web,
            api,
            service(
                "front",
                "rr",
                Dnsrr,
                &[],
                vec![
                    backend("rr.1", &["10.1.0.21"], Ready),
                    backend("rr.2", &["10.1.0.22"], Ready),
                    backend("rr.3", &["10.1.0.23"], Draining),
                ],
            ),
            service(
                "front",
                "leaving",
                Dnsrr,
                &[],
                vec![backend("leaving.1", &["10.1.0.31"], Draining)],
            ),
            service("front", "none", Dnsrr, &[], vec![]),
            service("front", "idle", Vip, &["10.1.0.102"], vec![]),
            service(
                "front",
                "published",
                Vip,
                &[],
                vec![backend("published.1", &["10.1.0.41"], Ready)],
            ),
            service(
                "back.end",
                "web",
                Vip,
                &["10.2.0.100"],
                vec![backend("web.1", &["10.2.0.1"], Ready)],
            ),
            service(
                "back.end",
                "db",
                Vip,
                &["10.2.0.101"],
                vec![backend("db.1", &["10.2.0.2"], Ready)],
            ),
        ]
        .into(),
    }
}

fn show(answer: &Answer) -> String {
    match answer {
        Answer::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Answer::Pointers(names) => names.join(" "),
        Answer::Empty => "empty".into(),
        Answer::OtherType => "other type".into(),
        Answer::Unknown => "unknown".into(),
    }
}

const FRONT: &str = "10.1.0.1";
const FRONT6: &str = "fd01::77";
const BACK: &str = "10.2.0.9";
const OUTSIDE: &str = "198.51.100.1";

#[test]
fn names_are_answered_as_the_rules_say() {
    let zone = Zone::compile(&snapshot());
    let table: &[(&str, &str, RecordType, &str)] = &[
        // A service with a VIP.
        (FRONT, "web", A, "10.1.0.100"),
        (FRONT, "web", AAAA, "fd01::100"),
        (FRONT6, "web", A, "10.1.0.100"),
        (FRONT, "WeB.", A, "10.1.0.100"),
        (FRONT, "web.front", A, "10.1.0.100"),
        (FRONT, "WEB.Front.", A, "10.1.0.100"),
        (FRONT, "www", A, "10.1.0.100"),
        (FRONT, "www.front", AAAA, "fd01::100"),
        // Types.
        (FRONT, "api", AAAA, "empty"),
        (FRONT, "web", MX, "empty"),
        (FRONT, "web", TXT, "other type"),
        (FRONT, "web", ANY, "other type"),
        (FRONT, "web", PTR, "other type"),
        // An alias of two services.
        (FRONT, "shared", A, "10.1.0.100 10.1.0.101"),
        (FRONT, "tasks.shared", A, "10.1.0.1 10.1.0.2 10.1.0.11"),
        // Tasks: ready ones; draining ones where there is no other.
        (FRONT, "tasks.web", A, "10.1.0.1 10.1.0.2"),
        (FRONT, "tasks.web", AAAA, "fd01::1"),
        (FRONT, "tasks.www.front", A, "10.1.0.1 10.1.0.2"),
        (FRONT, "tasks.leaving", A, "10.1.0.31"),
        (FRONT, "tasks.none", A, "empty"),
        (FRONT, "web.1", A, "10.1.0.1"),
        (FRONT, "web.3", A, "10.1.0.3"),
        (FRONT, "web.1.front", A, "10.1.0.1"),
        (FRONT, "web.9", A, "unknown"),
        (FRONT, "c0ffee012345", A, "10.1.0.1"),
        (FRONT, "c0ffee012345.front", AAAA, "fd01::1"),
        (FRONT, "tasks.c0ffee012345", A, "unknown"),
        (BACK, "c0ffee012345", A, "unknown"),
        (FRONT, "tasks.web.1", A, "unknown"),
        // Without a VIP.
        (FRONT, "rr", A, "10.1.0.21 10.1.0.22"),
        (FRONT, "rr", AAAA, "empty"),
        (FRONT, "leaving", A, "10.1.0.31"),
        (FRONT, "none", A, "empty"),
        (FRONT, "idle", A, "10.1.0.102"),
        (FRONT, "published", A, "10.1.0.41"),
        // Scope.
        (BACK, "web", A, "10.2.0.100"),
        (BACK, "web.back.end", A, "10.2.0.100"),
        (BACK, "tasks.web.back.end", A, "10.2.0.1"),
        (BACK, "web.1.back.end", A, "10.2.0.1"),
        (BACK, "web.front", A, "unknown"),
        (BACK, "api", A, "unknown"),
        (FRONT, "db", A, "unknown"),
        (FRONT, "db.back.end", A, "unknown"),
        (OUTSIDE, "web", A, "unknown"),
        (OUTSIDE, "tasks.web", A, "unknown"),
        (OUTSIDE, "web.1", A, "unknown"),
        (OUTSIDE, "web.front", A, "10.1.0.100"),
        (OUTSIDE, "db.back.end", A, "10.2.0.101"),
        (OUTSIDE, "tasks.rr.front", A, "10.1.0.21 10.1.0.22"),
        (OUTSIDE, "web.2.front", A, "10.1.0.2"),
        // Not ours.
        (FRONT, "example.com", A, "unknown"),
        (FRONT, "web.example.com", A, "unknown"),
        (FRONT, "front", A, "unknown"),
        (FRONT, "", A, "unknown"),
        (FRONT, ".", A, "unknown"),
        (FRONT, ".front", A, "unknown"),
        // Reverse.
        (FRONT, "1.0.1.10.in-addr.arpa", PTR, "web.1.front"),
        (FRONT, "3.0.1.10.IN-ADDR.ARPA.", PTR, "web.3.front"),
        (
            FRONT,
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa",
            PTR,
            "web.1.front",
        ),
        (FRONT, "1.0.1.10.in-addr.arpa", A, "unknown"),
        (FRONT, "0.1.10.in-addr.arpa", PTR, "unknown"),
        (FRONT, "100.0.1.10.in-addr.arpa", PTR, "unknown"),
        (FRONT, "1.0.2.10.in-addr.arpa", PTR, "unknown"),
        (BACK, "1.0.2.10.in-addr.arpa", PTR, "web.1.back.end"),
        (OUTSIDE, "1.0.2.10.in-addr.arpa", PTR, "web.1.back.end"),
        (FRONT, "300.0.1.10.in-addr.arpa", PTR, "unknown"),
    ];
    let wrong: Vec<_> = table
        .iter()
        .filter_map(|&(client, name, record_type, expected)| {
            let got = show(&zone.lookup(ip(client), name, record_type));
            (got != expected).then(|| format!("{client} {name} {record_type}: {got}, expected {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(zone.generation(), 7);
}

#[test]
fn an_alias_names_the_service_that_has_ready_tasks() {
    let mut snapshot = snapshot();
    for backend in &mut snapshot.services[1].backends {
        backend.state = BackendState::Draining;
    }
    let zone = Zone::compile(&snapshot);
    assert_eq!(show(&zone.lookup(ip(FRONT), "shared", A)), "10.1.0.100");
    assert_eq!(show(&zone.lookup(ip(FRONT), "api", A)), "10.1.0.101");
}

#[test]
fn a_service_hides_a_task_of_the_same_name() {
    let mut snapshot = snapshot();
    snapshot
        .services
        .push(service("front", "web.1", EndpointMode::Vip, &["10.1.0.200"], vec![]));
    let zone = Zone::compile(&snapshot);
    assert_eq!(show(&zone.lookup(ip(FRONT), "web.1", A)), "10.1.0.200");
}

#[test]
fn the_most_specific_subnet_goes_first_and_names_settle_ties() {
    let mut snapshot = snapshot();
    snapshot.networks.push(network("inner", 3, &["10.1.0.0/28"]));
    snapshot.networks.push(network("also", 4, &["10.1.0.0/24"]));
    snapshot
        .services
        .push(service("inner", "web", EndpointMode::Vip, &["10.1.0.14"], vec![]));
    snapshot
        .services
        .push(service("also", "web", EndpointMode::Vip, &["10.1.0.250"], vec![]));
    let zone = Zone::compile(&snapshot);
    let names = |client| -> Vec<_> {
        zone.scope(ip(client))
            .iter()
            .map(|&i| zone.networks[i].name.clone())
            .collect()
    };
    assert_eq!(names("10.1.0.1"), ["inner", "also", "front"]);
    assert_eq!(show(&zone.lookup(ip("10.1.0.1"), "web", A)), "10.1.0.14");
    assert_eq!(show(&zone.lookup(ip("10.1.0.77"), "web", A)), "10.1.0.250");
    assert_eq!(show(&zone.lookup(ip("10.1.0.77"), "web.front", A)), "10.1.0.100");
    assert_eq!(show(&zone.lookup(ip("10.1.0.77"), "api", A)), "10.1.0.101");
}

#[test]
fn nodes_and_workloads_are_served_and_strangers_are_not() {
    let zone = Zone::compile(&snapshot());
    for (client, expected) in [
        (FRONT, true),
        (FRONT6, true),
        ("192.0.2.1", true),
        (OUTSIDE, false),
        ("::1", false),
    ] {
        assert_eq!(zone.serves(ip(client)), expected, "{client}");
    }
}

#[test]
fn the_empty_zone_knows_nothing() {
    let zone = Zone::default();
    assert!(zone.is_empty());
    assert_eq!(zone.lookup(ip(FRONT), "web", A), Answer::Unknown);
    assert_eq!(zone.lookup(ip(FRONT), "1.0.1.10.in-addr.arpa", PTR), Answer::Unknown);
}

const WORDS: [&str; 8] = ["web", "api", "db", "tasks.web", "web.1", "net0", "net1.x", "Web"];

/// Networks with an own /16 each (10.N.0.0 and fdNN::), whose services hold addresses of it, with colliding names.
fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let word = || prop::sample::select(WORDS.as_slice());
    let backend = (word(), 0u8..8, any::<bool>(), any::<bool>());
    let service = (
        word(),
        0usize..3,
        any::<bool>(),
        prop::collection::vec(word(), 0..3),
        (any::<bool>(), any::<bool>()),
        prop::collection::vec(backend, 0..4),
    );
    prop::collection::vec(service, 0..12).prop_map(|services| {
        let name = |n: usize| if n == 0 { format!("net{n}") } else { format!("net{n}.x") };
        let mut snapshot = Snapshot {
            networks: (0..3)
                .map(|n| {
                    network(
                        &name(n),
                        n as u32 + 1,
                        &[&format!("10.{n}.0.0/16"), &format!("fd0{n}::/16")],
                    )
                })
                .collect(),
            ..Snapshot::default()
        };
        for (index, (word, n, vip, aliases, families, backends)) in services.into_iter().enumerate() {
            let vips: Vec<_> = [
                families.0.then(|| format!("10.{n}.1.{index}")),
                families.1.then(|| format!("fd0{n}::1:{index}")),
            ]
            .into_iter()
            .flatten()
            .collect();
            let vips: Vec<_> = vips.iter().map(String::as_str).collect();
            let backends = backends.into_iter().map(|(word, host, v6, ready)| {
                let mut addresses = vec![format!("10.{n}.2.{host}")];
                if v6 {
                    addresses.push(format!("fd0{n}::2:{host}"));
                }
                let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
                let state = if ready {
                    BackendState::Ready
                } else {
                    BackendState::Draining
                };
                self::backend(word, &addresses, state)
            });
            let mode = if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr };
            let mut service = self::service(&name(n), word, mode, &vips, backends.collect());
            service.aliases = aliases.into_iter().map(str::to_owned).collect();
            snapshot.services.push(service);
        }
        snapshot
    })
}

fn in_network(n: usize, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[..2] == [10, n as u8],
        IpAddr::V6(a) => a.segments()[0] == 0xfd00 + n as u16,
    }
}

proptest! {
    /// Whatever the snapshots between: a zone that followed them answers as one that was made from the last.
    #[test]
    fn following_is_compiling(snapshots in prop::collection::vec(any_snapshot(), 1..5)) {
        let mut zone = Zone::default();
        let mut before = Services::default();
        for mut snapshot in snapshots {
            snapshot.services.share(&before);
            before = snapshot.services.clone();
            zone = zone.follow(&snapshot);
            let fresh = Zone::compile(&snapshot);
            prop_assert_eq!(zone.len(), fresh.len());
            for client in [ip("10.0.9.9"), ip("10.1.9.9"), ip("10.2.9.9"), ip(OUTSIDE)] {
                for name in WORDS {
                    for name in [name.to_owned(), format!("tasks.{name}"), format!("{name}.net0"), format!("{name}.net1.x")] {
                        for record_type in [A, AAAA, MX] {
                            prop_assert_eq!(
                                zone.lookup(client, &name, record_type), fresh.lookup(client, &name, record_type)
                            );
                        }
                    }
                }
                for host in 0..8 {
                    let name = format!("{host}.2.1.10.in-addr.arpa");
                    prop_assert_eq!(zone.lookup(client, &name, PTR), fresh.lookup(client, &name, PTR));
                }
            }
        }
    }

    #[test]
    fn no_answer_ever_leaves_the_clients_network(
        snapshot in any_snapshot(),
        n in 0usize..3,
        name in prop::collection::vec(prop::sample::select(WORDS.as_slice()), 1..4),
        record_type in prop::sample::select([A, AAAA, PTR, MX].as_slice()),
    ) {
        let zone = Zone::compile(&snapshot);
        if let Answer::Addresses(addresses) = zone.lookup(ip(&format!("10.{n}.9.9")), &name.join("."), record_type) {
            prop_assert!(!addresses.is_empty());
            for address in addresses {
                prop_assert!(in_network(n, address), "{address} is not in network {n}");
                prop_assert_eq!(address.is_ipv4(), record_type == A);
            }
        }
    }

    #[test]
    fn no_reverse_answer_names_another_network(snapshot in any_snapshot(), n in 0usize..3, of in 0usize..3, host in 0u8..8) {
        let zone = Zone::compile(&snapshot);
        let answer = zone.lookup(ip(&format!("10.{n}.9.9")), &format!("{host}.2.{of}.10.in-addr.arpa"), PTR);
        let exists = snapshot.services.iter().flat_map(|s| &s.backends)
            .any(|b| b.addresses.contains(&ip(&format!("10.{of}.2.{host}"))));
        prop_assert_eq!(matches!(answer, Answer::Pointers(_)), n == of && exists);
    }

    #[test]
    fn draining_tasks_are_answered_only_when_none_is_ready(snapshot in any_snapshot()) {
        let zone = Zone::compile(&snapshot);
        for service in snapshot.services.iter().filter(|s| s.mode == EndpointMode::Dnsrr && s.name == "db") {
            let client = snapshot.networks.iter().find(|n| n.name == service.network).unwrap().subnets[0].addr();
            // Every service that answers to this name in this network has a say.
            let answering: Vec<_> = snapshot.services.iter()
                .filter(|s| s.network == service.network)
                .filter(|s| s.name == "db" || s.aliases.iter().any(|a| a == "db")).collect();
            let of = |state| -> Vec<IpAddr> {
                let backends = answering.iter().flat_map(|s| &s.backends).filter(|b| b.state == state);
                let mut list: Vec<_> = backends.flat_map(|b| b.addresses.clone()).filter(IpAddr::is_ipv4).collect();
                list.sort();
                list.dedup();
                list
            };
            let (ready, draining) = (of(BackendState::Ready), of(BackendState::Draining));
            let expected = if !ready.is_empty() { Answer::Addresses(ready) }
                else if !draining.is_empty() { Answer::Addresses(draining) } else { Answer::Empty };
            prop_assert_eq!(zone.lookup(client, "tasks.db", A), expected);
        }
    }
}
