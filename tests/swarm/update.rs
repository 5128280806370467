//! Services that change under traffic: updates, scaling, nodes that are emptied, networks, removal. Tasks stop in order,
//! so nothing is lost.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lb_tests::client::{Connection, get, tally};
use lb_tests::swarm::{Swarm, wait_until};

use super::load::{PATIENCE, Shop, ready};
use super::{balanced, own};

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn a_rolling_update_that_stops_tasks_first_loses_nothing() {
    let Some(swarm) = balanced() else { return };
    let shop = Shop::open(&swarm, 3, &["--update-order", "stop-first"], &[0, 1]);
    let before = ids(&shop);
    let load = shop.load(&ALL);
    shop.web.update(&["--force"]).unwrap();
    shop.web.wait_updated().unwrap();
    swarm.wait_serving(&shop.web, 3).unwrap();
    load.assert_lossless();
    assert!(before.is_disjoint(&ids(&shop)));
}

#[test]
fn an_update_to_another_image_that_starts_tasks_first_loses_nothing() {
    let Some(swarm) = balanced() else { return };
    for node in swarm.nodes() {
        node.docker(&["tag", "lb-task:latest", "lb-task:next"]).unwrap();
    }
    let shop = Shop::open(&swarm, 3, &["--update-order", "start-first"], &[0, 1]);
    let before = ids(&shop);
    let load = shop.load(&ALL);
    shop.web.update(&["--image", "lb-task:next"]).unwrap();
    shop.web.wait_updated().unwrap();
    let tasks = swarm.wait_serving(&shop.web, 3).unwrap();
    load.assert_lossless();
    assert!(before.is_disjoint(&ids(&shop)));
    let image = tasks[0].inspect(&swarm).unwrap()["Config"]["Image"].clone();
    assert_eq!(image, "lb-task:next");
}

#[test]
fn scaling_up_and_down_loses_nothing() {
    let Some(swarm) = balanced() else { return };
    let shop = Shop::open(&swarm, 3, &[], &[0, 1]);
    let load = shop.load(&ALL);
    for count in [6, 2] {
        shop.web.scale(count).unwrap();
        swarm.wait_serving(&shop.web, count).unwrap();
        load.flow();
    }
    load.assert_lossless();
}

#[test]
fn nodes_that_are_emptied_paused_and_used_again_lose_nothing() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    // The manager keeps its tasks, so it has the client.
    let shop = Shop::open(&swarm, 4, &["--update-order", "start-first"], &[0]);
    let load = shop.load(&ALL);
    let moved = |goal: &str, there: &dyn Fn(&BTreeSet<usize>) -> bool| {
        wait_until(goal, || {
            let tasks = shop.web.running()?;
            let nodes = tasks.iter().filter_map(|task| task.node).collect();
            Ok(if tasks.len() == 4 && there(&nodes) {
                Ok(())
            } else {
                Err(format!("{tasks:#?}"))
            })
        })
        .unwrap();
        swarm.wait_serving(&shop.web, 4).unwrap();
        load.flow();
    };
    swarm.set_availability(2, "drain").unwrap();
    moved("node3 is empty", &|nodes| !nodes.contains(&2));
    // Paused: it keeps what it has and gets nothing new.
    swarm.set_availability(1, "pause").unwrap();
    shop.web.update(&["--force"]).unwrap();
    shop.web.wait_updated().unwrap();
    moved("all tasks are on node1", &|nodes| nodes.len() == 1);
    swarm.set_availability(1, "active").unwrap();
    swarm.set_availability(2, "active").unwrap();
    shop.web.update(&["--force"]).unwrap();
    shop.web.wait_updated().unwrap();
    moved("node3 has tasks again", &|nodes| nodes.contains(&2));
    load.assert_lossless();
}

