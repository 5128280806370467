//! The agent stops, dies, comes back, and is uninstalled, while clients go on.

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use lb_tests::client::{Connection, get, tally};
use lb_tests::cluster::{Cluster, Family, Spec};
use lb_tests::traffic::{Style, Traffic};
use lb_tests::{lbctl, require};

use super::{assert_even, own};

#[test]
fn stop_kill_and_restart_lose_no_request() {
    // The tables become full meanwhile, and have room again.
    let Some(cluster) = own(Cluster::builder().tables(2048, 4096)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let outside = cluster.client(0).netns();
    let inside = cluster.workloads(0, "shop")[1].netns();
    let mut kept: Vec<_> = web
        .on_every_node(Family::V4)
        .into_iter()
        .map(|t| outside.run(|| Connection::open(t).unwrap()))
        .collect();
    kept.push(inside.run(|| Connection::open(web.vip(Family::V6)).unwrap()));
    let traffic = [
        Traffic::start(outside, &web.on_every_node(Family::V4), 1, Style::NewConnection),
        Traffic::start(outside, &web.on_every_node(Family::V6), 1, Style::NewConnection),
        Traffic::start(outside, &web.on_every_node(Family::V4), 1, Style::KeepAlive),
        Traffic::start(inside, &[web.vip(Family::V4)], 1, Style::NewConnection),
    ];
    let flow = |count| traffic.iter().for_each(|traffic| traffic.flow(count));
    flow(50);
    for node in [0, 2] {
        let node = cluster.node(node);
        let status = node.agent().stop().unwrap();
        assert!(status.success(), "SIGTERM: {status}");
        flow(50);
        node.start_agent().unwrap();
        flow(50);
        node.agent().kill().unwrap();
        flow(50);
        node.start_agent().unwrap();
        flow(50);
    }
    for connection in &mut kept {
        connection.ask().expect("a connection from before");
    }
    for report in traffic.map(Traffic::stop) {
        report.assert_unnoticed();
    }
}

#[test]
fn what_changed_while_the_agent_was_away_is_applied_when_it_is_back() {
    let Some(cluster) = own(Cluster::builder().nodes(2)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 1])).unwrap();
    let names = web.backends();
    let node = cluster.node(0);
    let target = web.on_node(0, Family::V4);
    let client = cluster.client(0).netns();
    let mut kept = client.run(|| Connection::open(target).unwrap());
    let first = kept.ask().unwrap().backend;
    let other = names.iter().find(|name| **name != first).unwrap().clone();

    node.agent().kill().unwrap();
    // Dead, its tables go on; lbctl reads them and says so.
    let counts = client.run(|| tally((0..6).map(|_| get(target))));
    assert_even(&counts, &names);
    let output = lbctl::run(node, &["service", "ls"]).unwrap();
    let note = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && note.contains("maps"),
        "{}: {note}",
        output.status
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains(":80") || !output.stdout.is_empty());

    let third = web.add(1).unwrap();
    web.remove(&other).unwrap();
    let counts = client.run(|| tally((0..6).map(|_| get(target))));
    assert!(!counts.contains_key(&third), "a dead agent learnt of {third}");
    node.start_agent().unwrap();
    let counts = client.run(|| tally((0..6).map(|_| get(target))));
    assert_even(&counts, &[first.clone(), third]);
    assert_eq!(kept.ask().expect("a connection from before").backend, first);
}

#[test]
fn a_killed_agent_leaves_socket_and_pins_that_the_next_takes_over() {
    let Some(cluster) = own(Cluster::builder().nodes(1).clients(1)) else {
        return;
    };
    let node = cluster.node(0);
    let before = lbctl::json(node, &["map", "ls"]).unwrap();
    for _ in 0..3 {
        node.agent().kill().unwrap();
        node.start_agent().unwrap();
    }
    let after = lbctl::json(node, &["map", "ls"]).unwrap();
    let ids = |list: &serde_json::Value| -> Vec<_> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|map| (map["name"].to_string(), map["id"].to_string()))
            .collect()
    };
    assert!(!ids(&before).is_empty());
    assert_eq!(ids(&before), ids(&after), "maps were made anew");
}

#[test]
fn a_supervisor_that_does_not_listen_holds_nothing_up() {
    let Some(cluster) = own(Cluster::builder().nodes(1).clients(1)) else {
        return;
    };
    cluster.node(0).agent().ignore_notifications();
    // More changes than the socket of a supervisor holds messages (net.unix.max_dgram_qlen).
    let web = cluster.deploy(Spec::tcp().published().on(&[0, 0])).unwrap();
    let both = web.document().backend;
    for round in 0..20 {
        let some = both[..1 + round % 2].to_vec();
        let changed = web.change(|service| service.backend = some);
        changed.unwrap_or_else(|error| panic!("change {round}: {error:#}"));
    }
    let status = cluster.node(0).agent().stop().unwrap();
    assert!(status.success(), "SIGTERM: {status}");
}

#[test]
fn uninstall_leaves_no_trace() {
    let Some(cluster) = own(Cluster::builder().nodes(2).clients(1)) else {
        return;
    };
    let web = cluster.deploy(Spec::tcp().published().on(&[1])).unwrap();
    let node = cluster.node(0);
    let target = web.on_node(0, Family::V4);
    let client = cluster.client(0).netns();
    client.run(|| get(target)).unwrap();
    node.agent().stop().unwrap();
    client.run(|| get(target)).expect("stopped, it forwards");
    let config = node.agent().config();
    let mut command = Command::new(require::binary("lb-agent").unwrap());
    command.arg("uninstall").arg("--config").arg(config);
    let output = node.netns().run(|| command.output()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The kernel lets go of programs when it finds the time.
    let start = Instant::now();
    loop {
        let answer = client.run(|| get(target));
        if answer
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "still balanced: {answer:?}");
    }
    let left: Vec<_> = std::fs::read_dir(node.bpffs())
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    assert!(left.is_empty(), "pins: {left:?}");
    let links = node
        .netns()
        .output("ip", &["-details", "-json", "link", "show"])
        .unwrap();
    assert!(!links.contains("\"xdp\""), "{links}");
    // The other node does not mind, and the agent can come back.
    client.run(|| get(web.on_node(1, Family::V4))).unwrap();
    node.start_agent().unwrap();
    client.run(|| get(target)).unwrap();
}
