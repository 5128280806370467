//! The naming rules as a table.

use super::*;

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
