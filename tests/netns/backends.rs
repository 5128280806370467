//! Backends come, drain, go, weigh more or less, or are not there at all.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::client::{Connection, Udp, ask_udp, get, tally};
use lb_tests::cluster::{Cluster, Deployed, Family, Spec};
use lb_tests::netns::Netns;
use lb_tests::traffic::{Style, Traffic};

use super::{assert_even, shared};

/// Who can speak to a service, and where: a client to a node without a backend and to one with, a workload to the VIP.
pub(super) fn ways<'a>(cluster: &'a Cluster, service: &Deployed<'_>, family: Family) -> [(&'a Netns, SocketAddr); 3] {
    let client = cluster.client(0).netns();
    [
        (client, service.on_node(2, family)),
        (client, service.on_node(0, family)),
        (cluster.workloads(2, "shop")[1].netns(), service.vip(family)),
    ]
}

/// One kept connection to each backend, with its backend's name.
pub(super) fn connect_to_each(target: SocketAddr, backends: &[String]) -> Vec<(String, Connection)> {
    let connections = backends.iter().map(|_| {
        let mut connection = Connection::open(target).unwrap();
        (connection.ask().unwrap().backend, connection)
    });
    let connections: Vec<_> = connections.collect();
    for backend in backends {
        assert!(
            connections.iter().any(|(name, _)| name == backend),
            "no connection to {backend}"
        );
    }
    connections
}

/// As [`connect_to_each`], from everybody who can speak to the service.
pub(super) fn connect_everybody<'a>(
    cluster: &'a Cluster,
    service: &Deployed<'_>,
    family: Family,
) -> Vec<(&'a Netns, String, Connection)> {
    let backends = service.backends();
    let connect = |(netns, target): (&'a Netns, SocketAddr)| {
        let connections = netns.run(|| connect_to_each(target, &backends)).into_iter();
        connections.map(move |(name, connection)| (netns, name, connection))
    };
    ways(cluster, service, family).into_iter().flat_map(connect).collect()
}

#[test]
fn weights_are_shares_of_new_connections() {
    let Some(cluster) = shared() else { return };
    let web = cluster
        .deploy(Spec::tcp().published().weighted(0, 3).weighted(1, 1).weighted(1, 2))
        .unwrap();
    let names = web.backends();
    for (netns, target) in ways(&cluster, &web, Family::V4) {
        let mut order = Vec::new();
        netns.run(|| order.extend((0..24).map(|_| get(target).unwrap().backend)));
        let count = |name: &String| order.iter().filter(|other| *other == name).count();
        let counts: Vec<_> = names.iter().map(count).collect();
        assert_eq!(counts, [12, 4, 8], "of 24 to {target}");
        // Smooth: a backend of half the weight never has more than two in a row.
        let longest = order.chunk_by(|a, b| a == b).map(<[_]>::len).max();
        assert!(longest <= Some(2), "in bursts: {order:?}");
    }
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_no_new_one() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        let names = web.backends();
        let mut kept = connect_everybody(&cluster, &web, family);
        web.drain(&names[0]).unwrap();
        for (netns, target) in ways(&cluster, &web, family) {
            let counts = netns.run(|| tally((0..6).map(|_| get(target))));
            assert_even(&counts, &names[1..]);
        }
        for (_, name, connection) in &mut kept {
            for _ in 0..5 {
                assert_eq!(connection.ask().unwrap().backend, *name);
            }
        }
    }
}

#[test]
fn connections_of_a_removed_backend_are_reset_at_once() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        let names = web.backends();
        let mut kept = connect_everybody(&cluster, &web, family);
        web.remove(&names[0]).unwrap();
        web.wait_until_gone(&names[0]).unwrap();
        for (_, name, connection) in &mut kept {
            let start = Instant::now();
            let answer = connection.ask();
            if *name == names[0] {
                let error = answer.expect_err("a removed backend answers");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                assert!(
                    start.elapsed() < Duration::from_millis(500),
                    "after {:?}",
                    start.elapsed()
                );
            } else {
                assert_eq!(answer.unwrap().backend, *name);
            }
        }
    }
}

#[test]
fn a_connection_that_one_backend_refuses_is_taken_by_another_at_once() {
    const TRIES: usize = 8;
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        let names = web.backends();
        web.stop(&names[0]);
        for (netns, target) in ways(&cluster, &web, family) {
            let start = Instant::now();
            let counts = netns.run(|| tally((0..TRIES).map(|_| get(target))));
            assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(names[1].clone(), TRIES)]);
            // Every second one was refused first; a SYN that is merely lost is sent again after a second.
            let took = start.elapsed();
            assert!(took < Duration::from_secs(TRIES as u64 / 2), "{target}: {took:?}");
        }
        web.stop(&names[1]);
        for (netns, target) in ways(&cluster, &web, family) {
            let refused = netns.run(|| get(target)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{target}");
        }
    }
}

#[test]
fn udp_moves_at_once() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        for change in [Deployed::drain, Deployed::remove] {
            let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
            for (netns, target) in ways(&cluster, &time, family) {
                let socket = netns.run(|| Udp::open(target).unwrap());
                let patience = Duration::from_secs(1);
                let first = socket.ask(patience).unwrap().backend;
                assert_eq!(socket.ask(patience).unwrap().backend, first, "a flow keeps its backend");
                change(&time, &first).unwrap();
                let second = socket
                    .ask(patience)
                    .unwrap_or_else(|error| panic!("{target}: {error}"))
                    .backend;
                assert_ne!(second, first);
                let back = |entry: &mut lb_tests::cluster::Backend| entry.state = "ready";
                time.change(|service| service.backend.iter_mut().for_each(back))
                    .unwrap();
                if time.document().backend.len() < 2 {
                    break;
                }
            }
        }
    }
}

#[test]
fn without_a_backend_clients_are_refused_at_once() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[1])).unwrap();
    let time = cluster.deploy(Spec::udp().published().on(&[1])).unwrap();
    for family in Family::BOTH {
        for (netns, target) in ways(&cluster, &web, family) {
            netns.run(|| get(target)).unwrap();
        }
    }
    web.remove(&web.backends()[0]).unwrap();
    time.remove(&time.backends()[0]).unwrap();
    for family in Family::BOTH {
        for (netns, target) in ways(&cluster, &web, family) {
            let start = Instant::now();
            let error = netns.run(|| get(target)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}: {error}");
            assert!(
                start.elapsed() < Duration::from_millis(500),
                "{target}: after {:?}",
                start.elapsed()
            );
        }
        for (netns, target) in ways(&cluster, &time, family) {
            let error = netns.run(|| ask_udp(target)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target} udp: {error}");
        }
    }
}

#[test]
fn backends_come_and_drain_under_traffic_without_a_failed_request() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let names = web.backends();
    let outside = cluster.client(0).netns();
    let inside = cluster.workloads(2, "shop")[1].netns();
    let traffic = [
        Traffic::start(outside, &web.on_every_node(Family::V4), 2, Style::NewConnection),
        Traffic::start(outside, &web.on_every_node(Family::V6), 1, Style::KeepAlive),
        Traffic::start(inside, &[web.vip(Family::V4)], 1, Style::NewConnection),
    ];
    let flow = |count| traffic.iter().for_each(|traffic| traffic.flow(count));
    flow(50);
    let third = web.add(2).unwrap();
    flow(50);
    web.drain(&names[0]).unwrap();
    flow(50);
    for report in traffic.map(Traffic::stop) {
        report.assert_unnoticed();
        assert!(
            report.answered.len() == 1 || report.answered.contains_key(&third),
            "{:?}",
            report.answered
        );
    }
}
