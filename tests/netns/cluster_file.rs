//! The cluster file changes, or is broken.

use std::time::{Duration, Instant};

use lb_tests::client::get;
use lb_tests::cluster::{Cluster, Family, Published, Spec};
use lb_tests::lbctl;

use super::{own, shared};

#[test]
fn a_change_is_in_force_within_100_ms() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let target = web.on_node(2, Family::V4);
    let all = web.document().backend;
    let mut took: Vec<Duration> = (0..7)
        .map(|round| {
            // Only one of the two, in turn.
            let wanted = &all[round % 2];
            let only = vec![wanted.clone()];
            let start = Instant::now();
            cluster
                .edit(|document| document.service(web.name()).backend = only)
                .unwrap();
            cluster.client(0).netns().run(|| {
                loop {
                    let asked = start.elapsed();
                    // The old backend may answer, or reset a connection that it just got.
                    if get(target).is_ok_and(|answer| answer.backend == wanted.name) {
                        return asked;
                    }
                    assert!(asked < Duration::from_secs(3), "never in force");
                }
            })
        })
        .collect();
    took.sort();
    // The median: the other tests share these cores.
    assert!(took[3] < Duration::from_millis(100), "{took:?}");
}

#[test]
fn an_invalid_file_changes_nothing_and_status_says_where() {
    let Some(cluster) = own(Cluster::builder().nodes(1).clients(1)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    let node = cluster.node(0);
    let target = web.on_node(0, Family::V4);
    let client = cluster.client(0).netns();
    let good = std::fs::read_to_string(cluster.file()).unwrap();
    let line = 1 + good
        .lines()
        .position(|line| line.starts_with("weight"))
        .expect("a weight");
    for (bad, word) in [
        (good.replacen("weight = 1", "weight = 0", 1), "weight"),
        (good.replacen("weight = 1", "wait = 1", 1), "wait"),
        (good.replacen("weight = 1", "weight =", 1), "value"),
    ] {
        assert_ne!(bad, good);
        cluster.overwrite(&bad).unwrap();
        let start = Instant::now();
        loop {
            let text = String::from_utf8(lbctl::run(node, &["status"]).unwrap().stdout).unwrap();
            if text.contains(&format!("cluster.toml:{line}")) && text.contains(word) {
                break;
            }
            let patient = start.elapsed() < Duration::from_secs(3);
            assert!(patient, "status is silent about {word:?} in line {line}:\n{text}");
        }
        assert_eq!(web.backends(), [client.run(|| get(target)).unwrap().backend]);
        let metrics = node.metrics("/metrics").unwrap();
        assert!(
            metrics.contains("lb_provider_connected 0") || metrics.contains("lb_provider_connected{"),
            "{metrics}"
        );
    }
    // A restart with a broken file: the tables stay as they are, and new connections are served.
    node.agent().kill().unwrap();
    node.agent().spawn(node.netns()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(web.backends(), [client.run(|| get(target)).unwrap().backend]);
    cluster.edit(|_| ()).unwrap();
    node.agent().wait_ready().unwrap();
    cluster.settle().unwrap();
    assert_eq!(web.backends(), [client.run(|| get(target)).unwrap().backend]);
}

#[test]
fn automatic_ports_are_in_their_range_and_stay() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().on(&[0])).unwrap();
    web.change(|service| service.ports[0].published = Some(Published::Automatic(true)))
        .unwrap();
    let port = || -> u16 {
        let list = lbctl::json(cluster.node(1), &["service", "inspect", web.name()]).unwrap();
        let item = list["items"].get(0).unwrap_or(&list);
        let port = item["ports"][0]["published"].as_u64();
        port.unwrap_or_else(|| panic!("no published port: {list}"))
            .try_into()
            .unwrap()
    };
    let first = port();
    assert!((30_000..=32_767).contains(&first), "{first}");
    for node in cluster.nodes() {
        let answer = cluster
            .client(0)
            .netns()
            .run(|| get(node.published(Family::V4, first)))
            .unwrap();
        assert_eq!(web.backends(), [answer.backend]);
    }
    // Others come and go around it.
    let other = cluster.deploy(Spec::tcp().on(&[0])).unwrap();
    other
        .change(|service| service.ports[0].published = Some(Published::Automatic(true)))
        .unwrap();
    assert_eq!(port(), first);
    drop(other);
    cluster.settle().unwrap();
    assert_eq!(port(), first);
}

#[test]
fn a_removed_service_is_gone() {
    let Some(cluster) = shared() else { return };
    let web = cluster.deploy(Spec::tcp().published().on(&[0])).unwrap();
    let (target, vip) = (web.on_node(1, Family::V4), web.vip(Family::V4));
    let client = cluster.client(0).netns();
    client.run(|| get(target)).unwrap();
    drop(web);
    cluster.settle().unwrap();
    // The port is the node's own again, and the VIP is nobody's.
    assert_eq!(
        client.run(|| get(target)).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let inside = cluster.workload(0, "shop").netns();
    let gone = inside.run(|| std::net::TcpStream::connect_timeout(&vip, Duration::from_millis(500)));
    assert!(gone.is_err());
}
