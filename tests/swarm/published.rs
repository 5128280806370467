//! Ports that a Swarm publishes, on every node.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lb_tests::client::{Answer, Connection, ask_udp, get, tally};
use lb_tests::swarm::{Service, Swarm};

use super::{ask_seen, ask_udp_seen, assert_even, balanced};

/// How long a change may take from the manager to every node: two polls of the manager's tasks, and some.
const CHANGE: Duration = Duration::from_secs(2);
/// No task is on node3.
const ELSEWHERE: [&str; 2] = ["--constraint", "node.hostname!=node3"];

/// A published port of a service, at every node.
fn everywhere(swarm: &Swarm, web: &Service<'_>, protocol: &str, target: u16) -> Vec<SocketAddr> {
    let port = web.published(protocol, target).unwrap();
    at(swarm, port)
}

fn at(swarm: &Swarm, port: u16) -> Vec<SocketAddr> {
    swarm
        .nodes()
        .iter()
        .map(|node| SocketAddr::new(node.address(), port))
        .collect()
}

#[test]
fn every_node_answers_with_the_clients_own_address_and_equal_shares() {
    let Some(swarm) = balanced() else { return };
    let options = [
        &["--replicas", "4", "--publish", "80", "--publish", "80/udp"][..],
        &ELSEWHERE,
    ]
    .concat();
    let web = swarm.service("web", &options).unwrap();
    let tasks = swarm.wait_serving(&web, 4).unwrap();
    let client = swarm.client(0).netns();
    for target in everywhere(&swarm, &web, "tcp", 80) {
        assert_even(client.run(|| (0..30).map(|_| ask_seen(target)).collect()), &tasks);
    }
    for target in everywhere(&swarm, &web, "udp", 80) {
        assert_even(client.run(|| (0..30).map(|_| ask_udp_seen(target)).collect()), &tasks);
    }
}

#[test]
fn every_run_of_connections_is_shared_evenly() {
    let Some(swarm) = balanced() else { return };
    let web = swarm.service("web", &["--replicas", "3", "--publish", "80"]).unwrap();
    swarm.wait_serving(&web, 3).unwrap();
    for target in everywhere(&swarm, &web, "tcp", 80) {
        // Runs of every length, each from wherever the last one ended.
        for length in [1, 2, 5, 9, 20] {
            let counts = swarm.client(0).netns().run(|| tally((0..length).map(|_| get(target))));
            let (min, max) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            let missing = counts.len() < length.min(3);
            assert!(
                !missing && max - min <= 1,
                "{length} connections to {target}: {counts:?}"
            );
        }
    }
}

#[test]
fn a_service_publishes_several_ports_and_one_of_them_twice() {
    let Some(swarm) = balanced() else { return };
    let first = 20_000 + 2 * swarm.number();
    let publish = [first, first + 1].map(|port| format!("published={port},target=80"));
    let options = [
        &[
            "--replicas",
            "2",
            "--publish",
            &publish[0],
            "--publish",
            &publish[1],
            "--publish",
            "81",
        ][..],
        &ELSEWHERE,
    ]
    .concat();
    let web = swarm
        .service_running("web", &options, &["serve", "--port", "80", "--port", "81"])
        .unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    let other = web.published("tcp", 81).unwrap();
    let client = swarm.client(0).netns();
    for port in [first, first + 1, other] {
        for target in at(&swarm, port) {
            assert_even(client.run(|| (0..6).map(|_| ask_seen(target)).collect()), &tasks);
        }
    }
}

#[test]
fn one_client_port_may_speak_to_several_published_ports_and_nodes_at_a_time() {
    // All lead to one port of one task, where their tuples would be one and the same.
    let Some(swarm) = balanced() else { return };
    let first = 20_000 + 2 * swarm.number();
    let publish = [first, first + 1].map(|port| format!("published={port},target=80"));
    let web = swarm
        .service("web", &["--publish", &publish[0], "--publish", &publish[1]])
        .unwrap();
    swarm.wait_serving(&web, 1).unwrap();
    let client = swarm.client(0);
    let source = SocketAddr::new(client.address(), 45_000);
    let targets = [at(&swarm, first), at(&swarm, first + 1)].concat();
    let start = Instant::now();
    client.netns().run(|| {
        let open = |target: &SocketAddr| {
            Connection::open_from(source, *target).unwrap_or_else(|error| panic!("{target}: {error}"))
        };
        let mut connections: Vec<_> = targets.iter().map(open).collect();
        let peers: BTreeSet<_> = connections
            .iter_mut()
            .map(|connection| connection.ask().unwrap().peer)
            .collect();
        assert_eq!(peers.len(), targets.len(), "the task sees {peers:?}");
        assert!(peers.iter().all(|peer| peer.ip() == source.ip()), "{peers:?}");
    });
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "took {:?}",
        start.elapsed()
    );
}

