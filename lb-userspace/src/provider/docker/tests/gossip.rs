//! A worker's view when no manager's agent answers.

use super::super::api::node::{Gossip, GossipedNetwork};
use super::super::role::Role;
use super::super::{api, from_gossip};
use super::recorded::{answer, calm};
use super::{backends, service};
use crate::model::desired::Refusal;
use crate::model::snapshot::{BackendState, EndpointMode, Protocol, Snapshot};

pub(super) fn networks() -> Vec<GossipedNetwork> {
    [
        answer!("worker-network-shop"),
        answer!("worker-network-blog"),
        answer!("worker-network-ingress"),
        answer!("worker-network-first_inside"),
    ]
    .into_iter()
    .map(|answer| api::object(answer).unwrap())
    .collect()
}

fn own() -> Role {
    Role::of(&api::object(answer!("worker-info")).unwrap())
}

fn merged(known: Option<&Snapshot>, networks: &[GossipedNetwork]) -> (Snapshot, Vec<String>) {
    let (snapshot, refused) = from_gossip(known, networks, &own()).unwrap();
    (snapshot, refused.iter().map(Refusal::to_string).collect())
}

/// The entry of a service in the network of that name.
fn gossip<'a>(networks: &'a mut [GossipedNetwork], network: &str, service: &str) -> &'a mut Gossip {
    let network = networks.iter_mut().find(|n| n.network.name == network).unwrap();
    let services = network.services.as_mut().unwrap();
    services.get_mut(service).unwrap().as_mut().unwrap()
}

#[test]
fn with_a_managers_last_word_nothing_is_lost() {
    let known = calm();
    let (snapshot, refused) = merged(Some(&known), &networks());
    assert_eq!(snapshot.nodes, known.nodes);
    assert_eq!(snapshot.networks, known.networks);
    assert_eq!(snapshot.services.len(), known.services.len());
    for (service, before) in snapshot.services.iter().zip(&known.services) {
        let mut expected = before.clone();
        expected.backends.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(*service, expected);
    }
    assert!(
        refused[0].starts_with("state of the Swarm: no manager's agent answers"),
        "{refused:?}"
    );
}

#[test]
fn alone_it_knows_what_its_networks_know() {
    let (snapshot, refused) = merged(None, &networks());
    let nodes: Vec<_> = snapshot
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.id.is_some()))
        .collect();
    assert_eq!(nodes, [("10.80.0.1", false), ("10.80.0.3", false), ("node2", true)]);
    let web = service(&snapshot, "shop", "web");
    assert_eq!(
        (web.mode, web.any_port, web.vips[0].to_string()),
        (EndpointMode::Vip, true, "10.0.1.2".into())
    );
    let ready = BackendState::Ready;
    assert_eq!(
        backends(web),
        [
            (
                "web.1.k73kn578vuxlo7qxcp1qtf7wf",
                "10.80.0.3",
                "10.0.1.15".into(),
                ready
            ),
            (
                "web.2.m81ehgrp0bx0t48frawor90ea",
                "10.80.0.1",
                "10.0.1.16".into(),
                ready
            ),
            ("web.3.na9fm9y7ztiur291wh4b54wfw", "node2", "10.0.1.17".into(), ready),
        ]
    );
    assert_eq!(service(&snapshot, "shop", "api").mode, EndpointMode::Dnsrr);
    let ports = &service(&snapshot, "ingress", "web").ports;
    assert!(ports.iter().all(|port| port.protocol == Protocol::Tcp) && ports.len() == 2);
    assert!(
        snapshot.services.iter().all(|s| !s.name.is_empty()),
        "plain containers are no service"
    );
    let taken = "published port 5353 of service web: this node's engine does not say its protocol";
    assert!(refused.iter().any(|r| r.starts_with(taken)), "{refused:?}");
}

