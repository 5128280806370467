//! What the engine 20.10 answered on a Swarm of three; README.md beside the answers says of what.

use super::super::role::{Part, Role};
use super::super::{api, translate};
use super::{backends, service};
use crate::model::desired::{Desired, Interfaces};
use crate::model::snapshot::{BackendState, EndpointMode, Port, Protocol, Snapshot};

macro_rules! answer {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/data/docker/real/", $name, ".json")).as_slice()
    };
}
pub(super) use answer;

pub(super) fn swarm(services: &[u8], tasks: &[u8]) -> (Snapshot, Vec<String>) {
    let (snapshot, refused) = translate(
        &api::list(services).unwrap(),
        &api::list(tasks).unwrap(),
        &api::list(answer!("nodes")).unwrap(),
        &api::list(answer!("manager-networks")).unwrap(),
    )
    .unwrap();
    (snapshot, refused.iter().map(ToString::to_string).collect())
}

pub(super) fn calm() -> Snapshot {
    swarm(answer!("services"), answer!("tasks")).0
}

#[test]
fn nodes_have_ids_and_networks_their_numbers() {
    let (snapshot, refused) = swarm(answer!("services"), answer!("tasks"));
    let nodes: Vec<_> = snapshot
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.id.as_deref().unwrap(), n.addresses[0].to_string()))
        .collect();
    assert_eq!(
        nodes,
        [
            ("node1", "yyz8og7yk16h4x57m7ehjqf1w", "10.80.0.1".into()),
            ("node2", "qh1ydg2yvqsuxawgevyujxmni", "10.80.0.2".into()),
            ("node3", "16vbcqkn0g94ygwgceiljnn7x", "10.80.0.3".into()),
        ]
    );
    let networks: Vec<_> = snapshot
        .networks
        .iter()
        .map(|n| (n.name.as_str(), n.id, n.subnets[0].to_string(), n.encrypted))
        .collect();
    assert_eq!(
        networks,
        [
            ("blog", 4098, "10.0.2.0/24".into(), false),
            ("first_inside", 4100, "10.0.4.0/24".into(), false),
            ("ingress", 4096, "10.0.0.0/24".into(), false),
            ("shop", 4097, "10.0.1.0/24".into(), false),
            ("vault", 4099, "10.0.3.0/24".into(), true),
        ]
    );
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("network vault: it is encrypted"), "{refused:?}");
}

#[test]
fn a_service_is_in_each_of_its_networks() {
    let snapshot = calm();
    let all: Vec<_> = snapshot
        .services
        .iter()
        .map(|s| {
            format!(
                "{}/{} {:?} {:?} {} {}",
                s.network,
                s.name,
                s.mode,
                s.vips,
                s.any_port,
                s.backends.len()
            )
        })
        .collect();
    assert_eq!(
        all,
        [
            "blog/api Dnsrr [] false 2",
            "blog/metrics Vip [10.0.2.4] true 3",
            "first_inside/first_front Vip [10.0.4.2] true 2",
            "ingress/first_front Vip [] false 2",
            "ingress/probed Vip [] false 2",
            "ingress/web Vip [] false 3",
            "shop/api Dnsrr [] false 2",
            "shop/probed Vip [10.0.1.8] true 2",
            "shop/web Vip [10.0.1.2] true 3",
            "vault/sealed Vip [10.0.3.2] true 2",
        ]
    );
    assert_eq!(service(&snapshot, "shop", "api").aliases, ["backend"]);
    assert_eq!(service(&snapshot, "blog", "api").aliases, [""; 0]);
    assert_eq!(service(&snapshot, "first_inside", "first_front").aliases, ["front"]);
    assert_eq!(service(&snapshot, "shop", "api").mode, EndpointMode::Dnsrr);
}

#[test]
fn published_ports_go_by_their_targets() {
    let snapshot = calm();
    let port = |published, protocol, target| Port {
        protocol,
        port: target,
        target,
        published: Some(published),
    };
    assert_eq!(
        service(&snapshot, "ingress", "web").ports,
        [port(5353, Protocol::Udp, 53), port(8080, Protocol::Tcp, 80)]
    );
    // Chosen by Swarm.
    assert_eq!(
        service(&snapshot, "ingress", "probed").ports,
        [port(30000, Protocol::Tcp, 80)]
    );
    let addresses: Vec<_> = backends(service(&snapshot, "ingress", "web"))
        .into_iter()
        .map(|(name, node, address, _)| format!("{name} {node} {address}"))
        .collect();
    assert_eq!(
        addresses,
        [
            "web.1.k73kn578vuxlo7qxcp1qtf7wf node3 10.0.0.15",
            "web.2.m81ehgrp0bx0t48frawor90ea node1 10.0.0.16",
            "web.3.na9fm9y7ztiur291wh4b54wfw node2 10.0.0.17",
        ]
    );
}

#[test]
fn two_published_ports_of_one_target_share_one_set() {
    let mut services: serde_json::Value = serde_json::from_slice(answer!("services")).unwrap();
    let ports = services[0]["Endpoint"]["Ports"].as_array_mut().unwrap();
    let mut second = ports[0].clone();
    second["PublishedPort"] = 8081.into();
    ports.push(second);
    let (snapshot, _) = swarm(services.to_string().as_bytes(), answer!("tasks"));
    let desired = Desired::compile(&snapshot, "node1", &Interfaces::new()).unwrap();
    let identities: Vec<_> = desired
        .frontends
        .iter()
        .filter(|(key, _)| key.family == 4 && [8080, 8081].contains(&key.port))
        .map(|(_, identity)| *identity)
        .collect();
    assert_eq!(identities.len(), 2);
    assert_eq!(identities[0], identities[1]);
    // The third one is on this node, and nobody has said yet where it is attached.
    assert_eq!(desired.services[&identities[0]].shares.len(), 2);
}

