//! ICMP errors reach the socket that they are about: closed ports, and paths that carry less than their first link. What is
//! larger than a path arrives in fragments.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use lb_tests::client::{Connection, Udp};
use lb_tests::cluster::{Cluster, Deployed, Family, Spec};
use lb_tests::evidence;
use lb_tests::lbctl;
use lb_tests::netns::Netns;
use nix::libc::EMSGSIZE;
use nix::sys::socket::{getsockopt, sockopt};

use super::{own, shared};

const PATIENCE: Duration = Duration::from_secs(3);
/// More than windows hold, and little enough for a busy machine.
const BODY: usize = 1 << 20;

/// Who can speak to a service whose backend is behind the first node, and where: a client to that node and to another one,
/// a workload to the VIP and to a published port, and the nodes themselves.
fn ways<'a>(cluster: &'a Cluster, service: &Deployed<'_>, family: Family) -> [(&'a Netns, SocketAddr); 7] {
    let client = cluster.client(0).netns();
    let beside = cluster.workloads(0, "shop")[1].netns();
    let remote = cluster.workloads(2, "shop")[1].netns();
    [
        (client, service.on_node(0, family)),
        (client, service.on_node(2, family)),
        (beside, service.vip(family)),
        (remote, service.vip(family)),
        (remote, service.on_node(2, family)),
        (cluster.node(0).netns(), service.on_node(0, family)),
        (cluster.node(2).netns(), service.on_node(2, family)),
    ]
}

/// A UDP service behind the first node on whose backend's port nobody listens; the backend's namespace and that port.
fn deserted<'a>(cluster: &'a Cluster, family: Family) -> (Deployed<'a>, &'a Netns, SocketAddr) {
    let service = cluster.deploy(Spec::udp().published().on(&[0])).unwrap();
    let backend = service.backends().remove(0);
    service.stop(&backend);
    let name = service.workload(&backend).name().to_owned();
    let workload = cluster.workloads(0, "shop").into_iter().find(|w| w.name() == name);
    let workload = workload.expect("the backend's workload");
    let target = (workload.address(family), service.document().ports[0].target).into();
    (service, workload.netns(), target)
}

/// A socket that was closed a moment ago is still held by the processes that other tests start just now.
fn socket(at: SocketAddr) -> UdpSocket {
    let start = Instant::now();
    let socket = loop {
        match UdpSocket::bind(at) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => break bound.unwrap(),
        }
    };
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_datagram_to_a_task_that_does_not_listen_is_refused_at_once() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let (service, ..) = deserted(&cluster, family);
        for (netns, target) in ways(&cluster, &service, family) {
            let refused = netns.run(|| Udp::open(target)?.ask(PATIENCE)).unwrap_err();
            assert_eq!(
                refused.kind(),
                ErrorKind::ConnectionRefused,
                "{} to {target}",
                netns.name()
            );
        }
    }
}

#[test]
fn a_backend_hears_that_its_client_is_gone() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let (service, backend, at) = deserted(&cluster, family);
        for (netns, target) in ways(&cluster, &service, family) {
            let backend = backend.run(|| socket(at));
            let what = format!("{} to {target}", netns.name());
            // The socket is closed before the answer comes; but a process that another test starts at this moment holds it
            // until it is itself.
            netns.run(|| Udp::open(target).unwrap().ask(Duration::from_millis(1)).unwrap_err());
            let mut buffer = [0; 64];
            let (_, client) = backend
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            backend.connect(client).unwrap();
            backend.set_read_timeout(Some(PATIENCE / 10)).unwrap();
            let heard = (0..10).any(|_| {
                let heard = backend.send(b"too late").and_then(|_| backend.recv(&mut buffer));
                heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
            assert!(heard, "{what}");
        }
    }
}

#[test]
fn datagrams_in_fragments_arrive_whole_both_ways() {
    const LENGTH: usize = 8000;
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let (service, backend, at) = deserted(&cluster, family);
        let backend = backend.run(|| socket(at));
        backend.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        // Not the nodes themselves: on the loopback interface the kernel does not heed that a datagram is too big.
        for (netns, target) in ways(&cluster, &service, family).into_iter().take(5) {
            let what = format!("{} to {target}", netns.name());
            let client = netns.run(|| socket(any(family)));
            client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut buffer = vec![0; 2 * LENGTH];
            // Where the tunnel is narrower than the first link, either side learns that from what is lost.
            let arrived = (0..20).any(|n| {
                let body = vec![n; LENGTH];
                // An error that came meanwhile is told first.
                let _ = client.send_to(&body, target).or_else(|_| client.send_to(&body, target));
                let Ok((length, peer)) = backend.recv_from(&mut buffer) else {
                    return false;
                };
                assert_eq!(length, LENGTH, "{what}");
                let answer = buffer[..length].to_vec();
                let _ = backend
                    .send_to(&answer, peer)
                    .or_else(|_| backend.send_to(&answer, peer));
                match client.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        assert_eq!((length, from), (LENGTH, target), "{what}");
                        buffer[..length] == answer
                    }
                    Err(_) => false,
                }
            });
            assert!(arrived, "{what}");
            evidence::record("fragments", "ways by which datagrams of 8000 bytes came and went", 1);
        }
    }
}

