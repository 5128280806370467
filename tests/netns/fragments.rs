//! Datagrams whose fragments overtake each other: they arrive whole, or what is lost of them is counted.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lb_common::abi::UDP;
use lb_common::testing::frame::{Frame, fragments};
use lb_tests::cluster::{Cluster, Family, Node, Spec};
use lb_tests::evidence;
use lb_tests::lbctl;
use lb_tests::netns::Netns;
use lb_tests::require;
use socket2::{Domain, Protocol, Socket, Type};

use super::own;

const PROMISE: &str = "fragments";
/// Length of a datagram's body: it is cut into three.
const LENGTH: usize = 300;

/// Fragments that a node has counted under a reason.
fn counted(node: &Node, reason: &str) -> u64 {
    let label = format!("reason=\"{reason}\"");
    let metrics = node.metrics("/metrics").unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with("lb_packets_total{"));
    let values = lines.filter(|line| line.contains(&label));
    let values = values.map(|line| {
        line.rsplit(' ')
            .next()
            .expect("a value")
            .parse::<f64>()
            .expect("a number")
    });
    values.sum::<f64>() as u64
}

/// Sends the fragments of a datagram in this order, headers and all.
fn send(netns: &Netns, from: SocketAddr, to: SocketAddr, id: u16, body: u8, order: &[usize; 3]) {
    let packet = Frame::new(UDP, from, to).payload(&[body; LENGTH]).packet();
    let cut = fragments(&packet, id, &[96, 200]);
    netns.run(|| {
        // IPPROTO_RAW: headers and all are ours.
        let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(255))).unwrap();
        let target = SocketAddr::new(to.ip(), 0).into();
        for index in order {
            socket.send_to(&cut[*index], &target).unwrap();
        }
    });
}

/// Whether a datagram of this byte arrives, whole.
fn arrives(backend: &UdpSocket, body: u8) -> bool {
    let mut buffer = [0; 2 * LENGTH];
    while let Ok((length, _)) = backend.recv_from(&mut buffer) {
        if buffer[..length] == [body; LENGTH] {
            return true;
        }
    }
    false
}

#[test]
fn fragments_that_overtake_each_other_arrive_or_are_counted() {
    let Some(cluster) = own(Cluster::builder().nodes(1).clients(1)) else {
        return;
    };
    let node = cluster.node(0);
    for family in Family::BOTH {
        let service = cluster.deploy(Spec::udp().published().on(&[0])).unwrap();
        let name = service.backends().remove(0);
        service.stop(&name);
        let workload = service.workload(&name);
        let at = SocketAddr::new(workload.address(family), service.document().ports[0].target);
        let backend = workload.netns().run(|| UdpSocket::bind(at).unwrap());
        backend
            .set_read_timeout(Some(Duration::from_millis(200) * require::slowness()))
            .unwrap();
        let inside = cluster.workloads(0, "shop");
        let inside = inside
            .iter()
            .find(|w| w.name() != workload.name())
            .expect("another workload");
        let client = cluster.client(0);
        let ways = [
            (
                client.netns(),
                client.address(family),
                service.on_node(0, family),
                "fragment_before_first",
            ),
            (
                inside.netns(),
                inside.address(family),
                service.vip(family),
                "fragment_without_first",
            ),
        ];
        for (way, (netns, address, target, reason)) in (1..).zip(ways) {
            let orders = [([0, 1, 2], 0), ([0, 2, 1], 0), ([1, 0, 2], 1), ([2, 1, 0], 2)];
            for (number, (order, early)) in (1..).zip(orders) {
                let what = format!("{} to {target}, {order:?}", netns.name());
                let before = counted(node, reason);
                let body = way * 16 + number;
                let from = SocketAddr::new(address, 41_000 + u16::from(body));
                send(netns, from, target, 0x7100 + u16::from(body), body, &order);
                assert_eq!(arrives(&backend, body), early == 0, "{what}");
                assert_eq!(counted(node, reason) - before, early, "{what}: {reason}");
                let figure = match early {
                    0 => "datagrams whose fragments came behind their first one, and arrived",
                    _ => "datagrams some of whose fragments came before their first one, each of them counted",
                };
                evidence::record(PROMISE, figure, 1);
            }
            let status = lbctl::text(node, &["status"]).unwrap();
            assert!(status.contains(reason), "{status}");
        }
    }
}