#[test]
fn tasks_of_global_services_go_by_their_node() {
    let snapshot = calm();
    let metrics = service(&snapshot, "blog", "metrics");
    let names: Vec<_> = metrics.backends.iter().map(|b| b.name.as_str()).collect();
    assert!(
        names.contains(&"metrics.qh1ydg2yvqsuxawgevyujxmni.335ro902iqe6uwaa0vvxgfooa"),
        "{names:?}"
    );
    let here = metrics.backends.iter().find(|b| b.name.contains("qh1ydg2")).unwrap();
    assert_eq!(here.aliases, ["5b153bcabc1d"]);
    // Published in host mode: left alone.
    assert!(
        snapshot
            .services
            .iter()
            .all(|s| s.network != "ingress" || s.name != "metrics")
    );
}

#[test]
fn during_an_update_what_has_to_go_drains() {
    let (snapshot, _) = swarm(answer!("services-updating"), answer!("tasks-updating"));
    for network in ["shop", "ingress"] {
        let states: Vec<_> = backends(service(&snapshot, network, "web"))
            .into_iter()
            .map(|(name, _, _, state)| (name, state))
            .collect();
        assert_eq!(
            states,
            [
                ("web.1.k73kn578vuxlo7qxcp1qtf7wf", BackendState::Ready),
                ("web.2.m81ehgrp0bx0t48frawor90ea", BackendState::Draining),
                ("web.3.na9fm9y7ztiur291wh4b54wfw", BackendState::Ready),
            ]
        );
    }
}

#[test]
fn tasks_of_a_paused_node_stay_and_those_of_a_lost_one_go() {
    let mut nodes: serde_json::Value = serde_json::from_slice(answer!("nodes")).unwrap();
    nodes[0]["Spec"]["Availability"] = "pause".into();
    let translated = |nodes: &serde_json::Value| {
        translate(
            &api::list(answer!("services")).unwrap(),
            &api::list(answer!("tasks")).unwrap(),
            &api::list(nodes.to_string().as_bytes()).unwrap(),
            &api::list(answer!("manager-networks")).unwrap(),
        )
        .unwrap()
        .0
    };
    assert_eq!(service(&translated(&nodes), "shop", "web").backends.len(), 3);
    nodes[0]["Status"]["State"] = "down".into();
    assert_eq!(service(&translated(&nodes), "shop", "web").backends.len(), 2);
}

#[test]
fn a_host_name_that_was_wished_for_is_a_name_of_the_task() {
    for (hostname, expected) in [
        ("front", &["5b153bcabc1d", "front"][..]),
        ("{{.Node.Hostname}}", &["5b153bcabc1d"]),
    ] {
        let mut tasks: serde_json::Value = serde_json::from_slice(answer!("tasks")).unwrap();
        tasks[0]["Spec"]["ContainerSpec"]["Hostname"] = hostname.into();
        let (snapshot, _) = swarm(answer!("services"), tasks.to_string().as_bytes());
        let metrics = service(&snapshot, "blog", "metrics");
        assert_eq!(
            metrics
                .backends
                .iter()
                .find(|b| b.name.contains("qh1ydg2"))
                .unwrap()
                .aliases,
            expected
        );
    }
}

#[test]
fn roles() {
    let manager = Role::of(&api::object(answer!("manager-info")).unwrap());
    assert_eq!(
        (&manager.part, manager.node.as_str()),
        (&Part::Manager, "yyz8og7yk16h4x57m7ehjqf1w")
    );
    let worker = Role::of(&api::object(answer!("worker-info")).unwrap());
    assert_eq!(worker.part, Part::Worker);
    assert_eq!(
        (worker.name.as_str(), worker.address),
        ("node2", "10.80.0.2".parse().ok())
    );
    assert_eq!(worker.managers, ["10.80.0.1:2377".parse().unwrap()]);
    let mut info: api::Info = api::object(answer!("worker-info")).unwrap();
    info.swarm.state = "locked".into();
    assert!(matches!(Role::of(&info).part, Part::None(reason) if reason.contains("docker swarm unlock")));
    assert!(matches!(Role::of(&api::Info::default()).part, Part::None(_)));
}

#[test]
fn a_refusal_is_told_in_the_engines_words() {
    assert!(api::message(answer!("worker-services-refused")).starts_with("This node is not a swarm manager."));
    assert_eq!(api::message(b"<html>"), "<html>");
}

#[test]
fn info_tells_who_a_node_is_and_who_manages() {
    let worker = api::object::<api::Info>(include_bytes!("../../../../tests/data/docker/info-worker.json"))
        .unwrap()
        .swarm;
    assert_eq!((worker.state.as_str(), worker.manager), ("active", false));
    assert_eq!(worker.node, "n2workerxxxxxxxxxxxxxxxxx");
    assert_eq!(worker.managers[0].address, "192.0.2.1:2377");
    let alone = api::object::<api::Info>(include_bytes!("../../../../tests/data/docker/info-alone.json"))
        .unwrap()
        .swarm;
    assert_eq!(
        (alone.state.as_str(), alone.node.as_str(), alone.managers.len()),
        ("inactive", "", 0)
    );
}
