//! Live flows go on, whatever happens to the agent, its programs, its tables and the cluster state.
//!
//! `LB_FAULT_FLOWS` is the number of TCP connections (a fifth as many UDP flows beside them), `LB_FAULT_UPDATES` that of
//! changes of services, `LB_FAULT_ABSENCE` the seconds without any cluster state.

mod death;
mod live;

use std::time::Duration;

use lb_tests::client::{ask_udp, get};
use lb_tests::cluster::{Cluster, Family, Port, Published, Service, Spec};
use lb_tests::evidence;
use lb_tests::require;
use lb_tests::traffic::{Style, Traffic};
use lb_userspace::datapath::probe::Features;
use lb_userspace::fault::Point;

use super::own;
use death::{another_build, change_something, die_at, start, tags};
use live::Live;

const PROMISE: &str = "no-flow-lost";
/// A start in a debug build, on a machine with other work.
fn patience() -> Duration {
    Duration::from_secs(90) * require::slowness()
}

fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        return default;
    }
    text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}"))
}

#[test]
fn no_flow_is_lost_wherever_the_agent_dies() {
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let changed = another_build(directory.path());
    let changed = [("LB_OBJECT", changed.to_str().unwrap().to_owned())];
    let shift = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let live = Live::open(&cluster);
    let node = cluster.node(0);
    let before = tags(node);
    // Migration has a test of its own.
    let tcx = Features::probe().tcx;
    let points = Point::ALL
        .into_iter()
        .filter(|point| !point.is_of_migration() && point.is_met(tcx));
    let mut count = 0;
    node.agent().stop().unwrap();
    for (number, point) in points.enumerate() {
        change_something(&cluster, &shift, number);
        // There and back: each death is one in the middle of an upgrade, and each start finds what a death has left.
        let build = if number % 2 == 0 { &changed[..] } else { &[] };
        die_at(node, point, build);
        live.busy.round();
        count += 1;
        if number % 8 == 7 {
            // The one that lives is an upgrade too.
            start(node, &changed);
            assert_ne!(tags(node), before, "the links carry the old programs");
            cluster.settle().unwrap();
            live.busy.round();
            node.agent().stop().unwrap();
        }
    }
    start(node, &[]);
    assert_eq!(tags(node), before, "the links carry other programs");
    cluster.settle().unwrap();
    live.busy.round();
    live.assert_lossless();
    evidence::record(
        PROMISE,
        "points at which the agent was killed, each in an upgrade",
        count,
    );
}

