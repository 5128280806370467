//! A router between two nodes whose next link is narrower than the nodes' own.

use lb_tests::client::Connection;
use lb_tests::cluster::{Cluster, Family, Spec};
use lb_tests::evidence;
use lb_tests::lbctl;
use lb_tests::netns::Netns;

use super::own;

/// More than windows hold.
const BODY: usize = 1 << 20;
const NARROW: u32 = 1300;

/// Leads what `from` sends to `to` over a machine that takes [`NARROW`] bytes at once; its own link is as wide as before.
fn detour(cluster: &Cluster, from: usize, to: usize, router: &Netns) {
    for family in Family::BOTH {
        let bits = if family == Family::V4 { 32 } else { 128 };
        let target = cluster.node(to).address(family);
        let via = cluster.client(1).address(family);
        let from = cluster.node(from).netns();
        from.ip(&format!("route add {target}/{bits} via {via}")).unwrap();
        router
            .ip(&format!("route add {target}/{bits} dev eth0 mtu lock {NARROW}"))
            .unwrap();
    }
}

#[test]
fn the_tunnel_learns_of_a_narrow_link_between_nodes() {
    let Some(cluster) = own(Cluster::builder()) else { return };
    let router = cluster.client(1).netns();
    router.route().unwrap();
    // It has but one interface, and would tell the nodes to do without it.
    for interface in ["all", "eth0"] {
        router
            .sysctl(&format!("ipv4.conf.{interface}.send_redirects"), "0")
            .unwrap();
    }
    for node in [0, 2] {
        let netns = cluster.node(node).netns();
        netns.sysctl("ipv6.conf.eth0.accept_redirects", "0").unwrap();
    }
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    detour(&cluster, 2, 0, router);
    detour(&cluster, 0, 2, router);
    for family in Family::BOTH {
        let target = web.on_node(2, family);
        let moved = cluster.client(0).netns().run(|| {
            let mut connection = Connection::open(target)?;
            connection.upload(BODY)?;
            connection.download(BODY)
        });
        moved.unwrap_or_else(|error| panic!("{target}: {error}"));
        // Both nodes know now; and who looks can see it.
        for node in [0, 2] {
            let known = lbctl::text(cluster.node(node), &["map", "dump", "path_mtus"]).unwrap();
            assert!(
                known.contains(&format!("mtu={NARROW} ")),
                "{family:?}, node {node}:\n{known}"
            );
        }
        evidence::record("errors-travel", "ways over a narrow link between nodes, by family", 2);
    }
}