#[test]
fn a_network_that_comes_and_goes_loses_nothing() {
    let Some(swarm) = balanced() else { return };
    let market = swarm.network("market", &[]).unwrap();
    let guest = swarm.service("guest", &["--network", market.name()]).unwrap();
    let guest = (guest.wait_running(1).unwrap().remove(0), guest);
    let shop = Shop::open(&swarm, 3, &["--update-order", "start-first"], &[0, 1]);
    let load = shop.load(&ALL);
    shop.web.update(&["--network-add", market.name()]).unwrap();
    shop.web.wait_updated().unwrap();
    let tasks = swarm.wait_serving(&shop.web, 3).unwrap();
    let there = SocketAddr::new(IpAddr::V4(shop.web.vip(market.id()).unwrap()), 80);
    let answers = guest.0.within(&swarm, || (0..6).map(|_| get(there)).collect()).unwrap();
    super::assert_even(answers, &tasks);
    load.flow();

    shop.web.update(&["--network-rm", market.name()]).unwrap();
    shop.web.wait_updated().unwrap();
    swarm.wait_serving(&shop.web, 3).unwrap();
    load.assert_lossless();
    guest.0.within(&swarm, || get(there)).unwrap().unwrap_err();
    drop(shop);
}

#[test]
fn a_service_that_is_removed_refuses_at_once_and_finishes_what_it_has() {
    let Some(swarm) = balanced() else { return };
    let shop = Shop::open(&swarm, 3, &[], &[]);
    let targets = ALL.map(|node| shop.at(node));
    let client = swarm.client(0).netns();
    std::thread::scope(|scope| {
        // Swarm lets a task that has to go run for 2 s more.
        let busy: Vec<_> = targets
            .iter()
            .map(|target| {
                let mut connection = client.run(|| Connection::open(*target)).unwrap();
                connection.ask().unwrap();
                scope.spawn(move || connection.get("/slow/1500"))
            })
            .collect();
        shop.web.remove().unwrap();
        let removed = Instant::now();
        for target in targets {
            loop {
                match client.run(|| get(target)) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                    other => assert!(removed.elapsed() < Duration::from_secs(1), "{target}: {other:?}"),
                }
            }
        }
        for busy in busy {
            busy.join().unwrap().unwrap();
        }
    });
    assert!(
        shop.web
            .tasks()
            .unwrap_or_default()
            .iter()
            .all(|task| !task.is_running())
    );
}

#[test]
fn every_node_follows_within_a_second() {
    let Some(swarm) = balanced() else { return };
    let shop = Shop::open(&swarm, 2, &[], &[]);
    for count in [4, 2] {
        let scale = format!("{}={count}", shop.web.name());
        swarm
            .manager()
            .docker(&["service", "scale", "--detach", &scale])
            .unwrap();
        // Swarm's own state, as soon as it says so.
        let (tasks, since) = wait_until("as many tasks run", || {
            let since = Instant::now();
            let tasks = shop.web.running()?;
            let names: BTreeSet<_> = tasks.iter().map(|task| task.name.clone()).collect();
            Ok(if names.len() == count {
                Ok((names, since))
            } else {
                Err(format!("{tasks:#?}"))
            })
        })
        .unwrap();
        for node in ALL {
            loop {
                let ready = ready(&swarm, node, shop.web.name());
                if ready.as_ref() == Some(&tasks) {
                    break;
                }
                let late = since.elapsed();
                assert!(
                    late < Duration::from_secs(1),
                    "node {node} after {late:?}: {ready:?}, not {tasks:?}"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // The same, as clients see it.
        for node in ALL {
            let target = shop.at(node);
            let counts = swarm
                .client(0)
                .netns()
                .run(|| tally((0..2 * count).map(|_| get(target))));
            assert_eq!(
                counts.keys().cloned().collect::<BTreeSet<_>>(),
                tasks,
                "{target}: {counts:?}"
            );
        }
        assert!(since.elapsed() < PATIENCE);
    }
}

fn ids(shop: &Shop<'_>) -> BTreeSet<String> {
    shop.web.running().unwrap().into_iter().map(|task| task.id).collect()
}
