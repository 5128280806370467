//! The Swarm comes up, tasks run where they should and reach each other.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use lb_tests::client::{Answer, ask_udp, get};
use lb_tests::swarm::wait_until;

use super::shared;

#[test]
fn three_nodes_are_ready_and_replicas_spread() {
    let Some(swarm) = shared() else { return };
    let format = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
    let list = swarm.manager().docker(&["node", "ls", "--format", format]).unwrap();
    let lines: BTreeSet<_> = list.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        BTreeSet::from(["node1 Ready Leader", "node2 Ready", "node3 Ready"])
    );

    let web = swarm.service("web", &["--replicas", "3"]).unwrap();
    let tasks = web.wait_running(3).unwrap();
    let nodes: BTreeSet<_> = tasks.iter().filter_map(|task| task.node).collect();
    assert_eq!(nodes, BTreeSet::from([0, 1, 2]), "{tasks:#?}");
}

#[test]
fn tasks_reach_each_other_over_the_overlay_by_name_and_address() {
    let Some(swarm) = shared() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let web = swarm
        .service("web", &["--replicas", "2", "--network", network.name()])
        .unwrap();
    let asking = swarm
        .service("asking", &["--mode", "global", "--network", network.name()])
        .unwrap();
    let (backends, clients) = (web.wait_running(2).unwrap(), asking.wait_running(3).unwrap());
    let names: BTreeSet<_> = backends.iter().map(|task| task.name.clone()).collect();
    let addresses: BTreeSet<_> = backends
        .iter()
        .map(|task| task.address(network.name()).unwrap())
        .collect();

    for client in &clients {
        let resolve = |name: &str| -> BTreeSet<Ipv4Addr> {
            let text = client.exec(&swarm, &["resolve", name]).unwrap();
            text.lines().map(|line| line.parse().unwrap()).collect()
        };
        // Docker tells nodes of tasks by gossip, which takes a moment.
        wait_until("every task has its name", || {
            let known = resolve(&format!("tasks.{}", web.name()));
            Ok(if known == addresses {
                Ok(())
            } else {
                Err(format!("{known:?}, not {addresses:?}"))
            })
        })
        .unwrap();
        assert_eq!(resolve(web.name()), BTreeSet::from([web.vip(network.id()).unwrap()]));

        // Inside the container, by its own resolver ...
        let url = format!("http://tasks.{}/", web.name());
        let answer = Answer::parse(client.exec(&swarm, &["get", &url]).unwrap().as_bytes()).unwrap();
        assert!(names.contains(&answer.backend), "{answer:?}");
        assert_eq!(answer.peer.ip(), client.address(network.name()).unwrap());
        // ... and from its namespace, every one by its address, over TCP and UDP.
        let ask = |address: &Ipv4Addr| {
            let target = SocketAddr::from((*address, 80));
            [get(target).unwrap(), ask_udp(target).unwrap()]
        };
        let answers = client
            .within(&swarm, || addresses.iter().flat_map(ask).collect::<Vec<_>>())
            .unwrap();
        let answered: BTreeSet<_> = answers.into_iter().map(|answer| answer.backend).collect();
        assert_eq!(answered, names);
    }
}

#[test]
fn a_client_outside_reaches_a_port_in_host_mode() {
    let Some(swarm) = shared() else { return };
    let port = 9000 + swarm.number();
    let publish = format!("published={port},target=80,mode=host");
    let web = swarm
        .service("web", &["--mode", "global", "--publish", &publish])
        .unwrap();
    for task in web.wait_running(3).unwrap() {
        let target = SocketAddr::new(swarm.node(task.node.unwrap()).address(), port);
        let answer = swarm.client(0).netns().run(|| get(target)).unwrap();
        assert_eq!(
            (answer.backend, answer.peer.ip()),
            (task.name, swarm.client(0).address())
        );
    }
}