#[test]
fn values_that_stand_for_none() {
    for none in ["", "<nil>", "0.0.0.0"] {
        let mut networks = networks();
        none.clone_into(&mut gossip(&mut networks, "shop", "web").vip);
        assert_eq!(
            service(&merged(None, &networks).0, "shop", "web").mode,
            EndpointMode::Dnsrr
        );
        // A manager knows it better.
        let (snapshot, _) = merged(Some(&calm()), &networks);
        assert_eq!(service(&snapshot, "shop", "web").vips[0].to_string(), "10.0.1.2");
    }
    let missing: GossipedNetwork = serde_json::from_value(serde_json::json!({
        "Id": "x", "Name": "shop", "Scope": "swarm", "Driver": "overlay", "Peers": null,
        "Options": { "com.docker.network.driver.overlay.vxlanid_list": "4097" },
        "Services": { "web": { "Tasks": [ null, { "Name": "web.1.k", "EndpointIP": "10.0.1.99", "Info": null } ] } }
    }))
    .unwrap();
    let (snapshot, refused) = merged(None, &[missing]);
    assert_eq!(service(&snapshot, "shop", "web").backends, []);
    let expected = "task web.1.k in network shop: this node's engine does not say on which node it runs";
    assert!(refused.iter().any(|r| r == expected), "{refused:?}");
}

#[test]
fn a_task_without_a_host_is_placed_if_it_was_known_or_is_here() {
    let mut networks = networks();
    for task in &mut gossip(&mut networks, "shop", "web").tasks {
        task.info.clear();
    }
    let (snapshot, _) = merged(Some(&calm()), &networks);
    assert_eq!(service(&snapshot, "shop", "web").backends.len(), 3);
    let (snapshot, _) = merged(None, &networks);
    let here: Vec<_> = service(&snapshot, "shop", "web")
        .backends
        .iter()
        .map(|b| b.node.as_str())
        .collect();
    assert_eq!(here, ["node2"]);
}

#[test]
fn what_drains_or_is_pending_stays_so_though_the_engine_lists_it_like_all_others() {
    let mut known = calm();
    let web = known
        .services
        .iter_mut()
        .find(|s| s.name == "web" && s.network == "shop")
        .unwrap();
    web.backends[1].state = BackendState::Draining;
    web.backends[1].pending = true;
    let (snapshot, _) = merged(Some(&known), &networks());
    let backends = &service(&snapshot, "shop", "web").backends;
    assert_eq!((backends[1].state, backends[1].pending), (BackendState::Draining, true));
    assert_eq!((backends[0].state, backends[0].pending), (BackendState::Ready, false));
}

#[test]
fn protocols_that_were_known_stay() {
    let (snapshot, refused) = merged(Some(&calm()), &networks());
    let ports: Vec<_> = service(&snapshot, "ingress", "web")
        .ports
        .iter()
        .map(|p| (p.published, p.protocol))
        .collect();
    assert_eq!(ports, [(Some(5353), Protocol::Udp), (Some(8080), Protocol::Tcp)]);
    assert!(refused.iter().all(|r| !r.starts_with("published port")), "{refused:?}");
    let mut networks = networks();
    gossip(&mut networks, "ingress", "web").ports = ["Target: 53, Publish: 53", "Target: 53, Publish: 53", "53"]
        .map(str::to_owned)
        .to_vec();
    let (snapshot, refused) = merged(None, &networks);
    let ports: Vec<_> = service(&snapshot, "ingress", "web")
        .ports
        .iter()
        .map(|p| p.protocol)
        .collect();
    assert_eq!(ports, [Protocol::Tcp, Protocol::Udp]);
    assert!(
        refused.iter().any(|r| r.contains("another way than expected")),
        "{refused:?}"
    );
}

#[test]
fn a_service_that_is_gone_refuses_and_other_networks_stay() {
    let known = calm();
    let mut networks = networks();
    networks[0].services.as_mut().unwrap().remove("web");
    let (snapshot, _) = merged(Some(&known), &networks);
    let web = service(&snapshot, "shop", "web");
    assert!(web.backends.is_empty() && !web.vips.is_empty());
    // The engine has nothing to say about a network without an endpoint.
    networks[0].services = None;
    assert_eq!(
        service(&merged(Some(&known), &networks).0, "shop", "web")
            .backends
            .len(),
        3
    );
    assert_eq!(
        service(&merged(Some(&known), &[]).0, "vault", "sealed").backends.len(),
        2
    );
}

#[test]
fn nothing_known_is_no_snapshot() {
    assert_eq!(from_gossip(None, &[], &Role::default()), None);
}
