//! Published ports as the nodes themselves and their containers use them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_tests::client::{ask_udp, get, tally};

use super::{ask_seen, ask_udp_seen, assert_even, balanced};

/// Two tasks, and node3 has none.
const OPTIONS: [&str; 8] = [
    "--replicas",
    "2",
    "--constraint",
    "node.hostname!=node3",
    "--publish",
    "80",
    "--publish",
    "80/udp",
];

#[test]
fn a_nodes_own_processes_are_answered() {
    let Some(swarm) = balanced() else { return };
    let web = swarm.service("web", &OPTIONS).unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    let (tcp, udp) = (web.published("tcp", 80).unwrap(), web.published("udp", 80).unwrap());
    for node in swarm.nodes() {
        // By its own address they are seen as the node.
        let own = node.address();
        let answers = || (0..10).map(|_| ask_seen(SocketAddr::new(own, tcp))).collect();
        assert_even(node.netns().run(answers), &tasks);
        let answers = || (0..10).map(|_| ask_udp_seen(SocketAddr::new(own, udp))).collect();
        assert_even(node.netns().run(answers), &tasks);
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let answers = || (0..10).map(|_| get(SocketAddr::new(local, tcp))).collect();
        assert_even(node.netns().run(answers), &tasks);
        let answers = || (0..10).map(|_| ask_udp(SocketAddr::new(local, udp))).collect();
        assert_even(node.netns().run(answers), &tasks);
    }
}

#[test]
fn containers_are_answered_by_every_node_also_by_their_own() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let web = swarm.service("web", &OPTIONS).unwrap();
    let callers = swarm
        .service("caller", &["--mode", "global", "--network", network.name()])
        .unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    let port = web.published("tcp", 80).unwrap();
    for caller in callers.wait_running(swarm.nodes().len()).unwrap() {
        for node in swarm.nodes() {
            let target = SocketAddr::new(node.address(), port);
            let answers = caller.within(&swarm, || (0..10).map(|_| get(target)).collect::<Vec<_>>());
            let counts = tally(answers.unwrap());
            assert_eq!(counts.len(), tasks.len(), "{} to {target}: {counts:?}", caller.name);
            assert_eq!(counts.values().sum::<usize>(), 10, "{counts:?}");
        }
    }
}
