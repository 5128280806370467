//! Ports that a Swarm publishes, on every node.

use std::net::SocketAddr;

use super::{ask_seen, ask_udp_seen, assert_even, balanced};

/// Requests to each node: of three tasks, all get their share.
const REQUESTS: usize = 30;

#[test]
fn every_node_answers_with_the_clients_own_address_and_equal_shares() {
    let Some(swarm) = balanced() else { return };
    let options = ["--replicas", "3", "--publish", "80", "--publish", "80/udp"];
    let web = swarm.service("web", &options).unwrap();
    let tasks = swarm.wait_serving(&web, 3).unwrap();
    let (tcp, udp) = (web.published("tcp", 80).unwrap(), web.published("udp", 80).unwrap());
    let client = swarm.client(0).netns();
    for node in swarm.nodes() {
        let target = SocketAddr::new(node.address(), tcp);
        assert_even(client.run(|| (0..REQUESTS).map(|_| ask_seen(target)).collect()), &tasks);
        let target = SocketAddr::new(node.address(), udp);
        assert_even(
            client.run(|| (0..REQUESTS).map(|_| ask_udp_seen(target)).collect()),
            &tasks,
        );
    }
}