#[test]
fn ports_in_host_mode_and_ports_of_nobody_are_left_alone() {
    let Some(swarm) = balanced() else { return };
    let port = 9000 + swarm.number();
    let publish = format!("published={port},target=80,mode=host");
    let web = swarm
        .service(
            "web",
            &[
                "--mode",
                "global",
                "--publish",
                &publish,
                "--constraint",
                "node.hostname!=node3",
            ],
        )
        .unwrap();
    let client = swarm.client(0);
    // To agents it is nothing: it is on no network of theirs.
    for task in web.wait_running(2).unwrap() {
        let target = SocketAddr::new(swarm.node(task.node.unwrap()).address(), port);
        for _ in 0..3 {
            let answer = client.netns().run(|| ask_seen(target)).unwrap();
            assert_eq!(
                (answer.backend, answer.peer.ip()),
                (task.name.clone(), client.address())
            );
        }
    }
    // No task is there, and nobody else lends one.
    let alone = [SocketAddr::new(swarm.node(2).address(), port)];
    for target in [&alone[..], &at(&swarm, 8999)].concat() {
        let error = client.netns().run(|| get(target)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}");
        let error = client.netns().run(|| ask_udp(target)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "udp {target}");
    }
}

#[test]
fn a_removed_service_is_refused_and_nobody_is_kept_waiting() {
    let Some(swarm) = balanced() else { return };
    let web = swarm
        .service("web", &["--replicas", "2", "--publish", "80", "--publish", "80/udp"])
        .unwrap();
    swarm.wait_serving(&web, 2).unwrap();
    let (tcp, udp) = (everywhere(&swarm, &web, "tcp", 80), everywhere(&swarm, &web, "udp", 80));
    let client = swarm.client(0).netns();
    client.run(|| tcp.iter().for_each(|target| drop(get(*target).unwrap())));
    web.remove().unwrap();
    let removed = Instant::now();
    for target in tcp {
        until_refused(client, || get(target), removed);
    }
    for target in udp {
        until_refused(client, || ask_udp(target), removed);
    }
}

/// Each request is answered or refused, at once; refused from some moment on.
fn until_refused(client: &lb_tests::netns::Netns, ask: impl Fn() -> io::Result<Answer> + Sync, change: Instant) {
    loop {
        let start = Instant::now();
        let result = client.run(&ask);
        let took = start.elapsed();
        assert!(took < Duration::from_millis(900), "{took:?}: {result:?}");
        match result {
            Ok(_) => assert!(change.elapsed() < CHANGE, "still answered after {:?}", change.elapsed()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_published_port_can_be_changed() {
    let Some(swarm) = balanced() else { return };
    let (old, new) = (21_000 + 2 * swarm.number(), 21_001 + 2 * swarm.number());
    let publish = format!("published={old},target=80");
    let web = swarm
        .service("web", &["--replicas", "2", "--publish", &publish])
        .unwrap();
    swarm.wait_serving(&web, 2).unwrap();
    let client = swarm.client(0).netns();
    client.run(|| get(at(&swarm, old)[2])).unwrap();

    let publish = format!("published={new},target=80");
    web.update(&["--publish-rm", "80", "--publish-add", &publish]).unwrap();
    web.wait_updated().unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    for (old, new) in at(&swarm, old).into_iter().zip(at(&swarm, new)) {
        assert_even(client.run(|| (0..8).map(|_| ask_seen(new)).collect()), &tasks);
        let error = client.run(|| get(old)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{old}");
    }
}

#[test]
fn tasks_reach_published_ports_of_their_own_node_and_of_others() {
    let Some(swarm) = balanced() else { return };
    let options = [&["--replicas", "2", "--publish", "80"][..], &ELSEWHERE].concat();
    let web = swarm.service("web", &options).unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    let targets = everywhere(&swarm, &web, "tcp", 80);
    for task in &tasks {
        for (index, target) in targets.iter().enumerate() {
            let answers = task.within(&swarm, || (0..4).map(|_| get(*target)).collect());
            assert_even(answers.unwrap(), &tasks);
            if Some(index) != task.node {
                // Docker lends it its node's address.
                let answer = task.within(&swarm, || get(*target)).unwrap().unwrap();
                let own = swarm.node(task.node.unwrap()).address();
                assert_eq!(answer.peer.ip(), own, "asked node{}", index + 1);
            }
        }
    }
}

#[test]
fn processes_of_every_node_reach_published_ports_also_at_localhost() {
    let Some(swarm) = balanced() else { return };
    let options = [&["--replicas", "2", "--publish", "80"][..], &ELSEWHERE].concat();
    let web = swarm.service("web", &options).unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    let port = web.published("tcp", 80).unwrap();
    let client = lb_tests::require::binary("lb-task").unwrap();
    for node in swarm.nodes() {
        let targets = [
            &everywhere(&swarm, &web, "tcp", 80)[..],
            &[([127, 0, 0, 1], port).into()],
        ]
        .concat();
        for target in targets {
            // A process of the node's, in its control group: this one only looks in.
            let ask = || {
                let body = node.output(client.to_str().unwrap(), &["get", &format!("http://{target}/")]);
                let body = body.map_err(|error| io::Error::other(format!("{}: {error:#}", node.name())))?;
                Answer::parse(body.as_bytes())
            };
            assert_even((0..4).map(|_| ask()).collect(), &tasks);
        }
    }
}
