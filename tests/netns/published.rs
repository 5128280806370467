//! Published ports: answered on every node, evenly, and the backend sees the client.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::client::{Connection, get, tally};
use lb_tests::cluster::{Cluster, Family, Spec};
use lb_tests::traffic::{Style, Traffic};

use super::{ask_seen, ask_udp_seen, assert_even, shared};

#[test]
fn every_node_answers_and_the_backend_sees_the_client() {
    let Some(cluster) = shared() else { return };
    answers_everywhere(&cluster);
}

pub(crate) fn answers_everywhere(cluster: &Cluster) {
    // Node 2 runs none of them.
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    for family in Family::BOTH {
        for target in web.on_every_node(family) {
            for client in cluster.clients() {
                let answers = (0..4).map(|_| ask_seen(client.netns(), target));
                assert_even(&tally(answers), &web.backends());
            }
        }
    }
}

#[test]
fn udp_is_answered_on_every_node() {
    let Some(cluster) = shared() else { return };
    udp_answers_everywhere(&cluster);
}

pub(crate) fn udp_answers_everywhere(cluster: &Cluster) {
    let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
    for family in Family::BOTH {
        for target in time.on_every_node(family) {
            let answers = (0..6).map(|_| ask_udp_seen(cluster.client(0).netns(), target));
            assert_even(&tally(answers), &time.backends());
        }
    }
}

#[test]
fn round_robin_is_exact_for_one_client() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 0, 1])).unwrap();
    for (node, target) in web.on_every_node(Family::V4).into_iter().enumerate() {
        // Runs of every length, each from wherever the last one ended.
        for length in [1, 2, 5, 9, 20] {
            let counts = cluster
                .client(0)
                .netns()
                .run(|| tally((0..length).map(|_| get(target))));
            let (min, max) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            let missing = counts.len() < length.min(3);
            assert!(
                !missing && max - min <= 1,
                "{length} connections to node {node}: {counts:?}"
            );
        }
    }
}

#[test]
fn round_robin_is_exact_for_parallel_clients() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1, 1])).unwrap();
    for target in web.on_every_node(Family::V4) {
        let flood = cluster
            .clients()
            .iter()
            .map(|client| Traffic::start(client.netns(), &[target], 3, Style::NewConnection));
        let flood: Vec<_> = flood.collect();
        flood.iter().for_each(|traffic| traffic.flow(60));
        let mut counts = std::collections::BTreeMap::new();
        for report in flood.into_iter().map(Traffic::stop) {
            assert_eq!(report.failures, [], "{target}");
            for (backend, count) in report.answered {
                *counts.entry(backend).or_insert(0) += count;
            }
        }
        assert_even(&counts, &web.backends());
    }
}

#[test]
fn a_workload_reaches_a_published_port() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    for family in Family::BOTH {
        for network in ["shop", "blog"] {
            for target in web.on_every_node(family) {
                let here = cluster.workload(0, network).netns();
                let counts = here.run(|| tally((0..4).map(|_| get(target))));
                assert_even(&counts, &web.backends());
            }
        }
    }
}

#[test]
fn a_backend_reaches_its_own_published_port() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    for family in Family::BOTH {
        for target in web.on_every_node(family) {
            let here = cluster.workload(0, "shop").netns();
            let counts = here.run(|| tally((0..3).map(|_| get(target))));
            assert_even(&counts, &web.backends());
        }
    }
}

#[test]
fn one_client_port_to_several_nodes_at_a_time() {
    // All lead to one backend, where their tuples would be one and the same.
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[1])).unwrap();
    let client = cluster.client(0);
    let start = Instant::now();
    for family in Family::BOTH {
        let source = SocketAddr::new(client.address(family), 45_000);
        client.netns().run(|| {
            let targets = web.on_every_node(family);
            let open = |target: &SocketAddr| {
                Connection::open_from(source, *target).unwrap_or_else(|error| panic!("{target}: {error}"))
            };
            let mut connections: Vec<_> = targets.iter().map(open).collect();
            let peers: BTreeSet<_> = connections
                .iter_mut()
                .map(|connection| connection.ask().unwrap().peer)
                .collect();
            assert_eq!(peers.len(), targets.len(), "the backend sees {peers:?}");
            assert!(peers.iter().all(|peer| peer.ip() == source.ip()), "{peers:?}");
        });
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "took {:?}: something was sent twice",
        start.elapsed()
    );
}

#[test]
fn a_port_that_is_used_again_at_once_makes_a_new_connection() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let client = cluster.client(0);
    for family in Family::BOTH {
        let source = SocketAddr::new(client.address(family), 45_001);
        for target in web.on_every_node(family) {
            let start = Instant::now();
            client.netns().run(|| {
                for round in 0..6 {
                    let answer = Connection::open_from(source, target).and_then(|mut connection| connection.ask());
                    let answer = answer.unwrap_or_else(|error| panic!("{target}, round {round}: {error}"));
                    assert_eq!(answer.peer, source);
                }
            });
            assert!(
                start.elapsed() < Duration::from_millis(900),
                "took {:?}: something was sent twice",
                start.elapsed()
            );
        }
    }
}

#[test]
fn a_port_that_nobody_publishes_is_refused_by_the_node() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let error = cluster
            .client(0)
            .netns()
            .run(|| get(cluster.node(0).published(family, 6999)))
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
