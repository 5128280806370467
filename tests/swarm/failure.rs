//! Tasks, nodes, engines and agents that die under traffic, and come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lb_tests::swarm::{Swarm, Task, wait_until};
use nix::sys::signal::Signal;

use super::load::{PATIENCE, Shop, ready, slowest, summary};
use super::{balanced, own};

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn a_task_that_is_killed_costs_the_requests_in_it() {
    let Some(swarm) = balanced() else { return };
    let shop = Shop::open(&swarm, 3, &["--restart-delay", "0s"], &[0, 1]);
    let by_engine = |task: &Task| task.kill(&swarm).unwrap();
    let by_signal = |task: &Task| {
        let pid = task.inspect(&swarm).unwrap()["State"]["Pid"].as_u64().unwrap();
        let node = swarm.node(task.node.unwrap());
        node.on_machine(|machine| machine.signal(u32::try_from(pid).unwrap(), Signal::SIGKILL))
            .unwrap()
            .unwrap();
    };
    let ways: [(&str, &dyn Fn(&Task)); 2] = [("docker kill", &by_engine), ("kill -9", &by_signal)];
    for (way, kill) in ways {
        let task = shop.web.running().unwrap().remove(0);
        let load = shop.load(&ALL);
        kill(&task);
        wait_until("another task runs", || {
            let tasks = shop.web.running()?;
            let replaced = tasks.len() == 3 && !tasks.iter().any(|known| known.id == task.id);
            Ok(if replaced { Ok(()) } else { Err(format!("{tasks:#?}")) })
        })
        .unwrap();
        swarm.wait_serving(&shop.web, 3).unwrap();
        load.flow();
        let clients = load.len();
        let reports = load.stop();
        eprintln!("{way}:\n{}", summary(&reports));
        let cost: usize = reports.iter().map(|(_, report)| report.failed()).sum();
        assert!(
            cost <= clients && slowest(&reports) < PATIENCE,
            "{way}: {clients} clients\n{}",
            summary(&reports)
        );
    }
}

#[test]
fn agents_that_stop_or_die_and_come_back_lose_nothing() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 3, &[], &[0, 1]);
    let load = shop.load(&ALL);
    for node in [2, 0] {
        swarm.kill_agent(node).unwrap();
        load.flow();
        swarm.start_agent(node).unwrap();
        load.flow();
        swarm.stop_agent(node).unwrap();
        load.flow();
        swarm.start_agent(node).unwrap();
        load.flow();
    }
    load.assert_lossless();
}

#[test]
fn a_node_that_is_lost_is_avoided_and_serves_again_when_it_is_back() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 4, &["--update-order", "start-first"], &[0, 1]);
    let tasks = shop.web.running().unwrap();
    let lost: BTreeSet<_> = tasks
        .iter()
        .filter(|task| task.node == Some(2))
        .map(|task| task.name.clone())
        .collect();
    assert!(!lost.is_empty(), "{tasks:#?}");
    let before = shop.load(&[0, 1]);
    swarm.underlay().ip("link set node3 down").unwrap();
    swarm.node(2).turn_off().unwrap();
    let since = wait_until("the Swarm takes node3 for down", || {
        let since = Instant::now();
        let list = swarm.manager().api("/nodes")?;
        let down = list
            .as_array()
            .unwrap()
            .iter()
            .any(|node| node["Status"]["State"] == "down");
        Ok(if down { Ok(since) } else { Err(list.to_string()) })
    })
    .unwrap();
    for node in [0, 1] {
        while !lost.is_disjoint(&ready(&swarm, node, shop.web.name())) {
            let late = since.elapsed();
            assert!(
                late < Duration::from_secs(1),
                "node {node} asks lost tasks after {late:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let load = shop.load(&[0, 1]);
    eprintln!("new: before\n{}", summary(&before.stop()));
    swarm.underlay().ip("link set node3 up").unwrap();
    swarm.turn_on(2).unwrap();
    swarm.start_agent(2).unwrap();
    swarm.wait_nodes_ready().unwrap();
    shop.web.update(&["--force"]).unwrap();
    shop.web.wait_updated().unwrap();
    let tasks = swarm.wait_serving(&shop.web, 4).unwrap();
    assert!(tasks.iter().any(|task| task.node == Some(2)), "{tasks:#?}");
    let back = shop.load(&[2]);
    back.assert_lossless();
    load.assert_lossless();
}

#[test]
fn an_engine_that_starts_again() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 3, &[], &[0]);
    let load = shop.load(&ALL);
    let start = Instant::now();
    swarm.node(1).stop_engine().unwrap();
    eprintln!("new: stopped {:?}", start.elapsed());
    swarm.start_engine(1).unwrap();
    eprintln!("new: started {:?}", start.elapsed());
    swarm.wait_nodes_ready().unwrap();
    swarm.wait_serving(&shop.web, 3).unwrap();
    eprintln!("new: serving {:?}", start.elapsed());
    load.flow();
    eprintln!("{}", summary(&load.stop()));
    shop.load(&ALL).assert_lossless();
}

#[test]
fn an_update_while_an_agent_is_away() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 3, &[], &[0, 1]);
    let load = shop.load(&ALL);
    let start = Instant::now();
    swarm.stop_agent(2).unwrap();
    shop.web.update(&["--force"]).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    swarm.start_agent(2).unwrap();
    eprintln!("new: agent back {:?}", start.elapsed());
    shop.web.wait_updated().unwrap();
    swarm.wait_serving(&shop.web, 3).unwrap();
    load.flow();
    eprintln!("{}", summary(&load.stop()));
    shop.load(&ALL).assert_lossless();
}
