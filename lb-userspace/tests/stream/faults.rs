//! Managers die, paths break, readers are slow, disks hold rubbish: the last state stays in force.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_userspace::model::snapshot::{Node, Snapshot};
use lb_userspace::stream::{Report, Server, ServerOptions, Source, Timing, View};
use tokio_util::sync::CancellationToken;

use crate::nodes::{Manager, SECRET, TIMING, Wire, Worker, report, secret, until, view};

fn source(worker: &Worker) -> String {
    match worker.client.status().source {
        Source::Manager { node, .. } => node,
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn another_manager_takes_over_and_at_last_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    let first = Manager::start("m1", secret(SECRET), Some(view("a")));
    let worker = Worker::with_file("w1", secret(SECRET), &[first.address], Some(file.clone()));
    worker.gets("a").await;
    let second = Manager::start("m2", secret(SECRET), Some(view("a")));
    worker.managers.send_replace(vec![first.address, second.address]);
    until("both", || {
        worker.client.status().managers.iter().all(|manager| manager.connected)
    })
    .await;
    assert_eq!(source(&worker), "m1", "it stays with the first");
    let both = [first.address, second.address];

    first.end().await;
    until("the second", || source(&worker) == "m2").await;
    assert_eq!(
        worker.snapshots.borrow().as_ref().unwrap().generation,
        1,
        "the content is the same"
    );
    second.publish("b");
    worker.gets("b").await;

    second.end().await;
    until("an error", || worker.error().contains("no manager is connected")).await;
    assert_eq!(worker.has().as_deref(), Some("b"), "the last state stays");
    worker.end().await;

    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let worker = Worker::with_file("w1", secret(SECRET), &both, Some(file.clone()));
    assert_eq!(
        worker.has().as_deref(),
        Some("b"),
        "in force before anything was connected"
    );
    assert_eq!(source(&worker), "Disk");
    assert_eq!(worker.client.status().age_ms, None);

    let third = Manager::start("m3", secret(SECRET), Some(view("c")));
    worker.managers.send_replace(vec![third.address]);
    worker.gets("c").await;
    let generation = worker.snapshots.borrow().as_ref().unwrap().generation;
    assert_eq!(generation, 3, "generations go on over a restart");
}

#[tokio::test]
async fn a_takeover_never_shows_an_older_view() {
    let at = |name: &str, index| {
        Some(View {
            index: Some(index),
            ..view(name)
        })
    };
    let first = Manager::start("m1", secret(SECRET), at("new", 20));
    let second = Manager::start("m2", secret(SECRET), at("old", 10));
    let mut worker = Worker::start("w1", secret(SECRET), &[first.address]);
    worker.gets("new").await;
    worker.managers.send_replace(vec![first.address, second.address]);
    until("both", || {
        worker.client.status().managers.iter().all(|manager| manager.connected)
    })
    .await;
    worker.snapshots.mark_unchanged();
    first.end().await;
    tokio::time::sleep(TIMING.settle / 2).await;
    assert!(!worker.snapshots.has_changed().unwrap());
    second.views.send_replace(at("newer", 21));
    worker.gets("newer").await;
    assert_eq!(source(&worker), "m2");
}

#[tokio::test]
async fn a_manager_that_comes_back_is_found_again() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let wire = Wire::to(manager.address).await;
    let worker = Worker::start("w1", secret(SECRET), &[wire.address]);
    worker.gets("a").await;
    wire.hold(true);
    until("silence is noticed", || {
        worker.error().contains("nothing came from the peer for 3s")
    })
    .await;
    until("by the manager, too", || manager.server.status().nodes.is_empty()).await;
    assert_eq!(worker.has().as_deref(), Some("a"));
    manager.publish("b");
    wire.hold(false);
    worker.gets("b").await;
    until("no error is left", || worker.error().is_empty()).await;
}

#[tokio::test]
async fn a_damaged_file_is_said_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot");
    fs::write(&file, "lb-snapshot 1 00\n{}").unwrap();
    let worker = Worker::with_file("w1", secret(SECRET), &[], Some(file.clone()));
    assert_eq!(worker.has(), None);
    let manager = Manager::start("m1", secret(SECRET), None);
    worker.managers.send_replace(vec![manager.address]);
    until("the error", || {
        worker.error().contains("damaged: its checksum is wrong")
    })
    .await;
    manager.publish("a");
    worker.gets("a").await;
    assert_eq!(worker.error(), "", "it does not matter any more");
    until("the file", || fs::read(&file).is_ok_and(|bytes| bytes.len() > 100)).await;
    worker.end().await;
    let worker = Worker::with_file("w1", secret(SECRET), &[], Some(file));
    assert_eq!(worker.has().as_deref(), Some("a"));
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_said_and_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("missing/snapshot");
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let worker = Worker::with_file("w1", secret(SECRET), &[manager.address], Some(file));
    worker.gets("a").await;
    until("the error", || {
        worker.error().starts_with("cannot keep the cluster state in ")
    })
    .await;
    manager.publish("b");
    worker.gets("b").await;
}