/// A machine behind the second client, which is its router and has a narrow link to it.
struct Far<'a> {
    netns: Netns,
    cluster: &'a Cluster,
}

impl<'a> Far<'a> {
    fn new(cluster: &'a Cluster, mtu: u32) -> Self {
        let netns = Netns::new("far").unwrap();
        let router = cluster.client(1);
        router.netns().veth("far0", &netns, "eth0").unwrap();
        router.netns().route().unwrap();
        // Its own interface is as wide as any, so that nobody is told of the narrow link in advance.
        let lines = "address add 10.99.0.1/24 dev far0\naddress add fd99::1/64 dev far0 nodad\nlink set far0 up";
        router.netns().ip(&format!("{lines} mtu {mtu}")).unwrap();
        let lines = "address add 10.99.0.2/24 dev eth0\naddress add fd99::2/64 dev eth0 nodad\nlink set eth0 up";
        netns.ip(lines).unwrap();
        netns
            .ip("route add default via 10.99.0.1\nroute add default via fd99::1 dev eth0")
            .unwrap();
        let far = Self { netns, cluster };
        far.routes("add");
        far
    }

    fn routes(&self, verb: &str) {
        let [v4, v6] = Family::BOTH.map(|family| self.cluster.client(1).address(family));
        for node in self.cluster.nodes() {
            let lines = format!("route {verb} 10.99.0.0/24 via {v4}\nroute {verb} fd99::/64 via {v6}");
            node.netns().ip(&lines).unwrap();
        }
    }
}

impl Drop for Far<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.routes("del");
        }
    }
}

#[test]
fn a_backend_learns_of_a_narrow_link_behind_a_router() {
    let Some(cluster) = own(Cluster::builder()) else { return };
    let far = Far::new(&cluster, 1300);
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    for family in Family::BOTH {
        // At the backend's own node, and through the tunnel.
        for node in [0, 2] {
            let target = web.on_node(node, family);
            let moved = far.netns.run(|| Connection::open(target)?.download(BODY));
            moved.unwrap_or_else(|error| panic!("{target}: {error}"));
        }
        let (service, backend, at) = deserted(&cluster, family);
        for node in [0, 2] {
            let target = service.on_node(node, family);
            forget(backend);
            let backend = backend.run(|| socket(at));
            let client = far.netns.run(|| {
                let client = socket(any(family));
                client.send_to(b"who", target).map(|_| client).unwrap()
            });
            let (_, peer) = backend.recv_from(&mut [0; 64]).unwrap();
            backend.connect(peer).unwrap();
            // What the link takes is what the backend learns, whatever the tunnel takes.
            learns(&backend, family, 1400, 1300);
            backend.send(&[7; 1300 - 48]).unwrap();
            assert_eq!(client.recv(&mut [0; 2000]).unwrap(), 1300 - 48, "{target}");
        }
    }
}

