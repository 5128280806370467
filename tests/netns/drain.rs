//! What a draining backend keeps, what it gets no more, and how that ends.

mod restart;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::capture::Capture;
use lb_tests::client::{Connection, Udp, get, tally};
use lb_tests::cluster::{Cluster, Deployed, Family, Published, Service, Spec};
use lb_tests::evidence;
use lb_tests::netns::Netns;

use super::backends::{connect_everybody, connect_to_each, ways};
use super::{assert_even, shared};

const PROMISE: &str = "drain";
const PATIENCE: Duration = Duration::from_secs(2);

/// TCP segments of the connection from `port` that a capture saw: those of the client, those to it, RSTs among these.
fn segments(capture: &Capture, port: u16) -> [usize; 3] {
    let mut counts = [0; 3];
    for packet in capture.packets("eth0") {
        let Ok(sliced) = etherparse::LaxSlicedPacket::from_ethernet(&packet.bytes) else {
            continue;
        };
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else {
            continue;
        };
        counts[0] += usize::from(tcp.source_port() == port);
        counts[1] += usize::from(tcp.destination_port() == port);
        counts[2] += usize::from(tcp.destination_port() == port && tcp.rst());
    }
    counts
}

/// A connection, who answers it, and where its client is.
type Kept<'a> = (&'a Netns, String, Connection);

/// Each is reset with its next packet.
#[track_caller]
fn assert_ended(connections: &mut [Kept<'_>]) {
    for (netns, name, connection) in connections {
        let port = connection.local_address().unwrap().port();
        let capture = Capture::start(netns).unwrap();
        let error = connection.ask().expect_err("a backend that was removed answers");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}: {error}");
        assert_eq!(segments(&capture, port), [1, 1, 1], "sent, received, RST");
    }
}

/// Each is answered by whom it was answered before.
#[track_caller]
fn assert_going_on(connections: &mut [Kept<'_>]) {
    for (_, name, connection) in connections {
        match connection.ask() {
            Ok(answer) => assert_eq!(answer.backend, *name),
            Err(error) => panic!("a connection to {name} does not go on: {error}"),
        }
    }
}

/// Who answers each of these sockets now.
fn answers(sockets: &[Udp]) -> Vec<String> {
    let ask = |socket: &Udp| socket.ask(PATIENCE).unwrap().backend;
    sockets.iter().map(ask).collect()
}

#[test]
fn the_end_of_a_drain_resets_what_is_left_with_its_next_packet() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        let names = web.backends();
        let mut kept = connect_everybody(&cluster, &web, family);
        web.drain(&names[0]).unwrap();
        for (netns, target) in ways(&cluster, &web, family) {
            let counts = netns.run(|| tally((0..6).map(|_| get(target))));
            assert_even(&counts, &names[1..]);
        }
        for (_, name, connection) in &mut kept {
            assert_eq!(connection.ask().unwrap().backend, *name);
        }
        web.remove(&names[0]).unwrap();
        web.wait_until_gone(&names[0]).unwrap();
        for (netns, name, connection) in &mut kept {
            let port = connection.local_address().unwrap().port();
            let capture = Capture::start(netns).unwrap();
            let answer = connection.ask();
            if *name == names[0] {
                let error = answer.expect_err("a removed backend answers");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                assert_eq!(segments(&capture, port), [1, 1, 1], "sent, received, RST");
                evidence::record(
                    PROMISE,
                    "connections reset by their first packet after the end of a drain",
                    1,
                );
            } else {
                assert_eq!(answer.unwrap().backend, *name);
                evidence::record(PROMISE, "connections beside them that went on", 1);
            }
        }
    }
}

#[test]
fn a_port_that_is_used_again_leaves_a_draining_backend() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client(0);
    for family in Family::BOTH {
        for node in [0, 2] {
            let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
            let source = SocketAddr::new(client.address(family), 45_010);
            let ask = || {
                client
                    .netns()
                    .run(|| Connection::open_from(source, web.on_node(node, family))?.ask())
            };
            let first = ask().unwrap().backend;
            web.drain(&first).unwrap();
            for _ in 0..4 {
                assert_ne!(ask().unwrap().backend, first);
                evidence::record(PROMISE, "connections on a used port that left a draining backend", 1);
            }
        }
    }
}

#[test]
fn where_nothing_else_is_left_draining_backends_go_on_serving() {
    let Some(cluster) = shared() else { return };
    for family in Family::BOTH {
        let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
        let names = web.backends();
        let mut kept = connect_everybody(&cluster, &web, family);
        let mut sockets = Vec::new();
        for (netns, target) in ways(&cluster, &time, family) {
            let socket = netns.run(|| Udp::open(target).unwrap());
            sockets.push((socket.ask(PATIENCE).unwrap().backend, socket));
        }
        for service in [&web, &time] {
            let drain = |service: &mut Service| service.backend.iter_mut().for_each(|entry| entry.state = "draining");
            service.change(drain).unwrap();
        }
        for (netns, target) in ways(&cluster, &web, family) {
            let counts = netns.run(|| tally((0..6).map(|_| get(target))));
            assert_even(&counts, &names);
            evidence::record(PROMISE, "new connections where all backends drain", 6);
        }
        for (_, name, connection) in &mut kept {
            assert_eq!(connection.ask().unwrap().backend, *name);
        }
        for (name, socket) in &sockets {
            assert_eq!(socket.ask(PATIENCE).unwrap().backend, *name);
        }
    }
}

