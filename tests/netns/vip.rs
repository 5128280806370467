//! VIPs: addresses inside networks, for workloads of their own network alone.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use lb_tests::client::{ask_udp, get, ping, tally};
use lb_tests::cluster::{Cluster, Family, Spec};

use super::{ask_seen, ask_udp_seen, assert_even, own, shared};

#[test]
fn local_and_remote_backends_answer_and_see_the_client() {
    let Some(cluster) = shared() else { return };
    answers(&cluster);
}

pub(crate) fn answers(cluster: &Cluster) {
    for network in ["shop", "blog"] {
        let web = cluster.deploy(Spec::tcp().network(network).on(&[0, 1, 2])).unwrap();
        let time = cluster.deploy(Spec::udp().network(network).on(&[0, 1, 2])).unwrap();
        for family in Family::BOTH {
            // The second workload of `shop` runs no backend of these; the one of `blog` does: hairpins included.
            let client = cluster.workloads(0, network).pop().unwrap();
            let hairpin = network == "blog";
            let netns = client.netns();
            let counts = if hairpin {
                netns.run(|| tally((0..12).map(|_| get(web.vip(family)))))
            } else {
                tally((0..12).map(|_| ask_seen(netns, web.vip(family))))
            };
            assert_even(&counts, &web.backends());
            let counts = if hairpin {
                netns.run(|| tally((0..12).map(|_| ask_udp(time.vip(family)))))
            } else {
                tally((0..12).map(|_| ask_udp_seen(netns, time.vip(family))))
            };
            assert_even(&counts, &time.backends());
        }
    }
}

#[test]
fn a_backend_reaches_itself() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().on(&[1])).unwrap();
    let time = cluster.deploy(Spec::udp().on(&[1])).unwrap();
    for family in Family::BOTH {
        let own = cluster.workload(1, "shop").netns();
        for _ in 0..3 {
            let answer = own.run(|| get(web.vip(family))).unwrap();
            assert_eq!(web.backends(), [answer.backend]);
            let answer = own.run(|| ask_udp(time.vip(family))).unwrap();
            assert_eq!(time.backends(), [answer.backend]);
        }
    }
}

/// Packets that a node's own stack has forwarded, of either family.
fn forwarded(cluster: &Cluster, node: usize) -> u64 {
    cluster.node(node).netns().run(|| {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
        let (v4, v6) = (text("snmp"), text("snmp6"));
        // Names in one line, numbers in the next.
        let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
        let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
        let v4 = pairs.find(|(name, _)| *name == "ForwDatagrams").unwrap().1;
        let v6 = v6
            .lines()
            .find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"))
            .unwrap();
        v4.parse::<u64>().unwrap() + v6.trim().parse::<u64>().unwrap()
    })
}

/// Packets of VIPs that the stacks of two nodes have forwarded, by the node with the backend, for a client on the first.
fn carried(cluster: &Cluster) -> [[u64; 2]; 2] {
    let client = cluster.workloads(0, "shop").pop().unwrap();
    [0, 1].map(|place| {
        let web = cluster.deploy(Spec::tcp().on(&[place])).unwrap();
        let time = cluster.deploy(Spec::udp().on(&[place])).unwrap();
        for family in Family::BOTH {
            // The backend's place is looked for once it is asked for the first time, as is the other node's MAC.
            client.netns().run(|| get(web.vip(family))).unwrap();
            client.netns().run(|| ask_udp(time.vip(family))).unwrap();
        }
        cluster.settle().unwrap();
        let before = [0, 1].map(|node| forwarded(cluster, node));
        for family in Family::BOTH {
            for _ in 0..5 {
                let seen = ask_seen(client.netns(), web.vip(family)).unwrap();
                assert_eq!(web.backends(), [seen.backend]);
                ask_udp_seen(client.netns(), time.vip(family)).unwrap();
            }
        }
        [0, 1].map(|node| forwarded(cluster, node) - before[node])
    })
}

