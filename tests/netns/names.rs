//! Names, asked as workloads ask them: of the agent on their own node.

use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType::{A, AAAA};
use lb_tests::cluster::{Backend, Family, Spec, Workload};
use lb_tests::dns::{Reply, Upstream, ask, ask_pointer, ask_tcp};

use super::shared;

/// Where the shared cluster's agents forward: the second client.
pub(crate) const UPSTREAM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 80, 0, 102)), 5300);

/// The data of a good answer, sorted.
#[track_caller]
fn data(reply: &Reply) -> Vec<&str> {
    assert_eq!(reply.code, ResponseCode::NoError, "{reply:?}");
    reply.data.iter().map(String::as_str).collect()
}

fn addresses(workloads: &[&Workload], family: Family) -> Vec<String> {
    let mut addresses: Vec<_> = workloads
        .iter()
        .map(|workload| workload.address(family).to_string())
        .collect();
    addresses.sort();
    addresses
}

#[test]
fn services_tasks_and_addresses_have_names() {
    let Some(cluster) = shared() else { return };
    let api = cluster
        .deploy(Spec::tcp().named("names-api").alias("names-alias").on(&[0, 1]))
        .unwrap();
    let rr = cluster
        .deploy(Spec::tcp().named("names-rr").dnsrr().on(&[0, 1, 2]))
        .unwrap();
    let backends = [
        cluster.workload(0, "shop"),
        cluster.workload(1, "shop"),
        cluster.workload(2, "shop"),
    ];
    let here = cluster.workloads(2, "shop")[1].netns();
    for server in Family::BOTH.map(|family| cluster.node(2).dns(family)) {
        for (family, kind) in [(Family::V4, A), (Family::V6, AAAA)] {
            let vip = api.vip(family).ip();
            here.run(|| {
                for name in ["names-api", "names-api.shop", "names-alias", "NAMES-api."] {
                    let reply = ask(server, name, kind).unwrap();
                    assert_eq!(data(&reply), [vip.to_string()], "{name}");
                    assert_eq!(reply.ttl, Some(5), "{name}");
                }
                let reply = ask(server, "tasks.names-api", kind).unwrap();
                assert_eq!(data(&reply), addresses(&backends[..2], family));
                let reply = ask(server, "names-rr", kind).unwrap();
                assert_eq!(data(&reply), addresses(&backends, family));
                let reply = ask_tcp(server, "tasks.names-rr", kind).unwrap();
                assert_eq!(data(&reply), addresses(&backends, family));
                let task = &rr.backends()[1];
                assert_eq!(
                    data(&ask(server, task, kind).unwrap()),
                    addresses(&backends[1..2], family),
                    "{task}"
                );
                let reply = ask_pointer(server, backends[1].address(family)).unwrap();
                assert!(data(&reply).iter().any(|name| name.starts_with(task)), "{reply:?}");
            });
        }
    }
}

#[test]
fn the_other_family_is_no_data_and_drained_tasks_are_not_named() {
    let Some(cluster) = shared() else { return };
    let four = cluster.deploy(Spec::tcp().named("names-four").on(&[0, 1])).unwrap();
    four.change(|service| {
        service.vip.retain(std::net::IpAddr::is_ipv4);
        service
            .backend
            .iter_mut()
            .for_each(|backend| backend.addresses.retain(std::net::IpAddr::is_ipv4));
    })
    .unwrap();
    let server = cluster.node(0).dns(Family::V4);
    let here = cluster.workload(0, "shop").netns();
    assert_eq!(data(&here.run(|| ask(server, "names-four", A)).unwrap()).len(), 1);
    for name in ["names-four", "tasks.names-four"] {
        let reply = here.run(|| ask(server, name, AAAA)).unwrap();
        assert_eq!(data(&reply), [""; 0], "{name}");
    }
    four.drain(&four.backends()[0]).unwrap();
    let reply = here.run(|| ask(server, "tasks.names-four", A)).unwrap();
    assert_eq!(data(&reply), addresses(&[cluster.workload(1, "shop")], Family::V4));
}

