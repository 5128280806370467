//! Where workloads are.

use std::process::Command;

use lb_userspace::net::Netlink;

use crate::sandbox::{block_on, in_sandbox, ip};

#[test]
fn finds_workloads_behind_veths_and_bridge_ports() {
    in_sandbox("places", |_| {
        ip("link add work0 type veth peer name work1");
        ip("link add br0 type bridge");
        ip("link add port0 type veth peer name port1");
        ip("link set port0 master br0");
        for link in ["work0", "work1", "br0", "port0", "port1"] {
            ip(&format!("link set {link} up"));
        }
        ip("addr add 10.9.0.1/24 dev work0");
        ip("addr add 10.8.0.1/24 dev br0");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:09:02 nud permanent dev work0");
        ip("neigh add 10.8.0.2 lladdr 02:00:00:00:08:02 nud permanent dev br0");
        let status = Command::new("bridge")
            .args(["fdb", "add", "02:00:00:00:08:02", "dev", "port0", "master", "static"])
            .status()
            .expect("bridge");
        assert!(status.success());
        let wanted = ["10.9.0.2", "10.8.0.2", "10.9.0.3", "10.9.0.1", "192.0.2.77"];
        let (links, found) = block_on(async {
            let netlink = Netlink::connect().expect("netlink");
            let links = netlink.links().await.expect("links");
            let found = netlink
                .places(
                    &links,
                    wanted.map(|a| a.parse().expect("address")),
                    &mut Default::default(),
                )
                .await
                .expect("places");
            (links, found)
        });
        let index = |name: &str| links.iter().find(|l| l.name == name).expect("link").ifindex;
        let place = |a: &str| {
            found
                .places
                .get(&a.parse().expect("address"))
                .map(|p| (p.ifindex, p.mac))
        };
        assert_eq!(place("10.9.0.2"), Some((index("work0"), [2, 0, 0, 0, 9, 2])));
        assert_eq!(place("10.8.0.2"), Some((index("port0"), [2, 0, 0, 0, 8, 2])));
        assert_eq!(place("10.9.0.1"), None, "its own address");
        assert_eq!(place("192.0.2.77"), None, "no route");
        assert_eq!(
            found.pending,
            ["10.9.0.3".parse::<std::net::IpAddr>().expect("address")]
        );
    });
}
