//! Published ports as processes of the nodes use them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_tests::client::{ask_udp, get};

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
