//! Encrypted overlays: the tunnel between agents is clear text, so nothing of them may ever be in it.
//!
//! Whether Docker itself encrypts is no matter here: without ESP in the kernel its own packets between nodes are lost.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use etherparse::{LaxSlicedPacket, TransportSlice};
use lb_tests::capture::{Capture, Packet};
use lb_tests::client::{Udp, get};
use lb_tests::swarm::{Balanced, Swarm, wait_until};

use super::{ask_seen, assert_even, own};

/// UDP port of the tunnel between agents.
const TUNNEL: u16 = 4790;

/// How many of the packets are the tunnel's.
fn tunnelled(packets: &[Packet]) -> usize {
    let is_tunnel = |packet: &&Packet| {
        // Captures are cut short.
        let sliced = LaxSlicedPacket::from_ethernet(&packet.bytes).ok();
        let transport = sliced.and_then(|sliced| sliced.transport);
        matches!(transport, Some(TransportSlice::Udp(udp)) if udp.destination_port() == TUNNEL)
    };
    packets.iter().filter(is_tunnel).count()
}

/// What a node's agent leaves to others: names and reasons.
fn refused(swarm: &Balanced, index: usize) -> Vec<(String, String)> {
    let status = swarm.lbctl_json(index, &["status"]).unwrap();
    let list = status["items"][0]["refused"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|refused| (text(&refused["network"]), text(&refused["reason"])))
        .collect()
}

#[test]
fn nothing_of_an_encrypted_network_goes_through_the_tunnel() {
    let Some(swarm) = own(Swarm::builder().nodes(2)) else {
        return;
    };
    let network = swarm.network("vault", &["--opt", "encrypted"]).unwrap();
    let here = ["--network", network.name(), "--constraint", "node.hostname==node1"];
    let web = swarm.service("web", &here).unwrap();
    let asking = swarm
        .service("asking", &["--mode", "global", "--network", network.name()])
        .unwrap();
    let tasks = swarm.wait_serving(&web, 1).unwrap();
    let clients = swarm.wait_serving(&asking, 2).unwrap();
    for index in 0..2 {
        let name = swarm.node(index).name();
        let found = refused(&swarm, index);
        let reason = found.iter().find(|(object, _)| object.contains(network.name()));
        let (_, reason) = reason.unwrap_or_else(|| panic!("{name}: {} is not refused: {found:?}", network.name()));
        assert!(reason.contains("encrypted"), "{reason}");
        assert_eq!(found.len(), 1, "{name} says it more than once: {found:?}");
        let text = swarm.lbctl(index, &["status"]).unwrap();
        assert!(text.contains(network.name()) && text.contains("encrypted"), "{text}");
    }

    let capture = Capture::start(swarm.underlay()).unwrap();
    let target = SocketAddr::from((web.vip(network.id()).unwrap(), 80));
    for client in &clients {
        let (tcp, udp) = client
            .within(&swarm, || {
                let tcp = std::net::TcpStream::connect_timeout(&target, Duration::from_secs(2));
                (
                    tcp,
                    Udp::open(target).and_then(|socket| socket.ask(Duration::from_millis(500))),
                )
            })
            .unwrap();
        if client.node == tasks[0].node {
            // On one node nothing is sent anywhere.
            assert_eq!(udp.unwrap().backend, tasks[0].name);
            tcp.unwrap();
        }
    }
    for node in ["node1", "node2"] {
        assert_eq!(tunnelled(&capture.packets(node)), 0, "of {node}");
    }

    // The capture sees what there is: the ingress network is in clear text, with Docker too.
    let open = swarm
        .service("open", &["--publish", "80", "--constraint", "node.hostname==node1"])
        .unwrap();
    swarm.wait_serving(&open, 1).unwrap();
    let target = SocketAddr::new(swarm.node(1).address(), open.published("tcp", 80).unwrap());
    swarm.client(0).netns().run(|| ask_seen(target)).unwrap();
    assert!(tunnelled(&capture.packets("node1")) > 0);
}

#[test]
fn ports_published_by_an_encrypted_ingress_network_are_answered_by_the_tasks_own_node_alone() {
    let Some(swarm) = own(Swarm::builder().nodes(2)) else {
        return;
    };
    let manager = swarm.manager();
    // The command line asks whether that is wanted.
    let remove = "echo y | docker --host unix:///run/docker.sock network rm ingress";
    manager.output("sh", &["-c", remove]).unwrap();
    let made = wait_until("the ingress network can be made anew", || {
        let options = ["--driver", "overlay", "--ingress", "--opt", "encrypted", "vault"];
        let result = manager.docker(&[&["network", "create"], &options[..]].concat());
        Ok(result.map_err(|error| format!("{error:#}")))
    });
    made.unwrap();
    let web = swarm
        .service("web", &["--publish", "80", "--constraint", "node.hostname==node1"])
        .unwrap();
    let tasks = swarm.wait_serving(&web, 1).unwrap();
    let port = web.published("tcp", 80).unwrap();
    let capture = Capture::start(swarm.underlay()).unwrap();
    let client = swarm.client(0).netns();
    let [own, other] = [0, 1].map(|index| SocketAddr::new(swarm.node(index).address(), port));
    assert_even(client.run(|| (0..4).map(|_| ask_seen(own)).collect()), &tasks);
    let error = client.run(|| get(other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let found = refused(&swarm, 1);
    let said = found
        .iter()
        .any(|(object, reason)| object.contains(&port.to_string()) && reason.contains("encrypted"));
    assert!(said, "{found:?}");
    for node in ["node1", "node2"] {
        assert_eq!(tunnelled(&capture.packets(node)), 0, "of {node}");
    }
}
