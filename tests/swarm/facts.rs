//! What Docker says and makes, as the load balancer relies on it: a Docker that does otherwise fails here first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use lb_tests::client::get;
use lb_tests::swarm::{EXEC_ROOT, Node, Swarm, Task, wait_until};
use serde_json::Value;

use super::shared;

/// What a node says about a network, with what it knows of the services on it.
fn verbose(node: &Node, network: &str) -> Value {
    node.api(&format!("/networks/{network}?verbose=true")).unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn node_of<'a>(swarm: &'a Swarm, task: &Task) -> &'a Node {
    swarm.node(task.node.expect("a node"))
}

/// `02:42` and the address: the MAC that Docker gives to whoever has an address in an overlay.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Addresses of the interfaces in a namespace on a node, by address: the interface's MAC.
fn interfaces(node: &Node, namespace: &str) -> BTreeMap<String, String> {
    let links = node.json_within(namespace, "ip", &["address", "show"]).unwrap();
    let mut found = BTreeMap::new();
    for link in list(&links) {
        for address in list(&link["addr_info"]) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            found.insert(text(&address["local"]), text(&link["address"]));
        }
    }
    found
}

#[test]
fn the_gateway_bridge_lists_every_container_by_its_sandbox() {
    let Some(swarm) = shared() else { return };
    // Published: only then the task has a filter, which must leave this address alone.
    let web = swarm.service("web", &["--mode", "global", "--publish", "80"]).unwrap();
    for task in web.wait_running(3).unwrap() {
        let node = node_of(&swarm, &task);
        let bridge = verbose(node, "docker_gwbridge");
        assert_eq!(
            (
                &bridge["Scope"],
                &bridge["Driver"],
                &bridge["IPAM"]["Config"][0]["Gateway"]
            ),
            (&"local".into(), &"bridge".into(), &"172.18.0.1".into())
        );
        let container = task.inspect(&swarm).unwrap();
        let sandbox = container["NetworkSettings"]["SandboxID"].as_str().unwrap();
        let endpoint = &bridge["Containers"][task.container.as_deref().unwrap()];
        assert_eq!(endpoint["Name"], format!("gateway_{}", &sandbox[..12]), "{bridge:#}");
        let (address, length) = endpoint["IPv4Address"].as_str().unwrap().split_once('/').unwrap();
        assert_eq!(length, "16");
        let inside = interfaces(node, &format!("{EXEC_ROOT}/netns/{}", &sandbox[..12]));
        assert_eq!(
            inside.get(address).map(String::as_str),
            endpoint["MacAddress"].as_str(),
            "{inside:?}"
        );

        let target = SocketAddr::new(address.parse().unwrap(), 80);
        let answer = node.netns().run(|| get(target)).unwrap();
        assert_eq!(
            (answer.backend, answer.peer.ip()),
            (task.name, Ipv4Addr::new(172, 18, 0, 1).into())
        );
        assert_eq!(bridge["Containers"]["ingress-sbox"]["Name"], "gateway_ingress-sbox");
    }
}

#[test]
fn an_overlays_namespace_has_bridge_tunnel_and_every_mac() {
    let Some(swarm) = shared() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let elsewhere = ["--network", network.name(), "--constraint", "node.hostname!=node3"];
    let web = swarm
        .service("web", &[&["--replicas", "4"][..], &elsewhere].concat())
        .unwrap();
    let tasks = web.wait_running(4).unwrap();
    let addresses: Vec<_> = tasks.iter().map(|task| task.address(network.name()).unwrap()).collect();
    for task in &tasks {
        // A bridge learns of its own ports by their packets.
        let everyone = || {
            addresses
                .iter()
                .for_each(|address| drop(get((*address, 80).into()).unwrap()))
        };
        task.within(&swarm, everyone).unwrap();
    }
    let vni = network.vni().unwrap();
    assert!(vni >= 4096, "{vni}");
    for node in &swarm.nodes()[..2] {
        let namespace = network.namespace();
        let links = node
            .json_within(&namespace, "ip", &["-details", "link", "show"])
            .unwrap();
        let link = |name: &str| list(&links).find(|link| link["ifname"] == name).unwrap_or(&Value::Null);
        assert_eq!(link("br0")["linkinfo"]["info_kind"], "bridge", "{links:#}");
        assert_eq!(link("br0")["mtu"], 1450);
        let tunnel = &link("vxlan0")["linkinfo"];
        assert_eq!(
            (&tunnel["info_data"]["id"], &tunnel["info_data"]["port"]),
            (&vni.into(), &4789.into())
        );
        assert!(
            interfaces(node, &namespace)
                .keys()
                .any(|address| address.ends_with(".1"))
        );

        let fdb = node.json_within(&namespace, "bridge", &["fdb", "show"]).unwrap();
        let neighbours = node
            .json_within(&namespace, "ip", &["neighbour", "show", "dev", "vxlan0"])
            .unwrap();
        for (task, address) in tasks.iter().zip(&addresses) {
            let mac = mac(*address);
            let inside = interfaces(node_of(&swarm, task), &task.namespace(&swarm).unwrap());
            assert_eq!(inside.get(&address.to_string()), Some(&mac));
            let home = node_of(&swarm, task);
            let entries: Vec<_> = list(&fdb).filter(|entry| entry["mac"] == *mac).collect();
            if home.name() == node.name() {
                let port = entries.iter().find_map(|entry| entry["ifname"].as_str());
                assert!(
                    port.is_some_and(|port| port.starts_with("veth")),
                    "{mac} at home: {entries:#?}"
                );
                continue;
            }
            let remote = entries.iter().find(|entry| entry["dst"] == home.address().to_string());
            let remote = remote.unwrap_or_else(|| panic!("{mac} is on {}: {entries:#?}", home.name()));
            assert_eq!(
                (&remote["ifname"], &remote["state"]),
                (&"vxlan0".into(), &"permanent".into())
            );
            let known = list(&neighbours).find(|entry| entry["dst"] == address.to_string());
            assert_eq!(known.map(|entry| &entry["lladdr"]), Some(&mac.into()), "{neighbours:#}");
        }
    }
    // Who has no task on a network has nothing of it.
    let error = swarm
        .node(2)
        .json_within(&network.namespace(), "ip", &["link"])
        .unwrap_err();
    assert!(format!("{error:#}").contains("No such file"), "{error:#}");
}