#[test]
fn a_client_learns_of_a_narrow_link_inside_its_network() {
    let Some(cluster) = own(Cluster::builder().clients(1)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().on(&[0])).unwrap();
    let remote = cluster.workloads(2, "shop")[1];
    // Workload addresses are routed between nodes: one way is narrower than the interfaces at its ends.
    let routes = cluster
        .node(2)
        .netns()
        .output("ip", &["route", "show", "10.1.1.0/24"])
        .unwrap();
    cluster
        .node(2)
        .netns()
        .ip(&format!("route change {} mtu 1300", routes.trim()))
        .unwrap();
    let [_, via] = Family::BOTH.map(|family| cluster.node(0).address(family));
    cluster
        .node(2)
        .netns()
        .ip(&format!("route change fd01:0:0:1::/64 via {via} mtu 1300"))
        .unwrap();
    for family in Family::BOTH {
        let target = web.vip(family);
        let moved = remote.netns().run(|| Connection::open(target)?.upload(BODY));
        moved.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

#[test]
fn the_path_is_discovered_at_every_width_of_the_tunnel() {
    let Some(cluster) = own(Cluster::builder()) else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    for mtu in [1500_u16, 1450, 1400, 1364, 1300, 1280] {
        narrow(&cluster, mtu);
        for family in Family::BOTH {
            let (netns, target) = (cluster.client(0).netns(), web.on_node(2, family));
            let moved = netns.run(|| {
                let mut connection = Connection::open(target)?;
                connection.download(BODY)?;
                connection.upload(BODY)
            });
            moved.unwrap_or_else(|error| panic!("MTU {mtu}: {target}: {error}"));
            evidence::record(
                "errors-travel",
                "widths of the tunnel, by family, that TCP got through",
                1,
            );
            let room = mtu - if family == Family::V4 { 64 } else { 84 };
            // No IPv6 host sends less than 1280 bytes at once for any router's sake (RFC 8200 5).
            if family == Family::V4 || room >= 1280 {
                datagrams(&cluster, family, mtu, room);
            }
        }
    }
}

/// A client and a backend exchange datagrams of the tunnel's width, after each has tried more.
fn datagrams(cluster: &Cluster, family: Family, mtu: u16, room: u16) {
    let (service, backend, at) = deserted(cluster, family);
    let target = service.on_node(2, family);
    let backend = backend.run(|| socket(at));
    let client = cluster.client(0).netns().run(|| {
        let client = socket(any(family));
        client.connect(target).unwrap();
        client
    });
    learns(&client, family, mtu, room);
    let fits = usize::from(room) - header(family);
    let mut buffer = vec![0; 2000];
    client.send(&vec![1; fits]).unwrap();
    let (length, peer) = backend
        .recv_from(&mut buffer)
        .unwrap_or_else(|e| panic!("MTU {mtu}, {family:?}: {e}"));
    assert_eq!(length, fits, "MTU {mtu}, {family:?}");
    backend.connect(peer).unwrap();
    learns(&backend, family, mtu, room);
    backend.send(&vec![2; fits]).unwrap();
    let length = client
        .recv(&mut buffer)
        .unwrap_or_else(|e| panic!("back, MTU {mtu}, {family:?}: {e}"));
    assert_eq!(length, fits, "back, MTU {mtu}, {family:?}");
}

/// The socket sends a packet of `width` bytes, which the kernel may not fragment, and hears that the path takes `room`.
fn learns(socket: &UdpSocket, family: Family, width: u16, room: u16) {
    let what = format!("{family:?} from {}: {width} of {room}", socket.local_addr().unwrap());
    socket.send(&vec![0; usize::from(width) - header(family)]).unwrap();
    let told = socket.recv(&mut [0; 2000]).unwrap_err();
    assert_eq!(told.raw_os_error(), Some(EMSGSIZE), "{what}: {told}");
    if family == Family::V4 {
        assert_eq!(
            getsockopt(&socket.as_fd(), sockopt::IpMtu).unwrap(),
            i32::from(room),
            "{what}"
        );
    }
}

fn header(family: Family) -> usize {
    if family == Family::V4 { 28 } else { 48 }
}

fn any(family: Family) -> SocketAddr {
    match family {
        Family::V4 => ([0, 0, 0, 0], 0).into(),
        Family::V6 => ([0_u16; 8], 0).into(),
    }
}

/// Gives every machine on the underlay this MTU, forgets what sockets have learned, and waits until every agent knows.
fn narrow(cluster: &Cluster, mtu: u16) {
    let machines = cluster.nodes().iter().map(|node| node.netns());
    let machines: Vec<&Netns> = machines
        .chain(cluster.clients().iter().map(|host| host.netns()))
        .collect();
    for netns in machines {
        netns.ip(&format!("link set eth0 mtu {mtu}")).unwrap();
        forget(netns);
    }
    for workload in (0..3).flat_map(|node| cluster.workloads(node, "shop")) {
        forget(workload.netns());
    }
    let start = Instant::now();
    let expected = format!("tunnel_mtu={mtu} ");
    for node in cluster.nodes() {
        while !lbctl::text(node, &["map", "dump", "settings", "--no-headers"])
            .unwrap()
            .contains(&expected)
        {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{} keeps its old MTU",
                node.name()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes what the kernel has learned of paths.
fn forget(netns: &Netns) {
    for family in ["-4", "-6"] {
        netns.output("ip", &[family, "route", "flush", "cache"]).unwrap();
    }
}
