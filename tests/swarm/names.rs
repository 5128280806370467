//! Names, asked of the agents: by the nodes, by containers through their gateway, by others; and what containers hear
//! from Docker's own resolver is the same.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType::{A, AAAA, MX};
use lb_tests::dns::{Reply, Upstream, ask, ask_pointer, ask_tcp};
use lb_tests::swarm::{Balanced, Network, Task};
use toml::{Table, toml};

use super::balanced;

/// Where the shared Swarm's agents forward: its client.
const UPSTREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 80, 0, 101)), 53);
/// A node as its containers see it, on every node.
const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(172, 18, 0, 1)), 53);

/// What the shared Swarm's agents have in their configuration.
pub(crate) fn configuration() -> Table {
    toml! {
        [dns]
        enabled = true
        listen = "0.0.0.0:53"
        upstreams = ["10.80.0.101"]
    }
}

/// The data of a good answer, sorted.
#[track_caller]
fn data(reply: &Reply) -> Vec<&str> {
    assert_eq!(reply.code, ResponseCode::NoError, "{reply:?}");
    reply.data.iter().map(String::as_str).collect()
}

fn addresses(tasks: &[Task], network: &Network<'_>) -> BTreeSet<String> {
    let address = |task: &Task| task.address(network.name()).unwrap().to_string();
    tasks.iter().map(address).collect()
}

/// What an agent would tell a client at this address, as `lbctl dns query` shows it.
fn told(swarm: &Balanced, index: usize, name: &str, client: Ipv4Addr) -> BTreeSet<String> {
    let arguments = ["dns", "query", name, "--client", &client.to_string()];
    let answer = swarm.lbctl_json(index, &arguments).unwrap()["items"][0].clone();
    assert_eq!(answer["source"], "local", "{name}: {answer:#}");
    let records = answer["records"].as_array().cloned().unwrap_or_default();
    let data = |record: &serde_json::Value| Some(record["data"].as_str()?.to_owned());
    records.iter().filter_map(data).collect()
}

#[test]
fn agents_say_what_docker_says() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let alias = format!("www-{}", swarm.number());
    let named = format!("name={},alias={alias}", network.name());
    let host = format!("host-{}", swarm.number());
    let web = swarm
        .service("web", &["--replicas", "2", "--network", &named, "--hostname", &host])
        .unwrap();
    let options = [
        "--replicas",
        "2",
        "--network",
        network.name(),
        "--endpoint-mode",
        "dnsrr",
    ];
    let api = swarm.service("api", &options).unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    let others = swarm.wait_serving(&api, 2).unwrap();

    let vip = BTreeSet::from([web.vip(network.id()).unwrap().to_string()]);
    let (all, rest) = (addresses(&tasks, &network), addresses(&others, &network));
    let mut names = vec![
        (web.name().to_owned(), vip.clone()),
        (web.name().to_uppercase(), vip.clone()),
        (alias.clone(), vip.clone()),
        (format!("tasks.{}", web.name()), all.clone()),
        (format!("tasks.{alias}"), all.clone()),
        (host, all),
        (api.name().to_owned(), rest.clone()),
        (format!("tasks.{}", api.name()), rest.clone()),
    ];
    for task in &tasks {
        let own = BTreeSet::from([task.address(network.name()).unwrap().to_string()]);
        names.push((task.name.clone(), own.clone()));
        names.push((task.container.as_deref().unwrap()[..12].to_owned(), own));
    }
    let with_network = names
        .iter()
        .map(|(name, expected)| (format!("{name}.{}", network.name()), expected.clone()));
    names.extend(with_network.collect::<Vec<_>>());

    let client = &others[0];
    let here = client.address(network.name()).unwrap();
    for (name, expected) in &names {
        let docker = client.exec(&swarm, &["resolve", name]).unwrap();
        let docker: BTreeSet<_> = docker.lines().map(str::to_owned).collect();
        assert_eq!(docker, *expected, "Docker about {name}");
        assert_eq!(
            told(&swarm, client.node.unwrap(), name, here),
            *expected,
            "the agent about {name}"
        );
    }

    // Everyone knows names with their network: a node, a container of another network, a host outside.
    let everyone = names.iter().filter(|(name, _)| name.ends_with(network.name()));
    let node = SocketAddr::new(swarm.node(2).address(), 53);
    let hear = |name: &str, expected: &BTreeSet<String>, server: SocketAddr| {
        for reply in [ask(server, name, A).unwrap(), ask_tcp(server, name, A).unwrap()] {
            let heard: BTreeSet<_> = data(&reply).into_iter().map(str::to_owned).collect();
            assert_eq!(heard, *expected, "{name} at {server}");
        }
    };
    for (name, expected) in everyone {
        swarm.node(1).netns().run(|| hear(name, expected, node));
        swarm.client(0).netns().run(|| hear(name, expected, node));
        client.within(&swarm, || hear(name, expected, GATEWAY)).unwrap();
    }
}

#[test]
fn addresses_have_names_and_what_there_is_not_is_no_data() {
    let Some(swarm) = balanced() else { return };
    let network = swarm.network("shop", &[]).unwrap();
    let web = swarm
        .service("web", &["--replicas", "2", "--network", network.name()])
        .unwrap();
    let tasks = swarm.wait_serving(&web, 2).unwrap();
    let server = SocketAddr::new(swarm.node(0).address(), 53);
    let node = swarm.node(0).netns();
    for task in &tasks {
        let address = task.address(network.name()).unwrap().into();
        let reply = node.run(|| ask_pointer(server, address)).unwrap();
        assert_eq!(data(&reply), [format!("{}.{}.", task.name, network.name())]);
    }
    for prefix in ["", "tasks."] {
        let name = format!("{prefix}{}.{}", web.name(), network.name());
        for kind in [AAAA, MX] {
            let reply = node.run(|| ask(server, &name, kind)).unwrap();
            assert_eq!(data(&reply), [""; 0], "{name} {kind}");
        }
    }
    // The names follow the tasks.
    let tasks = web.scale(3).unwrap();
    let mut names: Vec<_> = tasks.iter().map(|task| task.name.clone()).collect();
    names.sort();
    swarm.wait_known(web.name(), &names).unwrap();
    let name = format!("tasks.{}.{}", web.name(), network.name());
    let reply = node.run(|| ask(server, &name, A)).unwrap();
    let heard: BTreeSet<_> = data(&reply).into_iter().map(str::to_owned).collect();
    assert_eq!(heard, addresses(&tasks, &network));
}

#[test]
fn other_names_are_forwarded_and_fail_when_nobody_answers() {
    let Some(swarm) = balanced() else { return };
    let servers: Vec<_> = swarm
        .nodes()
        .iter()
        .map(|node| SocketAddr::new(node.address(), 53))
        .collect();
    let node = swarm.node(0).netns();
    for server in &servers {
        let reply = node.run(|| ask(*server, "www.example.test", A)).unwrap();
        assert_eq!(reply.code, ResponseCode::ServFail, "nobody is there to ask");
    }
    let address = Ipv4Addr::new(192, 0, 2, 1);
    let _upstream = Upstream::start(swarm.client(0).netns(), UPSTREAM, "www.example.test.", address).unwrap();
    for server in &servers {
        node.run(|| {
            assert_eq!(data(&ask(*server, "www.example.test", A).unwrap()), ["192.0.2.1"]);
            assert_eq!(data(&ask_tcp(*server, "www.example.test", A).unwrap()), ["192.0.2.1"]);
            let reply = ask(*server, "other.example.test", A).unwrap();
            assert_eq!(reply.code, ResponseCode::NXDomain);
        });
    }
}