#[test]
fn no_flow_is_lost_when_the_layout_changes() {
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let live = Live::open(&cluster);
    let node = cluster.node(0);
    let layout = |version: u32, tables: &str| [("LB_LAYOUT", format!("{version}{tables}"))];
    let versions = || {
        let names = std::fs::read_dir(node.bpffs()).unwrap().flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut version = lb_common::abi::SCHEMA_VERSION;
    let tcx = Features::probe().tcx;
    // Where some of what is attached is of either version; without links, as far as that can be had.
    let halfway = if tcx { Point::MigrateLink } else { Point::MigrateLinks };
    node.agent().stop().unwrap();
    // Of some tables the rows have changed too: those begin empty.
    let mut count = 0;
    for tables in ["", ":marks,ports", ":settings,frontends,interfaces,counters,marks"] {
        let points = Point::ALL.into_iter().filter(|point| point.is_of_migration());
        for point in points.filter(|point| point.is_met(tcx)) {
            // Each begins where the one before was killed, in another version.
            version += 1;
            die_at(node, point, &layout(version, tables));
            live.busy.round();
            count += 1;
            // Somebody may go back before all is done.
            if point == halfway && tables.is_empty() {
                start(node, &layout(version - 1, ""));
                live.busy.round();
                assert_eq!(versions(), [format!("v{}", version - 1)]);
                node.agent().stop().unwrap();
            }
        }
        version += 1;
        start(node, &layout(version, tables));
        cluster.settle().unwrap();
        live.busy.round();
        assert_eq!(versions(), [format!("v{version}")]);
        node.agent().stop().unwrap();
        count += 1;
    }
    start(node, &layout(version, ""));
    live.assert_lossless();
    evidence::record(
        PROMISE,
        "changes of the tables' layout, most killed in the middle",
        count,
    );
}

#[test]
fn new_flows_are_served_where_a_layout_cannot_be_taken_over() {
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let node = cluster.node(0);
    let client = cluster.client(0).netns();
    let target = web.on_node(0, Family::V4);
    let mut kept = client.run(|| lb_tests::client::Connection::open(target).unwrap());
    kept.ask().unwrap();
    let traffic = Traffic::start(client, &web.on_every_node(Family::V4), 2, Style::NewConnection);
    traffic.flow(50);
    node.agent().stop().unwrap();
    let version = lb_common::abi::SCHEMA_VERSION + 1;
    start(node, &[("LB_LAYOUT", format!("{version}:backends"))]);
    traffic.flow(50);
    // Its backend's number means nothing any more: that is said at once, and in the log.
    let error = kept.ask().expect_err("an answer");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    assert!(node.agent().log().contains("connections end"));
    assert!(!node.bpffs().join(format!("v{}", version - 1)).exists());
    let report = traffic.stop();
    // A connection that was open in that moment is one of the old ones.
    assert!(report.failed() <= 2, "{:?}", report.failures);
    client.run(|| get(target)).unwrap();
}

#[test]
fn no_flow_is_lost_without_cluster_state_or_with_an_old_one() {
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let live = Live::open(&cluster);
    let node = cluster.node(0);
    let client = cluster.client(0).netns();
    let old = cluster.document().text();
    // Newer: more of everything; then back, also for an agent that has died meanwhile.
    for number in 0..3 {
        let more = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        client.run(|| get(more.on_node(0, Family::V4))).unwrap();
        live.busy.round();
        if number == 1 {
            node.agent().kill().unwrap();
        }
        cluster.overwrite(&old).unwrap();
        live.busy.round();
        if number == 1 {
            node.start_agent().unwrap();
        }
        // Dropped, it is gone from what the harness writes too.
        drop(more);
        cluster.settle().unwrap();
        live.busy.round();
    }
    // Gone, and the agent starts without it: what is in force stays, also for new flows.
    std::fs::remove_file(cluster.file()).unwrap();
    let gone = std::time::Instant::now();
    live.busy.round();
    let log = node.agent().log().len();
    node.agent().kill().unwrap();
    node.agent().spawn(node.netns()).unwrap();
    let started = std::time::Instant::now();
    while !node.agent().log()[log..].contains("programs loaded") {
        assert!(started.elapsed() < patience(), "{}", node.agent().log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let absence = Duration::from_secs(setting("LB_FAULT_ABSENCE", 5) as u64);
    let mut served = 0;
    while served < 3 || gone.elapsed() < absence {
        served += 1;
        live.busy.round();
        for family in Family::BOTH {
            client.run(|| get(live.web.on_node(0, family))).unwrap();
            client.run(|| ask_udp(live.time.on_node(0, family))).unwrap();
        }
    }
    let without = gone.elapsed().as_secs();
    cluster.edit(|_| ()).unwrap();
    node.agent().wait_ready().unwrap();
    cluster.settle().unwrap();
    live.busy.round();
    live.assert_lossless();
    evidence::record(PROMISE, "times that the cluster state went back or was gone", 4);
    evidence::record(PROMISE, "seconds for which there was none", without);
}

#[test]
fn no_flow_is_lost_while_services_change() {
    /// Services that change in one document.
    const TOGETHER: usize = 25;
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let live = Live::open(&cluster);
    let backends = live.web.document().backend;
    let (web, time) = (live.web.name().to_owned(), live.time.name().to_owned());
    let rounds = setting("LB_FAULT_UPDATES", 500).div_ceil(TOGETHER);
    for round in 0..rounds {
        let edit = cluster.edit(|document| {
            document.service.retain(|service| !service.name.starts_with("busy"));
            // Those that are used change too: weights and, beside their own, backends that come and go.
            for name in [&web, &time] {
                let service = document.service(name);
                service.backend.truncate(2);
                for backend in &mut service.backend {
                    backend.weight = 1 + (round % 3) as u16;
                }
                if round % 2 == 1 {
                    let mut more = service.backend[0].clone();
                    (more.name, more.port, more.state) = (format!("{name}.more"), Some(9), "draining");
                    service.backend.push(more);
                }
            }
            for number in 0..TOGETHER - 2 {
                let mut backend = backends.clone();
                backend.truncate(1 + (round + number) % 2);
                document.service.push(Service {
                    // Every third has another name each time.
                    name: format!("busy{number}-{}", if number % 3 == 0 { round } else { 0 }),
                    network: "shop".into(),
                    mode: "vip",
                    vip: vec![[10, 1, 0, 200 + number as u8].into()],
                    ports: vec![Port {
                        port: 1000 + number as u16,
                        target: 9 + (round % 5) as u16,
                        protocol: "tcp",
                        published: Some(Published::On(10_000 + number as u16)),
                    }],
                    backend,
                    ..Service::default()
                });
            }
        });
        edit.unwrap();
        cluster.settle().unwrap();
        if round % 10 == 0 {
            live.busy.round();
        }
    }
    live.busy.round();
    live.assert_lossless();
    evidence::record(PROMISE, "updates of services under traffic", (rounds * TOGETHER) as u64);
}
