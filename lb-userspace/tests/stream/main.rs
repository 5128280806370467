//! The stream between agents on real sockets (loopback), with real keys: what arrives, who is refused, what remains.

mod certificates;
mod faults;
mod nodes;
mod strangers;

use nodes::{Manager, Worker, report, secret, until, view};

const SECRET: &str = nodes::SECRET;

#[tokio::test]
async fn all_nodes_get_every_change_and_the_manager_knows_them_all() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let workers = ["w1", "w2"].map(|node| Worker::start(node, secret(SECRET), &[manager.address]));
    for worker in &workers {
        worker.gets("a").await;
    }
    for name in ["b", "c", "d"] {
        manager.publish(name);
        for worker in &workers {
            worker.gets(name).await;
        }
    }
    let generation = workers[0].snapshots.borrow().as_ref().unwrap().generation;
    assert_eq!(generation, 4, "each change counts once");

    let reports = manager.server.reports();
    until("both reports", || reports.borrow().len() == 2).await;
    let mut expected = report("w1");
    expected.node = "w1".into();
    assert_eq!(
        reports.borrow()["w1"].report,
        expected,
        "the node's ID is filled in, the rest is as it was said"
    );
    let (told, mut silent) = (&workers[1].report, report("w2"));
    // While it has nothing to say, what it said last is believed.
    told.send_replace(None);
    silent.addresses.clear();
    told.send_replace(Some(silent));
    until("the new report", || reports.borrow()["w2"].report.addresses.is_empty()).await;

    let status = manager.server.status();
    assert_eq!((status.nodes.len(), status.reports, status.error), (2, 2, None));
    let status = workers[0].client.status();
    assert_eq!(status.error, None);
    assert_eq!(status.managers[0].node.as_deref(), Some("m1"));
    assert!(status.managers[0].current && status.managers[0].connected);
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(
        serde_json::from_str::<lb_userspace::stream::StreamStatus>(&json).unwrap(),
        status
    );
}

#[tokio::test]
async fn a_manager_without_state_sends_it_when_it_has_some() {
    let manager = Manager::start("m1", secret(SECRET), None);
    let worker = Worker::start("w1", secret(SECRET), &[manager.address]);
    let reports = manager.server.reports();
    until("the report", || reports.borrow().contains_key("w1")).await;
    assert_eq!(worker.has(), None);
    manager.publish("a");
    worker.gets("a").await;
}

#[tokio::test]
async fn what_did_not_change_is_not_sent_and_still_confirmed() {
    let manager = Manager::start("m1", secret(SECRET), Some(view("a")));
    let mut worker = Worker::start("w1", secret(SECRET), &[manager.address]);
    worker.gets("a").await;
    worker.snapshots.mark_unchanged();
    let start = std::time::Instant::now();
    while start.elapsed() < 10 * nodes::TIMING.alive {
        tokio::time::sleep(nodes::TIMING.alive / 5).await;
        manager.publish("a");
    }
    assert!(!worker.snapshots.has_changed().unwrap());
    let age = worker.client.status().age_ms.unwrap();
    assert!(age < 400, "confirmed again and again, {age} ms ago at last");
    // Nobody reads the source any more: the connection stands, and the state grows old.
    until("age", || worker.client.status().age_ms.unwrap() > 500).await;
    assert!(worker.client.status().managers[0].connected);
}

#[tokio::test]
async fn reports_go_to_all_managers_and_outlive_a_connection_for_a_while() {
    let managers = ["m1", "m2"].map(|node| Manager::start(node, secret(SECRET), Some(view("a"))));
    let addresses = [managers[0].address, managers[1].address];
    let worker = Worker::start("w1", secret(SECRET), &addresses);
    for manager in &managers {
        let reports = manager.server.reports();
        until("the report", || reports.borrow().contains_key("w1")).await;
    }
    let reports = managers[0].server.reports();
    worker.end().await;
    until("the end of the connection", || {
        managers[0].server.status().nodes.is_empty()
    })
    .await;
    assert!(reports.borrow().contains_key("w1"), "a reconnect would not be seen");
    let start = std::time::Instant::now();
    until("expiry", || reports.borrow().is_empty()).await;
    assert!(start.elapsed() > nodes::TIMING.retain / 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn managers_come_and_go_from_the_list() {
    let managers = ["m1", "m2"].map(|node| Manager::start(node, secret(SECRET), Some(view("a"))));
    let worker = Worker::start("w1", secret(SECRET), &[managers[0].address]);
    worker.gets("a").await;
    worker.managers.send_replace(vec![managers[1].address]);
    until("the second manager's reports", || {
        managers[1].server.status().nodes == ["w1"]
    })
    .await;
    until("the first one is left", || managers[0].server.status().nodes.is_empty()).await;
    managers[1].publish("b");
    worker.gets("b").await;
    // Not known is not none.
    worker.managers.send_replace(vec![]);
    managers[1].publish("c");
    worker.gets("c").await;
}
