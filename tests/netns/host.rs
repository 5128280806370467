//! Clients that are the node itself: its own processes, on its own addresses and on the loopback address.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use lb_tests::client::{Answer, Connection, get, tally};
use lb_tests::cluster::{Cluster, Deployed, Family, Node, Spec};
use lb_tests::netns::Netns;
use lb_tests::require;
use lb_tests::traffic::{Style, Traffic};

use super::{ask_seen, ask_udp_seen, assert_even, own, shared};

/// Large enough that windows open and close.
const BODY: usize = 6 << 20;

/// The same frontend on the loopback address.
fn localhost(target: SocketAddr) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, target.port()).into()
}

/// Every way in which a node's own process can name its own published port.
fn ways(service: &Deployed<'_>, node: usize) -> Vec<SocketAddr> {
    let mut ways = Family::BOTH.map(|family| service.on_node(node, family)).to_vec();
    ways.push(localhost(service.on_node(node, Family::V4)));
    ways
}

#[test]
fn a_process_of_the_node_reaches_every_backend_in_turn() {
    let Some(cluster) = shared() else { return };
    // Node 3 has none of them, nodes 1 and 2 have one each.
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    for node in 0..3 {
        let host = cluster.node(node).netns();
        for target in ways(&web, node) {
            let counts = host.run(|| tally((0..6).map(|_| get(target))));
            assert_even(&counts, &web.backends());
        }
    }
}

#[test]
fn datagrams_of_a_process_of_the_node_are_answered() {
    let Some(cluster) = shared() else { return };
    let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
    for node in 0..3 {
        let host = cluster.node(node).netns();
        for target in ways(&time, node) {
            let counts = host.run(|| tally((0..6).map(|_| lb_tests::client::ask_udp(target))));
            assert_even(&counts, &time.backends());
            // A socket that is not connected takes what comes, and looks at the sender itself.
            let answer = host.run(|| unconnected(target)).unwrap();
            assert!(time.backends().contains(&answer.backend), "{answer:?}");
        }
    }
}

/// Asks over a socket that is not connected; whoever answers must be who was asked.
fn unconnected(target: SocketAddr) -> std::io::Result<Answer> {
    let any: SocketAddr = if target.is_ipv4() {
        "0.0.0.0:0".parse().expect("an address")
    } else {
        "[::]:0".parse().expect("an address")
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send_to(b"who\n", target)?;
    let mut buffer = [0; 512];
    let (length, sender) = socket.recv_from(&mut buffer)?;
    assert_eq!(sender, target);
    Answer::parse(&buffer[..length])
}

#[test]
fn backends_see_the_node_where_its_address_means_something() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
    let masked: std::net::IpAddr = Ipv4Addr::new(198, 18, 0, 0).into();
    for node in [0, 2] {
        let host = cluster.node(node).netns();
        for family in Family::BOTH {
            for _ in 0..2 {
                ask_seen(host, web.on_node(node, family)).unwrap();
                ask_udp_seen(host, time.on_node(node, family)).unwrap();
            }
        }
        let target = localhost(web.on_node(node, Family::V4));
        for _ in 0..2 {
            let seen = host.run(|| get(target)).unwrap().peer;
            assert_eq!(seen.ip(), masked, "127.0.0.1 is every node's");
        }
    }
}

#[test]
fn large_transfers_of_the_node_arrive_whole() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    for node in [0, 2] {
        let host = cluster.node(node).netns();
        for target in ways(&web, node) {
            let start = Instant::now();
            let moved = host.run(|| {
                let mut connection = Connection::open(target)?;
                connection.download(BODY)?;
                connection.upload(BODY)
            });
            moved.unwrap_or_else(|error| panic!("node {node} to {target}: {error}"));
            assert!(
                start.elapsed() < Duration::from_secs(5) * require::slowness(),
                "node {node} to {target}: {:?}",
                start.elapsed()
            );
        }
    }
}

#[test]
fn one_port_of_two_nodes_loopback_addresses_is_two_clients() {
    // Both are masked alike, and lead to one backend.
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[1])).unwrap();
    let target = localhost(web.on_node(0, Family::V4));
    let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 45_100));
    let mut connections = Vec::new();
    for node in 0..3 {
        connections.push(cluster.node(node).netns().run(|| bound(source, target)).unwrap());
    }
    let mut peers: Vec<_> = connections
        .iter_mut()
        .map(|connection| connection.ask().unwrap().peer)
        .collect();
    peers.sort();
    peers.dedup();
    assert_eq!(peers.len(), 3, "the backend sees {peers:?}");
}

pub(crate) fn bound(source: SocketAddr, target: SocketAddr) -> std::io::Result<Connection> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&source.into())?;
    socket.connect_timeout(&target.into(), Duration::from_secs(3))?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(std::net::TcpStream::from(socket).into())
}

#[test]
fn a_process_of_the_node_is_refused_where_nobody_serves() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published()).unwrap();
    let time = cluster.deploy(Spec::udp().published()).unwrap();
    let host = cluster.node(0).netns();
    for target in ways(&web, 0) {
        let error = host.run(|| get(target)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{target}");
    }
    for target in ways(&time, 0) {
        let error = host.run(|| lb_tests::client::ask_udp(target)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{target}");
    }
}

/// A server of the host that no service knows, asked on both addresses.
fn ordinary(node: &Node) {
    let host = node.netns();
    for address in [Ipv4Addr::LOCALHOST.into(), node.address(Family::V4)] {
        let seen = host.run(|| {
            let listener = TcpListener::bind((address, 0))?;
            let target = listener.local_addr()?;
            let client = std::net::TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
            let (_, peer) = listener.accept()?;
            std::io::Result::Ok((client.local_addr()?, peer))
        });
        let (client, peer) = seen.unwrap_or_else(|error| panic!("{address}: {error}"));
        assert_eq!(client, peer);
    }
}

fn sysctls(netns: &Netns) -> BTreeMap<&'static str, String> {
    let names = ["accept_local", "route_localnet"];
    let read = |name| {
        let path = format!("/proc/sys/net/ipv4/conf/lo/{name}");
        (
            name,
            netns.run(|| std::fs::read_to_string(path)).unwrap().trim().to_owned(),
        )
    };
    names.map(read).into()
}

#[test]
fn a_restart_keeps_the_nodes_own_connections_and_uninstall_leaves_the_node_as_it_was() {
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let node = cluster.node(0);
    let host = node.netns();
    ordinary(node);
    let targets = ways(&web, 0);
    let mut kept: Vec<_> = targets
        .iter()
        .flat_map(|target| [target, target])
        .map(|target| host.run(|| Connection::open(*target).unwrap()))
        .collect();
    let traffic = Traffic::start(host, &targets, 1, Style::NewConnection);
    traffic.flow(30);
    node.agent().kill().unwrap();
    traffic.flow(30);
    node.start_agent().unwrap();
    traffic.flow(30);
    for connection in &mut kept {
        connection.ask().expect("a connection from before");
    }
    traffic.stop().assert_unnoticed();
    ordinary(node);

    assert!(sysctls(host).values().all(|value| value == "1"), "{:?}", sysctls(host));
    node.agent().stop().unwrap();
    let mut command = Command::new(require::binary("lb-agent").unwrap());
    command.arg("uninstall").arg("--config").arg(node.agent().config());
    let output = host.run(|| command.output()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(sysctls(host).values().all(|value| value == "0"), "{:?}", sysctls(host));
    ordinary(node);
    let start = Instant::now();
    while let Ok(answer) = host.run(|| get(targets[2])) {
        assert!(start.elapsed() < Duration::from_secs(10), "still balanced: {answer:?}");
    }
}