#[test]
fn a_backend_of_two_services_is_removed_from_one_alone() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
    let (names, clocks) = (web.backends(), time.backends());
    let (twin_web, web_port) = twin(&cluster, &web, 233);
    let (twin_time, time_port) = twin(&cluster, &time, 234);
    let client = cluster.client(0).netns();
    let mut ending = Vec::new();
    let mut going_on = Vec::new();
    let (mut moving, mut staying) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        for (netns, target) in ways(&cluster, &web, family) {
            for (name, connection) in netns.run(|| connect_to_each(target, &names)) {
                let ends = name == names[0];
                let list = if ends { &mut ending } else { &mut going_on };
                list.push((netns, name, connection));
            }
        }
        // One node with a backend, one with none.
        for node in [0, 2] {
            let target = cluster.node(node).published(family, web_port);
            let others = client.run(|| connect_to_each(target, &names));
            going_on.extend(others.into_iter().map(|(name, connection)| (client, name, connection)));
            for _ in 0..2 {
                moving.push(client.run(|| Udp::open(time.on_node(node, family)).unwrap()));
                let target = cluster.node(node).published(family, time_port);
                staying.push(client.run(|| Udp::open(target).unwrap()));
            }
        }
    }
    let before = [answers(&moving), answers(&staying)];
    assert!(before.iter().all(|answers| answers.contains(&clocks[0])), "{before:?}");
    // One with a drain before, one without.
    web.drain(&names[0]).unwrap();
    web.remove(&names[0]).unwrap();
    time.remove(&clocks[0]).unwrap();

    assert_ended(&mut ending);
    assert_going_on(&mut going_on);
    assert!(
        answers(&moving).iter().all(|name| *name == clocks[1]),
        "datagrams stay where their service has no backend any more"
    );
    assert_eq!(answers(&staying), before[1], "datagrams of the other service move");
    for node in [0, 2] {
        let counts = client.run(|| tally((0..6).map(|_| get(web.on_node(node, Family::V4)))));
        assert_even(&counts, &names[1..]);
        let target = cluster.node(node).published(Family::V4, web_port);
        assert_even(&client.run(|| tally((0..6).map(|_| get(target)))), &names);
    }
    let count = (ending.len() + going_on.len() + moving.len() + staying.len()) as u64;
    evidence::record(
        PROMISE,
        "flows of two services, one of which a backend was removed from",
        count,
    );
    let remove = |service: &Service| service.name != twin_web && service.name != twin_time;
    cluster.edit(|document| document.service.retain(remove)).unwrap();
}

/// As [`named_twin`], under a name made of the first one's.
fn twin(cluster: &Cluster, first: &Deployed<'_>, vip: u8) -> (String, u16) {
    let name = format!("twin-{}", first.name());
    let port = named_twin(cluster, first, &name, vip);
    (name, port)
}

/// A second service with the backends of `first`, published on a port of its own, which is returned.
fn named_twin(cluster: &Cluster, first: &Deployed<'_>, name: &str, vip: u8) -> u16 {
    let mut service = first.document();
    service.name = name.to_owned();
    service.vip = vec![IpAddr::from([10, 1, 0, vip])];
    let Some(Published::On(port)) = service.ports[0].published else {
        panic!("not published")
    };
    service.ports[0].published = Some(Published::On(port + 1000));
    cluster.edit(|document| document.service.push(service)).unwrap();
    cluster.settle().unwrap();
    port + 1000
}

#[test]
fn a_backend_of_two_services_drains_in_one_alone() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
    let (names, clocks) = (web.backends(), time.backends());
    let (twin_web, web_port) = twin(&cluster, &web, 231);
    let (twin_time, time_port) = twin(&cluster, &time, 232);
    let client = cluster.client(0).netns();
    let families: [Family; 2] = Family::BOTH;
    let mut connections: Vec<(String, Connection)> = Vec::new();
    let mut moving = Vec::new();
    let mut staying = Vec::new();
    for family in families {
        // One node with a backend, one with none.
        for node in [0, 2] {
            let targets = [
                web.on_node(node, family),
                cluster.node(node).published(family, web_port),
            ];
            for target in targets {
                connections.extend(client.run(|| connect_to_each(target, &names)));
            }
            for _ in 0..2 {
                moving.push(client.run(|| Udp::open(time.on_node(node, family)).unwrap()));
                let target = cluster.node(node).published(family, time_port);
                staying.push(client.run(|| Udp::open(target).unwrap()));
            }
        }
    }
    let before = [answers(&moving), answers(&staying)];
    assert!(before.iter().all(|answers| answers.contains(&clocks[0])), "{before:?}");
    web.drain(&names[0]).unwrap();
    time.drain(&clocks[0]).unwrap();

    for family in families {
        for node in [0, 2] {
            let counts = client.run(|| tally((0..6).map(|_| get(web.on_node(node, family)))));
            assert_even(&counts, &names[1..]);
            let target = cluster.node(node).published(family, web_port);
            assert_even(&client.run(|| tally((0..6).map(|_| get(target)))), &names);
        }
    }
    for (name, connection) in &mut connections {
        assert_eq!(connection.ask().unwrap().backend, *name);
    }
    assert!(
        answers(&moving).iter().all(|name| *name == clocks[1]),
        "datagrams stay where their service drains"
    );
    assert_eq!(answers(&staying), before[1], "datagrams of the other service move");
    let count = (connections.len() + moving.len() + staying.len()) as u64;
    evidence::record(PROMISE, "flows of two services with one draining backend", count);
    let remove = |service: &Service| service.name != twin_web && service.name != twin_time;
    cluster.edit(|document| document.service.retain(remove)).unwrap();
}