#[test]
fn names_are_known_in_their_own_network_alone() {
    let Some(cluster) = shared() else { return };
    let [shop, blog] = ["shop", "blog"].map(|network| {
        cluster
            .deploy(
                Spec::tcp()
                    .named(&format!("names-only-{network}"))
                    .network(network)
                    .on(&[0]),
            )
            .unwrap()
    });
    let server = cluster.node(0).dns(Family::V4);
    let _upstream = Upstream::start(
        cluster.client(1).netns(),
        UPSTREAM,
        "nothing.test.",
        Ipv4Addr::LOCALHOST,
    );
    for (service, network, other) in [(&shop, "shop", "blog"), (&blog, "blog", "shop")] {
        let inside = cluster.workload(0, network).netns();
        let reply = inside.run(|| ask(server, service.name(), A)).unwrap();
        assert_eq!(data(&reply), [service.vip(Family::V4).ip().to_string()]);
        let outside = cluster.workload(0, other).netns();
        for name in [service.name().to_owned(), format!("tasks.{}", service.name())] {
            let reply = outside.run(|| ask(server, &name, A)).unwrap();
            assert_ne!(reply.code, ResponseCode::NoError, "{name} from {other}: {reply:?}");
            assert!(reply.data.is_empty(), "{name} from {other}: {reply:?}");
        }
    }
}

#[test]
fn unknown_names_are_forwarded_and_fail_when_no_upstream_answers() {
    let upstreams = ["10.80.0.101:5300".parse().unwrap()];
    let builder = lb_tests::cluster::Cluster::builder()
        .nodes(1)
        .clients(1)
        .upstreams(&upstreams);
    let Some(cluster) = super::own(builder) else { return };
    let server = cluster.node(0).dns(Family::V4);
    let here = cluster.workload(0, "shop").netns();
    let reply = here.run(|| ask(server, "www.example.test", A)).unwrap();
    assert_eq!(reply.code, ResponseCode::ServFail, "nobody is there to ask");
    let address = Ipv4Addr::new(192, 0, 2, 1);
    let _upstream = Upstream::start(cluster.client(0).netns(), upstreams[0], "www.example.test.", address).unwrap();
    let reply = here.run(|| ask(server, "www.example.test", A)).unwrap();
    assert_eq!(data(&reply), ["192.0.2.1"]);
    let reply = here.run(|| ask_tcp(server, "www.example.test", A)).unwrap();
    assert_eq!(data(&reply), ["192.0.2.1"]);
    let reply = here.run(|| ask(server, "other.example.test", A)).unwrap();
    assert_eq!(reply.code, ResponseCode::NXDomain);
}

#[test]
fn an_answer_that_does_not_fit_is_truncated_and_whole_over_tcp() {
    let Some(cluster) = shared() else { return };
    let many = cluster
        .deploy(Spec::tcp().named("names-many").dnsrr().on(&[0]))
        .unwrap();
    many.change(|service| {
        // Nobody connects to these: only the size of the answer matters.
        service.backend = (0..60)
            .map(|host| Backend {
                name: format!("names-many.{host}"),
                node: "node1".into(),
                addresses: vec![Ipv4Addr::new(10, 1, 1, 100 + host).into()],
                port: None,
                weight: 1,
                state: "ready",
            })
            .collect();
    })
    .unwrap();
    let server = cluster.node(0).dns(Family::V4);
    let here = cluster.workload(0, "shop").netns();
    let reply = here.run(|| ask(server, "names-many", A)).unwrap();
    assert!(reply.truncated, "60 addresses do not fit in 512 bytes: {reply:?}");
    let reply = here.run(|| ask_tcp(server, "names-many", A)).unwrap();
    assert_eq!((reply.truncated, reply.data.len()), (false, 60));
}
