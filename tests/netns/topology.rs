//! The harness itself: machines and workloads reach each other as the drawing says, with no service involved.

use std::time::Duration;

use lb_tests::client::{get, ping};
use lb_tests::cluster::{Cluster, Family};
use lb_tests::netns::Netns;
use lb_tests::server::Server;

use super::{require, shared};

const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn namespaces_are_apart_and_go_when_dropped() {
    if !require::datapath() {
        return;
    }
    let [one, two] = ["one", "two"].map(|role| Netns::new(role).unwrap());
    one.veth("eth0", &two, "eth0").unwrap();
    one.ip("address add 10.0.0.1/24 dev eth0\nlink set eth0 up").unwrap();
    two.ip("address add 10.0.0.2/24 dev eth0\nlink set eth0 up").unwrap();
    let address = "10.0.0.2".parse().unwrap();
    let _server = Server::start(&two, "two", &[address], 80).unwrap();
    let answer = one.run(|| get((address, 80).into())).unwrap();
    assert_eq!(
        (answer.backend.as_str(), answer.peer.ip().to_string().as_str()),
        ("two", "10.0.0.1")
    );
    let error = one.ip("link add eth0 type nonsense").unwrap_err();
    assert!(format!("{error:#}").contains("nonsense"), "{error:#}");

    let name = one.name().to_owned();
    assert!(one.output("ip", &["netns", "list"]).unwrap().contains(&name));
    drop(one);
    assert!(!two.output("ip", &["netns", "list"]).unwrap().contains(&name));
}

#[test]
fn traffic_of_no_service_is_left_alone() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let client = cluster.client(0).netns();
        let here = cluster.workload(0, "shop");
        for node in 0..3 {
            let address = cluster.node(node).address(family);
            client
                .run(|| ping(address, PATIENCE))
                .unwrap_or_else(|error| panic!("client to {address}: {error}"));
            here.netns()
                .run(|| ping(address, PATIENCE))
                .unwrap_or_else(|error| panic!("to {address}: {error}"));
            for workload in cluster.workloads(node, "shop") {
                let address = workload.address(family);
                let reached = here.netns().run(|| ping(address, PATIENCE));
                reached.unwrap_or_else(|error| panic!("{} to {}: {error}", here.name(), workload.name()));
            }
        }
        // A node's own server, and a backend spoken to directly.
        let node = cluster.node(1);
        let own = Server::start(node.netns(), "own", &[node.address(family)], 7000).unwrap();
        assert_eq!(client.run(|| get(node.published(family, 7000))).unwrap().backend, "own");
        drop(own);
        let there = cluster.workload(2, "shop");
        let _direct = Server::start(there.netns(), "direct", &[there.address(family)], 7001).unwrap();
        let answer = here.netns().run(|| get((there.address(family), 7001).into())).unwrap();
        assert_eq!(
            (answer.backend.as_str(), answer.peer.ip()),
            ("direct", here.address(family))
        );
    }
}

#[test]
fn a_dropped_cluster_leaves_nothing() {
    if !require::datapath() {
        return;
    }
    let cluster = Cluster::builder().nodes(1).clients(1).start().unwrap();
    let names = [
        cluster.node(0).netns().name(),
        cluster.client(0).netns().name(),
        cluster.underlay().name(),
    ];
    let names = names.map(str::to_owned);
    let directory = cluster.file().parent().unwrap().to_owned();
    let pid = cluster.node(0).agent().pid().unwrap();
    drop(cluster);
    for name in names {
        assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name}");
    }
    assert!(!directory.exists(), "{}", directory.display());
    assert!(
        !std::path::Path::new("/proc").join(pid.to_string()).exists(),
        "agent {pid}"
    );
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(directory.to_str().unwrap()), "{mounts}");
}
