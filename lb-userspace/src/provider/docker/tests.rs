//! What becomes of lists in the shapes that dockerd gives them, and of lists in any other shape.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{api, node_names, translate};
use crate::model::desired::{Desired, Interfaces, Refusal};
use crate::model::snapshot::{BackendState, EndpointMode, Port, Protocol, Service, Snapshot};

mod drift;
mod fake;
mod gossip;
mod local;
mod recorded;
mod watch;

const SERVICES: &str = include_str!("../../../tests/data/docker/services.json");
const TASKS: &str = include_str!("../../../tests/data/docker/tasks.json");
const NODES: &str = include_str!("../../../tests/data/docker/nodes.json");
const NETWORKS: &str = include_str!("../../../tests/data/docker/networks.json");

/// Services, tasks, nodes, networks.
type Lists = [Value; 4];

fn recorded() -> Lists {
    [SERVICES, TASKS, NODES, NETWORKS].map(|text| serde_json::from_str(text).unwrap())
}

fn read(lists: &Lists) -> Result<Option<(Snapshot, Vec<Refusal>)>, api::ApiError> {
    let [services, tasks, nodes, networks] = lists.each_ref().map(Value::to_string);
    let services = api::list(services.as_bytes())?;
    let tasks = api::list(tasks.as_bytes())?;
    let nodes = api::list(nodes.as_bytes())?;
    let networks = api::list(networks.as_bytes())?;
    Ok(translate(&services, &tasks, &nodes, &networks).ok())
}

fn translated(lists: &Lists) -> (Snapshot, Vec<String>) {
    let (snapshot, refused) = read(lists).unwrap().unwrap();
    (snapshot, refused.iter().map(ToString::to_string).collect())
}

fn service<'a>(snapshot: &'a Snapshot, network: &str, name: &str) -> &'a Service {
    let mut found = snapshot
        .services
        .iter()
        .filter(|s| s.network == network && s.name == name);
    let service = found.next().unwrap_or_else(|| panic!("no {name} in {network}"));
    assert!(found.next().is_none());
    service
}

fn backends(service: &Service) -> Vec<(&str, &str, String, BackendState)> {
    let backends = service.backends.iter();
    backends
        .map(|b| {
            assert_eq!((b.addresses.len(), b.weight, b.port), (1, 1, None));
            (b.name.as_str(), b.node.as_str(), b.addresses[0].to_string(), b.state)
        })
        .collect()
}

#[test]
fn nodes_have_an_address_that_others_reach() {
    let (snapshot, _) = translated(&recorded());
    let nodes: Vec<_> = snapshot
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.addresses.iter().map(ToString::to_string).collect()))
        .collect();
    let one = |address: &str| vec![address.to_owned()];
    assert_eq!(
        nodes,
        [
            ("m1", one("192.0.2.1")), // Its status says 0.0.0.0.
            ("n0leftxxxxxxxxxxxxxxxxxxx", vec![]),
            ("w1", one("192.0.2.2")),
            ("w2", one("192.0.2.3")),
        ]
    );
}

#[test]
fn nodes_of_the_same_host_name_go_by_their_ids() {
    let nodes = json!([
        { "ID": "b", "Description": { "Hostname": "same" } },
        { "ID": "a", "Description": { "Hostname": "same" } },
        { "ID": "c", "Description": null },
        { "ID": "d", "Description": { "Hostname": "other" } },
    ]);
    let nodes = api::list(nodes.to_string().as_bytes()).unwrap();
    let names: Vec<_> = node_names(&nodes).into_iter().collect();
    assert_eq!(names, [("a", "a"), ("b", "b"), ("c", "c"), ("d", "other")]);
}

#[test]
fn overlay_networks_have_their_number_and_ranges() {
    let (snapshot, refused) = translated(&recorded());
    let networks: Vec<_> = snapshot
        .networks
        .iter()
        .map(|n| (n.name.as_str(), n.id, n.subnets.len(), n.encrypted))
        .collect();
    assert_eq!(
        networks,
        [
            ("ingress", 4096, 1, false),
            ("secret_net", 4099, 1, true),
            ("shop_back", 4098, 2, false),
            ("shop_front", 4097, 1, false),
        ]
    );
    assert_eq!(
        refused,
        [
            "network secret_net: it is encrypted and the tunnel between nodes is not: never carried there, \
             left to Docker's own overlay",
            "published port 36412/sctp of service shop_web: only tcp and udp are balanced; \
             it is left to the kernel's own stack",
        ]
    );
}

