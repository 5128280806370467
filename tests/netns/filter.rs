//! Published ports that answer some clients and not others.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lb_tests::client::{Connection, get};
use lb_tests::cluster::{Cluster, Family, Host, Spec};
use lb_tests::evidence;

use super::{ask_seen, shared};

/// A denied SYN is dropped, so the client hears nothing.
fn silent(client: &Host, target: SocketAddr) -> bool {
    let outcome = client
        .netns()
        .run(|| TcpStream::connect_timeout(&target, Duration::from_millis(600)));
    matches!(outcome, Err(e) if e.kind() == std::io::ErrorKind::TimedOut)
}

fn denied(cluster: &Cluster) -> u64 {
    let metrics = cluster.nodes().iter().map(|node| node.metrics("/metrics").unwrap());
    let count = |text: &str| -> u64 {
        let lines = text
            .lines()
            .filter(|line| line.contains("source_denied") && line.contains("packets"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    metrics.map(|text| count(&text)).sum()
}

#[test]
fn only_allowed_clients_are_answered_on_every_node() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let (friend, other) = (cluster.client(0), cluster.client(1));
    let of = |host: &Host, family| {
        let bits = if family == Family::V4 { 32 } else { 128 };
        format!("{}/{bits}", host.address(family))
    };
    // It opened its connection while everybody could.
    let mut old = other
        .netns()
        .run(|| Connection::open(web.on_node(0, Family::V4)))
        .unwrap();
    old.ask().unwrap();
    let before = denied(&cluster);
    web.change(|service| service.allow = Family::BOTH.map(|family| of(friend, family)).to_vec())
        .unwrap();
    for family in Family::BOTH {
        for target in web.on_every_node(family) {
            ask_seen(friend.netns(), target).unwrap();
            assert!(silent(other, target), "{target} answers a client that is not allowed");
            evidence::record(
                "isolation",
                "published ports that were silent to whom they do not allow",
                1,
            );
        }
        // Inside the network nobody is asked for.
        let workload = cluster.workload(0, "shop").netns();
        workload.run(|| get(web.vip(family))).unwrap();
    }
    assert!(denied(&cluster) > before, "what is denied is counted");
    old.ask().expect("a flow that is there goes on");
    web.change(|service| {
        service.allow.clear();
        service.deny = vec![of(friend, Family::V4)];
    })
    .unwrap();
    for target in web.on_every_node(Family::V4) {
        assert!(silent(friend, target), "{target} answers a client that is denied");
        ask_seen(other.netns(), target).unwrap();
    }
    web.change(|service| service.deny.clear()).unwrap();
    for target in web.on_every_node(Family::V4) {
        ask_seen(friend.netns(), target).unwrap();
    }
}
