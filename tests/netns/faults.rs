//! Live flows go on, whatever happens to the agent, its programs, its tables and the cluster state.
//!
//! `LB_FAULT_FLOWS` is the number of TCP connections (a fifth as many UDP flows beside them), `LB_FAULT_UPDATES` that of
//! changes of services, `LB_FAULT_ABSENCE` the seconds without any cluster state.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lb_tests::client::{ask_udp, get};
use lb_tests::cluster::{Cluster, Deployed, Family, Node, Port, Published, Service, Spec};
use lb_tests::evidence;
use lb_tests::flows::{Busy, Flows, Report, Use};
use lb_tests::require;
use lb_tests::traffic::{Style, Traffic};
use lb_userspace::datapath::view::View;
use lb_userspace::fault::Point;

use super::own;

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

/// Two nodes with a TCP and a UDP service on both, and flows to them from outside and inside, in both families.
struct Live<'a> {
    _web: Deployed<'a>,
    _time: Deployed<'a>,
    busy: Busy,
}

impl<'a> Live<'a> {
    fn open(cluster: &'a Cluster) -> Self {
        let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
        let time = cluster.deploy(Spec::udp().published().on(&[0, 1])).unwrap();
        let mut flows = Flows::default();
        // Four ways in two families, and of each way one long transfer.
        let each = setting("LB_FAULT_FLOWS", 64).div_ceil(8);
        for family in Family::BOTH {
            for service in [&web, &time] {
                let ways = [
                    (cluster.client(0).netns(), service.on_node(0, family)),
                    (cluster.client(0).netns(), service.on_node(1, family)),
                    (cluster.workloads(0, "shop")[1].netns(), service.vip(family)),
                    (cluster.workloads(1, "shop")[1].netns(), service.vip(family)),
                ];
                for (netns, target) in ways {
                    let wanted = if service.name() == web.name() {
                        vec![(Use::Transfer, 1), (Use::Requests, each.max(3) - 1)]
                    } else {
                        vec![(Use::Datagrams, each.div_ceil(5).max(2))]
                    };
                    for (usage, count) in wanted {
                        flows.open(netns, target, usage, count).unwrap();
                    }
                }
            }
        }
        for (figure, usage) in [
            ("kept TCP connections", Use::Requests),
            ("long TCP transfers", Use::Transfer),
            ("UDP flows", Use::Datagrams),
        ] {
            evidence::record(PROMISE, figure, flows.count(usage));
        }
        let busy = flows.start();
        busy.round();
        Self {
            _web: web,
            _time: time,
            busy,
        }
    }

    /// Nothing happened to any flow.
    #[track_caller]
    fn assert_lossless(self) {
        let report: Report = self.busy.stop();
        report.assert_lossless();
        evidence::record(PROMISE, "answers on them, 0 resets, 0 stalls, 0 wrong", report.answered);
    }
}

/// What a plan of every phase needs, each time another: a service that comes while one goes, a backend that drains while
/// another is back, an interface that comes while one goes.
fn change_something(cluster: &Cluster, shift: &Deployed<'_>, number: usize) {
    let backends = shift.document().backend;
    let edit = cluster.edit(|document| {
        document.service.retain(|service| !service.name.starts_with("passing"));
        document.service.push(Service {
            name: format!("passing{number}"),
            network: "shop".into(),
            mode: "vip",
            vip: vec!["10.1.0.250".parse().unwrap()],
            ports: vec![Port {
                port: 1000 + number as u16,
                target: 9,
                protocol: "tcp",
                published: Some(Published::On(10_000 + number as u16)),
            }],
            backend: backends.clone(),
            ..Service::default()
        });
        for (index, backend) in document.service(shift.name()).backend.iter_mut().enumerate() {
            backend.state = if index % 2 == number % 2 { "ready" } else { "draining" };
        }
    });
    edit.unwrap();
    let node = cluster.node(0).netns();
    if number > 0 {
        node.ip(&format!("link del shop9{}", number - 1)).unwrap();
    }
    node.ip(&format!(
        "link add shop9{number} type veth peer name far{number}\nlink set shop9{number} up"
    ))
    .unwrap();
}

/// Starts the agent so that it dies at `point`, and sees to it that it does.
#[track_caller]
fn die_at(node: &Node, point: Point, variables: &[(&'static str, String)]) {
    let mut agent = node.agent();
    let mut variables = variables.to_vec();
    variables.push(("LB_FAULT", point.name()));
    agent.set_environment(&variables);
    agent.spawn(node.netns()).unwrap();
    let status = if matches!(point, Point::StopBegun | Point::StopEnded) {
        agent.wait_ready().unwrap();
        agent.stop().unwrap()
    } else {
        agent
            .wait_end(patience())
            .unwrap_or_else(|error| panic!("{} is never reached: {error}\n{}", point.name(), agent.log()))
    };
    assert_eq!(status.signal(), Some(9), "{}: {status}\n{}", point.name(), agent.log());
}

fn start(node: &Node, variables: &[(&'static str, String)]) {
    node.agent().set_environment(variables);
    node.start_agent().unwrap();
}

/// The object with other instructions that do the same: of a small number, moving 32 bits is moving 64.
fn another_build(directory: &Path) -> PathBuf {
    use object::{Object as _, ObjectSection as _, SectionKind};
    let mut bytes = lb_userspace::datapath::OBJECT.to_vec();
    let sections: Vec<_> = object::File::parse(&bytes[..])
        .expect("an object")
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .filter_map(|section| section.file_range())
        .collect();
    let mut changed = 0;
    for (start, length) in sections {
        let code = &mut bytes[start as usize..(start + length) as usize];
        let mut wide = false;
        for instruction in code.chunks_exact_mut(8) {
            let first = instruction[0];
            let small = i32::from_le_bytes(instruction[4..8].try_into().expect("four bytes")) > 0;
            // BPF_ALU64 | BPF_MOV | BPF_K becomes BPF_ALU | BPF_MOV | BPF_K; the second half of a wide load is data.
            if !wide && first == 0xb7 && small {
                instruction[0] = 0xb4;
                changed += 1;
            }
            wide = !wide && first == 0x18;
        }
    }
    assert!(changed > 0, "nothing to change in the object");
    let path = directory.join("changed.o");
    std::fs::write(&path, bytes).expect("written");
    path
}

/// Tags of the programs behind a node's links: hashes of their instructions.
fn tags(node: &Node) -> Vec<String> {
    let programs = View::find(node.bpffs()).unwrap().programs().unwrap();
    let links = programs.into_iter().filter(|program| program.hook.is_some());
    let mut tags: Vec<_> = links.map(|link| link.tag.expect("a tag")).collect();
    tags.sort();
    tags.dedup();
    tags
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
    let points = Point::ALL.into_iter().filter(|point| !point.is_of_migration());
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
    node.agent().stop().unwrap();
    // Of some tables the rows have changed too: those begin empty.
    let mut count = 0;
    for tables in ["", ":marks", ":settings,frontends,interfaces,counters,marks"] {
        for point in Point::ALL.into_iter().filter(|point| point.is_of_migration()) {
            // Each begins where the one before was killed, in another version.
            version += 1;
            die_at(node, point, &layout(version, tables));
            live.busy.round();
            count += 1;
            // Somebody may go back before all is done.
            if point == Point::MigrateLink && tables.is_empty() {
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
            client.run(|| get(live._web.on_node(0, family))).unwrap();
            client.run(|| ask_udp(live._time.on_node(0, family))).unwrap();
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
    let backends = live._web.document().backend;
    let (web, time) = (live._web.name().to_owned(), live._time.name().to_owned());
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