#[test]
fn a_rolling_update_follows_the_new_spec_and_the_tasks_as_they_are() {
    let (snapshot, _) = translated(&recorded());
    let front = service(&snapshot, "shop_front", "shop_web");
    assert_eq!(front.mode, EndpointMode::Vip);
    assert_eq!(front.vips, ["10.0.1.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(front.aliases, ["web", "www"]);
    assert!(
        front.ports.is_empty() && front.any_port,
        "every port of a VIP is forwarded"
    );
    let (ready, draining) = (BackendState::Ready, BackendState::Draining);
    assert_eq!(
        backends(front),
        [
            ("shop_web.1.tw1", "m1", "10.0.1.6".into(), ready),
            ("shop_web.2.tw2new", "w1", "10.0.1.8".into(), ready),
            ("shop_web.2.tw2old", "m1", "10.0.1.7".into(), draining),
        ]
    );
    // The task of the old spec is not on the network that the new spec adds.
    let back = service(&snapshot, "shop_back", "shop_web");
    assert_eq!(back.vips, ["10.0.2.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(back.aliases, ["web"]);
    assert_eq!(
        backends(back),
        [
            ("shop_web.1.tw1", "m1", "10.0.2.6".into(), ready),
            ("shop_web.2.tw2new", "w1", "10.0.2.8".into(), ready),
        ]
    );
}

#[test]
fn published_ports_are_on_the_ingress_network() {
    let (snapshot, _) = translated(&recorded());
    let web = service(&snapshot, "ingress", "shop_web");
    let port = |published, protocol, target| Port {
        protocol,
        port: target,
        target,
        published: Some(published),
    };
    assert_eq!(
        web.ports,
        [
            port(8080, Protocol::Tcp, 80),
            port(8080, Protocol::Udp, 53),
            port(30000, Protocol::Tcp, 80), // Chosen by Swarm; the one with mode=host is left alone.
        ]
    );
    assert_eq!(
        (&web.vips[..], &web.aliases[..], web.any_port),
        (&[][..], &[][..], false)
    );
    let addresses: Vec<_> = backends(web).into_iter().map(|(_, _, address, _)| address).collect();
    assert_eq!(addresses, ["10.0.0.6", "10.0.0.8", "10.0.0.7"]);
    let ingress = snapshot.services.iter().filter(|s| s.network == "ingress");
    assert_eq!(ingress.count(), 1, "host mode alone is not on ingress");
}

#[test]
fn a_global_dnsrr_service_has_no_vip_and_its_tasks_go_by_node() {
    let (snapshot, _) = translated(&recorded());
    let log = service(&snapshot, "shop_back", "log");
    assert_eq!(log.mode, EndpointMode::Dnsrr);
    assert_eq!((&log.vips[..], &log.ports[..]), (&[][..], &[][..]));
    let ready = BackendState::Ready;
    assert_eq!(
        backends(log),
        [
            ("log.n1managerxxxxxxxxxxxxxxxx.tlm1", "m1", "10.0.2.20".into(), ready),
            ("log.n2workerxxxxxxxxxxxxxxxxx.tlw1", "w1", "10.0.2.21".into(), ready),
        ]
    );
}

#[test]
fn a_change_from_vip_to_dnsrr_drops_the_old_vip() {
    let mut lists = recorded();
    lists[0][2]["Spec"]["EndpointSpec"]["Mode"] = json!("dnsrr");
    let (snapshot, _) = translated(&lists);
    let vault = service(&snapshot, "secret_net", "vault");
    assert_eq!((vault.mode, &vault.vips[..]), (EndpointMode::Dnsrr, &[][..]));
}

#[test]
fn vips_that_stand_for_none_leave_the_service_out() {
    for none in [json!(null), json!(""), json!("<nil>"), json!("0.0.0.0/0")] {
        let mut lists = recorded();
        lists[0][2]["Endpoint"]["VirtualIPs"][0]["Addr"] = none;
        let (snapshot, refused) = translated(&lists);
        assert!(snapshot.services.iter().all(|s| s.name != "vault"));
        let expected = "service vault in network secret_net: Swarm has not given it a VIP there yet";
        assert!(refused.iter().any(|r| r == expected), "{refused:?}");
    }
}

#[test]
fn a_task_on_an_unknown_node_is_refused() {
    let mut lists = recorded();
    lists[1][8]["NodeID"] = json!("elsewhere");
    let (snapshot, refused) = translated(&lists);
    assert_eq!(service(&snapshot, "secret_net", "vault").backends, []);
    let expected = "task vault.1.tv1: it runs on node \"elsewhere\", which the Swarm does not list";
    assert!(refused.iter().any(|r| r == expected), "{refused:?}");
}

#[test]
fn the_order_of_the_lists_does_not_matter() {
    let mut lists = recorded();
    let expected = translated(&lists);
    for list in &mut lists {
        list.as_array_mut().unwrap().reverse();
    }
    assert_eq!(translated(&lists), expected);
}

#[test]
fn no_node_at_all_is_an_error() {
    let mut lists = recorded();
    for nothing in [json!(null), json!([]), json!([null]), json!([{}])] {
        lists[2] = nothing;
        assert_eq!(read(&lists).unwrap(), None);
    }
}

#[test]
fn each_field_may_be_null_or_missing() {
    fn places(value: &Value, at: &str, out: &mut Vec<String>) {
        out.push(at.to_owned());
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    places(item, &format!("{at}/{index}"), out);
                }
            }
            Value::Object(fields) => {
                for (key, field) in fields {
                    places(field, &format!("{at}/{key}"), out);
                }
            }
            _ => {}
        }
    }
    let lists = recorded();
    let mut tried = 0;
    for list in 0..lists.len() {
        let mut all = Vec::new();
        places(&lists[list], "", &mut all);
        for place in all {
            let mut changed = lists.clone();
            *changed[list].pointer_mut(&place).unwrap() = Value::Null;
            read(&changed).unwrap_or_else(|error| panic!("null at {place}: {error}"));
            let Some((parent, key)) = place.rsplit_once('/') else {
                continue;
            };
            if let Some(fields) = changed[list].pointer_mut(parent).unwrap().as_object_mut() {
                fields.remove(key);
                read(&changed).unwrap_or_else(|error| panic!("without {place}: {error}"));
            }
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn what_is_no_answer_says_which() {
    let error = api::list::<api::Task>(br#"{"message":"This node is not a swarm manager."}"#).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the engine's answer to GET /tasks is not understood: "),
        "{error}"
    );
}

#[test]
fn the_snapshot_compiles_on_every_node() {
    let (snapshot, _) = translated(&recorded());
    for node in ["m1", "w1", "w2"] {
        let desired = Desired::compile(&snapshot, node, &Interfaces::new()).unwrap();
        assert!(!desired.services.is_empty());
    }
}

/// Any JSON, with what dockerd writes in places where it matters.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "\\PC{0,12}",
        Just(String::new()),
        Just("<nil>".into()),
        Just("running".into()),
        Just("netfront".into()),
        Just("255.255.255.255/99".into()),
        Just("fd00::1/64".into()),
        Just("16777216,,".into()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop_oneof![
            Just("ID".to_owned()),
            Just("Spec".to_owned()),
            Just("Name".to_owned()),
            Just("Addr".to_owned()),
            Just("Options".to_owned()),
            "[A-Z][a-z]{0,3}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Replaces what stands at the end of `path`, each step the so-many-th child.
fn replace(value: &mut Value, path: &[prop::sample::Index], new: Value) {
    let Some((step, rest)) = path.split_first() else {
        *value = new;
        return;
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            let at = step.index(items.len());
            replace(&mut items[at], rest, new);
        }
        Value::Object(fields) if !fields.is_empty() => {
            let at = step.index(fields.len());
            replace(fields.values_mut().nth(at).unwrap(), rest, new);
        }
        leaf => *leaf = new,
    }
}

proptest! {
    #[test]
    fn arbitrary_json_never_panics(lists in prop::array::uniform4(any_json())) {
        let _ = read(&lists);
    }

    #[test]
    fn changed_answers_never_panic_and_stay_in_order(
        changes in prop::collection::vec(
            (0_usize..4, prop::collection::vec(any::<prop::sample::Index>(), 1..8), any_json()), 1..5)
    ) {
        let mut lists = recorded();
        for (list, path, new) in changes {
            replace(&mut lists[list], &path, new);
        }
        if let Ok(Some((snapshot, refused))) = read(&lists) {
            prop_assert!(snapshot.services.iter().is_sorted_by(|a, b| (&a.network, &a.name) < (&b.network, &b.name)));
            prop_assert!(snapshot.nodes.is_sorted_by(|a, b| a.name < b.name));
            prop_assert!(snapshot.networks.is_sorted_by(|a, b| a.name < b.name));
            prop_assert!(refused.is_sorted_by(|a, b| a < b));
        }
    }
}
