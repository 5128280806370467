//! What holds for every cluster: isolation, what draining means, and that following a change is compiling anew.

use proptest::prelude::*;

use super::*;

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
                cluster::backend(word, &addresses, state)
            });
            let mode = if vip { EndpointMode::Vip } else { EndpointMode::Dnsrr };
            let mut service = cluster::service(&name(n), word, mode, &vips, backends.collect());
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
