//! Honest clients that fill flow tables by themselves, with connections that are closed and not yet forgotten.

use std::time::Duration;

use lb_tests::cluster::{Cluster, Family, Node, Spec};
use lb_tests::evidence;
use lb_tests::traffic::{Style, Traffic};

use super::own;

/// Entries of each flow table: some seconds' worth of connections.
const FLOWS: u32 = 1024;

/// Packets that a node has discarded, by reason, where there are any.
fn drops(node: &Node) -> Vec<String> {
    let metrics = node.metrics("/metrics").unwrap();
    let drops = metrics.lines().filter(|line| line.starts_with("lb_drops"));
    drops.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

/// A client uses a port again for another node as soon as it likes. The backend is the same, and there the way back to its
/// connection of before is still written down, in whichever table that was.
#[test]
fn tables_that_fill_lose_no_syn() {
    let Some(cluster) = own(Cluster::builder().tables(FLOWS, 4096)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let client = cluster.client(0).netns();
    client.sysctl("ipv4.ip_local_port_range", "20000 21999").unwrap();
    let traffic = Traffic::start(client, &web.on_every_node(Family::V4), 4, Style::NewConnection);
    for _ in 0..8 {
        traffic.flow(500);
    }
    let report = traffic.stop();
    let drops: Vec<_> = cluster.nodes().iter().map(drops).collect();
    println!(
        "{} answers, slowest {:?}; dropped: {drops:?}",
        report.ok(),
        report.slowest
    );
    let full = cluster.nodes().iter().filter(|node| {
        let metrics = node.metrics("/metrics").unwrap();
        metrics.lines().any(|line| line == "lb_flow_pressure 1.0")
    });
    assert!(full.count() > 0, "no table was ever full");
    assert_eq!(report.failures, []);
    assert_eq!(
        drops,
        [const { Vec::<String>::new() }; 3],
        "slowest {:?}",
        report.slowest
    );
    // A lost SYN is sent again after a second, and the request succeeds all the same.
    assert!(
        report.slowest < Duration::from_millis(900),
        "{:?}: sent twice?",
        report.slowest
    );
    evidence::record(
        "full-tables",
        "connections that filled tables of 1024 flows, no SYN lost",
        report.ok() as u64,
    );
}
