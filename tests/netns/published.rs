//! Published ports: answered on every node, evenly, and the backend sees the client.

use std::time::{Duration, Instant};

use lb_tests::client::{get, tally};
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
fn the_same_backends_behind_two_published_ports() {
    // One client port towards two frontends that lead to one backend: the tuples would be one.
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[1])).unwrap();
    let client = cluster.client(0);
    let start = Instant::now();
    for family in Family::BOTH {
        let targets = web.on_every_node(family);
        let bound = |target| {
            let domain = if family == Family::V4 {
                socket2::Domain::IPV4
            } else {
                socket2::Domain::IPV6
            };
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&std::net::SocketAddr::new(client.address(family), 45_000).into())?;
            socket.connect_timeout(&std::net::SocketAddr::into(target), Duration::from_secs(2))?;
            std::io::Result::Ok(std::net::TcpStream::from(socket))
        };
        client.netns().run(|| {
            // All at the same time, all from port 45000.
            let streams: Vec<_> = targets
                .iter()
                .map(|target| bound(*target).unwrap_or_else(|error| panic!("{target} from port 45000: {error}")))
                .collect();
            for stream in streams {
                let answer = lb_tests::client::Connection::from(stream).ask().unwrap();
                assert_eq!(answer.peer.ip(), client.address(family));
            }
        });
    }
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "took {:?}: something was sent twice",
        start.elapsed()
    );
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
