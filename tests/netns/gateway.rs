//! Clients behind the gateway bridge, whose subnet is the same on every node: they ask their own node, and two of one address
//! are told apart.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lb_tests::client::{Connection, ask_udp, get, tally};
use lb_tests::cluster::{Cluster, Family, Node, Spec};
use lb_tests::netns::Netns;
use lb_tests::scene::Scene;

use super::{assert_even, own};

/// Of the client, on every node.
const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 5);
/// What everybody else knows it by.
const MASKED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 5);

/// A container of that address behind a bridge of the node's.
fn container(node: &Node) -> Netns {
    let netns = Netns::new(&format!("{}-gw", node.name())).unwrap();
    let setup = || {
        node.netns().ip("link add docker_gwbridge type bridge stp_state 0\n\
             address add 172.18.0.1/16 dev docker_gwbridge\n\
             link set docker_gwbridge up")?;
        node.netns().veth("gwc0", &netns, "eth0")?;
        node.netns().ip("link set gwc0 master docker_gwbridge up")?;
        netns.ip(&format!(
            "address add {CLIENT}/16 dev eth0\n\
             link set eth0 up\n\
             route add default via 172.18.0.1"
        ))
    };
    setup().unwrap();
    let start = Instant::now();
    while !attached(node) {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the agent does not see the bridge"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    netns
}

fn attached(node: &Node) -> bool {
    let status = node.admin("/v1/status").unwrap().to_string();
    status.contains("\"gwc0\"")
}

fn cluster() -> Option<(Scene, Vec<Netns>)> {
    let cluster = own(Cluster::builder().nodes(2).clients(1))?;
    let containers = cluster.nodes().iter().map(container).collect();
    Some((cluster, containers))
}

#[test]
fn a_container_reaches_every_backend_through_its_own_node() {
    let Some((cluster, containers)) = cluster() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
    for (node, container) in containers.iter().enumerate() {
        let target = web.on_node(node, Family::V4);
        assert_even(&container.run(|| tally((0..6).map(|_| get(target)))), &web.backends());
        let peer = container.run(|| get(target)).unwrap().peer;
        assert_eq!(peer.ip(), std::net::IpAddr::from(MASKED), "what backends see");
        let target = time.on_node(node, Family::V4);
        assert_even(
            &container.run(|| tally((0..6).map(|_| ask_udp(target)))),
            &time.backends(),
        );
    }
}

#[test]
fn two_containers_of_one_address_and_port_are_told_apart() {
    let Some((cluster, containers)) = cluster() else { return };
    for home in [0, 1] {
        let web = cluster.deploy(Spec::tcp().published().on(&[home])).unwrap();
        let source = SocketAddr::from((CLIENT, 45_200 + home as u16));
        let open = |(node, container): (usize, &Netns)| {
            let target = web.on_node(node, Family::V4);
            container.run(|| super::host::bound(source, target)).unwrap()
        };
        let mut connections: Vec<_> = containers.iter().enumerate().map(open).collect();
        let peers = connections.iter_mut().map(|connection| connection.ask().unwrap().peer);
        let peers: Vec<_> = peers.collect();
        assert_ne!(peers[0], peers[1]);
        for connection in &mut connections {
            connection.ask().unwrap();
        }
    }
}

#[test]
fn large_transfers_of_containers_arrive_whole() {
    let Some((cluster, containers)) = cluster() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    for (node, container) in containers.iter().enumerate() {
        let target = web.on_node(node, Family::V4);
        let moved = container.run(|| {
            let mut connection = Connection::open(target)?;
            connection.download(6 << 20)?;
            connection.upload(6 << 20)
        });
        moved.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

#[test]
fn a_container_is_refused_by_its_own_address() {
    let Some((cluster, containers)) = cluster() else { return };
    let web = cluster.deploy(Spec::tcp().published()).unwrap();
    let time = cluster.deploy(Spec::udp().published()).unwrap();
    let refused = std::io::ErrorKind::ConnectionRefused;
    let (web, time) = (web.on_node(0, Family::V4), time.on_node(0, Family::V4));
    containers[0].run(|| {
        assert_eq!(get(web).unwrap_err().kind(), refused);
        assert_eq!(ask_udp(time).unwrap_err().kind(), refused);
    });
}
