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
    let kill_process = |task: &Task| {
        let pid = task.inspect(&swarm).unwrap()["State"]["Pid"].as_u64().unwrap();
        let node = swarm.node(task.node.unwrap());
        let signalled = node.on_machine(|machine| machine.signal(u32::try_from(pid).unwrap(), Signal::SIGKILL));
        signalled.unwrap().unwrap();
    };
    for way in ["docker kill", "kill -9"] {
        let tasks = shop.web.running().unwrap();
        let killed = &tasks[0];
        let load = shop.load(&ALL);
        let held = shop.hold(&ALL, &tasks);
        std::thread::scope(|scope| {
            let busy = held.into_iter().map(|(name, mut connection)| {
                let request = move || (connection.get("/slow/4000").is_ok(), Instant::now());
                (name, scope.spawn(request))
            });
            let busy: Vec<_> = busy.collect();
            match way {
                "docker kill" => killed.kill(&swarm).unwrap(),
                _ => kill_process(killed),
            }
            let death = Instant::now();
            let since = wait_until("the Swarm knows that it is dead", || {
                let since = Instant::now();
                let tasks = shop.web.tasks()?;
                let runs = tasks.iter().any(|task| task.id == killed.id && task.state == "running");
                Ok(if runs { Err(format!("{tasks:#?}")) } else { Ok(since) })
            })
            .unwrap();
            shop.wait_forgotten(&ALL, since, &BTreeSet::from([killed.name.clone()]));
            // From now on nobody meets it.
            let after = shop.load(&ALL);
            for (name, busy) in busy {
                let (answered, end) = busy.join().unwrap();
                assert_eq!(answered, name != killed.name, "{way}: a request in {name}");
                let waited = end.duration_since(death);
                assert!(
                    answered || waited < PATIENCE,
                    "{way}: a request in {name} hung for {waited:?}"
                );
            }
            swarm.wait_serving(&shop.web, 3).unwrap();
            after.assert_lossless();
        });
        // Until its end was known, it refused who was sent there.
        let reports = load.stop();
        assert!(slowest(&reports) < PATIENCE, "{way}:\n{}", summary(&reports));
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
    shop.wait_forgotten(&[0, 1], since, &lost);
    let load = shop.load(&[0, 1]);
    drop(before);
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
fn flows_to_other_nodes_go_on_while_an_engine_starts_again() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 3, &[], &[0]);
    let tasks = shop.web.running().unwrap();
    let load = shop.load(&ALL);
    let held = shop.hold(&ALL, &tasks);
    swarm.node(1).stop_engine().unwrap();
    load.flow();
    swarm.start_engine(1).unwrap();
    swarm.wait_nodes_ready().unwrap();
    swarm.wait_serving(&shop.web, 3).unwrap();
    load.flow();
    for (name, mut connection) in held {
        // The engine takes its own containers along.
        if tasks.iter().any(|task| task.name == name && task.node != Some(1)) {
            assert_eq!(connection.ask().unwrap().backend, name);
        }
    }
    shop.load(&ALL).assert_lossless();
}

#[test]
fn an_update_while_an_agent_is_away_is_caught_up_with() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 3, &[], &[0, 1]);
    // Who comes in at a node with an agent and stays, and who asks inside, where no other node's agent is needed.
    let inside = shop.load(&[]);
    let running = shop.web.running().unwrap();
    let before: BTreeSet<_> = running.iter().map(|task| task.name.clone()).collect();
    swarm.stop_agent(2).unwrap();
    let held = shop.hold(&ALL, &running);
    shop.web.update(&["--force"]).unwrap();
    for (name, mut connection) in held {
        connection
            .wait_end(Duration::from_secs(30))
            .unwrap_or_else(|error| panic!("{name} was cut off: {error}"));
    }
    shop.web.wait_updated().unwrap();
    let tasks: BTreeSet<_> = shop
        .web
        .wait_running(3)
        .unwrap()
        .into_iter()
        .map(|task| task.name)
        .collect();
    swarm.start_agent(2).unwrap();
    // It is ready with what it knew before, until a manager's agent has told it more.
    shop.wait_forgotten(&[2], Instant::now(), &before);
    assert_eq!(ready(&swarm, 2, shop.web.name()), tasks);
    let all = shop.load(&ALL);
    all.assert_lossless();
    inside.assert_lossless();
}