/// Some megabytes that say which one they are.
fn large(number: usize) -> View {
    let name = format!("{number:010}");
    let nodes = (0..60_000).map(|index| Node {
        name: if index == 0 {
            name.clone()
        } else {
            format!("{name}-{index}-of-many-nodes")
        },
        id: None,
        addresses: vec![],
    });
    View {
        snapshot: Arc::new(Snapshot {
            nodes: nodes.collect(),
            ..Snapshot::default()
        }),
        index: None,
        read: Instant::now(),
    }
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_misses_what_is_outdated_and_nothing_else() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("first")));
    let wire = Wire::to(manager.address).await;
    let slow = Worker::start("slow", secret(SECRET), &[wire.address]);
    let quick = Worker::start("quick", secret(SECRET), &[manager.address]);
    slow.gets("first").await;
    quick.gets("first").await;
    wire.hold(true);
    let before = resident();
    let last = 8;
    for number in 1..=last {
        manager.views.send_replace(Some(large(number)));
        quick.gets(&format!("{number:010}")).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 400 << 20, "{grown} bytes");
    assert_eq!(slow.has().as_deref(), Some("first"));
    wire.hold(false);
    slow.gets(&format!("{last:010}")).await;
    let generation = slow.snapshots.borrow().as_ref().unwrap().generation;
    assert!(generation <= 4, "{generation} snapshots came through");
}

#[tokio::test]
async fn a_restarted_manager_on_the_same_address_is_followed() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let wire_target = manager.address;
    let worker = Worker::start("w1", secret(SECRET), &[wire_target]);
    worker.gets("a").await;
    manager.end().await;
    until("the end", || !worker.client.status().managers[0].connected).await;
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let options = ServerOptions {
        node: "m1".into(),
        listen: vec![wire_target],
        connections: 10,
        identity: secret(SECRET),
        reports_file: None,
        timing: TIMING,
    };
    let (_views, receiver) = tokio::sync::watch::channel(Some(view("b")));
    let again = Server::start(options.clone(), receiver.clone(), &stop).unwrap();
    worker.gets("b").await;
    assert_eq!(again.status().nodes, ["w1"]);
    let error = Server::start(options, receiver, &stop).err().unwrap().to_string();
    assert!(
        error.contains("Address already in use") && error.contains("stream.listen"),
        "{error}"
    );
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn a_manager_that_starts_again_knows_the_last_reports_unless_they_are_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot.reports");
    let options = ServerOptions {
        node: "m1".into(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        connections: 10,
        identity: secret(SECRET),
        reports_file: Some(file.clone()),
        timing: Timing {
            retain: Duration::from_secs(3600),
            ..TIMING
        },
    };
    let (_views, receiver) = tokio::sync::watch::channel(Some(view("a")));
    let start = |options: &ServerOptions| {
        let stop = CancellationToken::new();
        let server = Server::start(options.clone(), receiver.clone(), &stop).unwrap();
        (server, stop)
    };
    let live = |server: &Server| {
        let reports = server.reports().borrow().clone();
        let live = reports
            .into_values()
            .map(|reported| (reported.report.node, reported.live));
        live.collect::<Vec<_>>()
    };
    let (server, stop) = start(&options);
    assert!(!file.exists(), "there is nothing to keep");
    let worker = Worker::start("w1", secret(SECRET), server.addresses());
    server.report(Report {
        node: "m1".into(),
        ..report("m1")
    });
    until("the report", || {
        live(&server) == [("m1".into(), true), ("w1".into(), true)]
    })
    .await;
    let said = server.reports().borrow()["w1"].report.clone();
    let written = || fs::read_to_string(&file).is_ok_and(|text| text.contains("\"w1\""));
    until("the file", written).await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    worker.end().await;
    stop.cancel();
    server.stopped().await;

    let (server, stop) = start(&options);
    assert_eq!(live(&server), [("m1".into(), false), ("w1".into(), false)]);
    assert_eq!(server.reports().borrow()["w1"].report, said);
    let worker = Worker::start("w1", secret(SECRET), server.addresses());
    until("the node is back", || live(&server)[1].1).await;
    worker.end().await;
    stop.cancel();
    server.stopped().await;

    fs::write(&file, "lb-reports 1 rubbish").unwrap();
    let (server, stop) = start(&options);
    assert_eq!((live(&server), server.status().error), (Vec::new(), None));
    let worker = Worker::start("w1", secret(SECRET), server.addresses());
    until("it is written anew", written).await;
    worker.end().await;
    stop.cancel();
    server.stopped().await;
}