#[test]
fn the_stack_of_the_clients_node_carries_nothing_of_a_vip() {
    let Some(cluster) = own(Cluster::builder().nodes(2)) else {
        return;
    };
    let [here, there] = carried(&cluster);
    assert_eq!(here, [0, 0]);
    // A backend's own node knows nothing of the flow.
    assert_eq!(there[0], 0);
    assert!(there[1] > 0);
}

#[test]
fn the_stack_of_the_clients_node_carries_vips_where_it_is_to() {
    let Some(cluster) = own(Cluster::builder().nodes(2).hand_over(false)) else {
        return;
    };
    let [here, there] = carried(&cluster);
    assert!(here[0] > 0 && there[0] > 0, "{here:?} {there:?}");
}

#[test]
fn a_vip_is_not_reachable_from_another_network() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().on(&[0, 1])).unwrap();
    let time = cluster.deploy(Spec::udp().on(&[0, 1])).unwrap();
    // A route that brings its packets for VIPs to a node, as any machine on the underlay could have.
    let stranger = cluster.client(0);
    let [node4, node6] = Family::BOTH.map(|family| cluster.node(0).address(family));
    let routes = format!("route replace 10.1.0.0/24 via {node4}\nroute replace fd01::/64 via {node6}");
    stranger.netns().ip(&routes).unwrap();
    for family in Family::BOTH {
        let inside = cluster.workload(0, "shop").netns();
        inside.run(|| get(web.vip(family))).expect("from inside");
        inside.run(|| ask_udp(time.vip(family))).expect("from inside");
        for netns in [
            cluster.workload(0, "blog").netns(),
            cluster.client(0).netns(),
            cluster.node(0).netns(),
        ] {
            let tcp = netns.run(|| std::net::TcpStream::connect_timeout(&web.vip(family), Duration::from_millis(700)));
            assert!(tcp.is_err(), "{} reaches {} of shop", netns.name(), web.vip(family));
            let udp = netns.run(|| lb_tests::client::Udp::open(time.vip(family))?.ask(Duration::from_millis(300)));
            assert!(
                udp.is_err(),
                "{} reaches {} of shop: {udp:?}",
                netns.name(),
                time.vip(family)
            );
        }
    }
}

#[test]
fn a_vip_answers_neighbour_requests_and_echo() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().on(&[1])).unwrap();
    for family in Family::BOTH {
        let vip = web.vip(family).ip();
        // On the link in `shop`; behind the gateway in `blog`.
        let here = cluster.workload(0, "shop").netns();
        here.run(|| ping(vip, Duration::from_secs(2)))
            .unwrap_or_else(|error| panic!("ping {vip}: {error}"));
        let text = here
            .output("ip", &["neigh", "show", &vip.to_string(), "dev", "eth0"])
            .unwrap();
        assert!(text.contains("lladdr"), "{vip}: {text:?}");
        // An address of the same range that is no VIP is nobody's.
        let free = if family == Family::V4 {
            "10.1.0.250"
        } else {
            "fd01::250"
        };
        here.run(|| ping(free.parse().unwrap(), Duration::from_millis(300)))
            .expect_err(free);
        cluster
            .workload(0, "blog")
            .netns()
            .run(|| ping(vip, Duration::from_millis(300)))
            .expect_err("another network");
    }
    let blog = cluster.deploy(Spec::tcp().network("blog").on(&[1])).unwrap();
    for family in Family::BOTH {
        let vip = blog.vip(family).ip();
        let here = cluster.workload(0, "blog").netns();
        here.run(|| ping(vip, Duration::from_secs(2)))
            .unwrap_or_else(|error| panic!("ping {vip}: {error}"));
    }
}

#[test]
fn a_port_that_the_vip_does_not_serve_is_refused_at_once() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().on(&[1])).unwrap();
    let here = cluster.workload(0, "shop").netns();
    for family in Family::BOTH {
        let mut target = web.vip(family);
        target.set_port(81);
        let start = Instant::now();
        let error = here.run(|| get(target)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}");
        let error = here.run(|| ask_udp(target)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target} udp");
        assert!(
            start.elapsed() < Duration::from_millis(900),
            "after {:?}",
            start.elapsed()
        );
    }
}