#[test]
fn a_worker_sees_services_of_its_networks_and_no_others() {
    let Some(swarm) = shared() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let options = ["--replicas", "4", "--network", network.name(), "--publish", "80"];
    let web = swarm
        .service(
            "web",
            &[&options[..], &["--constraint", "node.hostname!=node3"]].concat(),
        )
        .unwrap();
    let tasks = web.wait_running(4).unwrap();
    let worker = swarm.node(1);

    for (name, id) in [(network.name(), network.id().to_owned()), ("ingress", ingress(&swarm))] {
        let expected: BTreeSet<_> = tasks
            .iter()
            .map(|task| {
                let host = node_of(&swarm, task).address().to_string();
                (task.name.clone(), task.address(name).unwrap().to_string(), host)
            })
            .collect();
        // What other nodes know comes by gossip.
        let service = wait_until("the worker knows all tasks", || {
            let service = verbose(worker, &id)["Services"][web.name()].clone();
            let known = list(&service["Tasks"]).filter_map(|task| {
                let text = |value: &Value| Some(value.as_str()?.to_owned());
                Some((
                    text(&task["Name"])?,
                    text(&task["EndpointIP"])?,
                    text(&task["Info"]["Host IP"])?,
                ))
            });
            let complete = known.collect::<BTreeSet<_>>() == expected;
            Ok(if complete {
                Ok(service)
            } else {
                Err(format!("{service:#} instead of {expected:#?}"))
            })
        });
        let service = service.unwrap();
        assert_eq!(service["VIP"], web.vip(&id).unwrap().to_string());
        let ports: Vec<_> = list(&service["Ports"]).filter_map(Value::as_str).collect();
        if name == "ingress" {
            // No protocol.
            assert_eq!(
                ports,
                [format!("Target: 80, Publish: {}", web.published("tcp", 80).unwrap())]
            );
        } else {
            assert_eq!(ports, [""; 0]);
        }
        // Local endpoints only, and this node's own.
        let containers = &verbose(worker, &id)["Containers"];
        let own = if name == "ingress" {
            "ingress-sbox".to_owned()
        } else {
            format!("lb-{name}")
        };
        assert!(containers[&own]["IPv4Address"].is_string(), "{containers:#}");
        for task in &tasks {
            let here = !containers[task.container.as_deref().unwrap()].is_null();
            assert_eq!(here, task.node == Some(1), "{}: {containers:#}", task.name);
        }
    }

    let error = swarm
        .node(2)
        .api(&format!("/networks/{}?verbose=true", network.id()))
        .unwrap_err();
    assert!(format!("{error:#}").contains("404"), "{error:#}");
    let error = worker.api("/services").unwrap_err();
    assert!(format!("{error:#}").contains("503"), "{error:#}");
    let [manager, worker] = [swarm.manager(), worker].map(|node| node.api("/info").unwrap()["Swarm"].clone());
    assert_eq!(
        (
            &manager["ControlAvailable"],
            &worker["ControlAvailable"],
            &worker["NodeAddr"]
        ),
        (&true.into(), &false.into(), &"10.80.0.2".into())
    );
}

#[test]
fn without_a_virtual_address_a_worker_says_nil() {
    let Some(swarm) = shared() else { return };
    let network = swarm.network("shop", &["--attachable"]).unwrap();
    let options = [
        "--mode",
        "global",
        "--endpoint-mode",
        "dnsrr",
        "--network",
        network.name(),
    ];
    let api = swarm.service("api", &options).unwrap();
    api.wait_running(3).unwrap();
    assert_eq!(api.inspect().unwrap()["Endpoint"]["VirtualIPs"], Value::Null);
    let services = verbose(swarm.node(1), network.id())["Services"].clone();
    assert_eq!(services[api.name()]["VIP"], "<nil>", "{services:#}");
}

fn ingress(swarm: &Swarm) -> String {
    verbose(swarm.manager(), "ingress")["Id"].as_str().unwrap().to_owned()
}
