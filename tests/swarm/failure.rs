//! Tasks, nodes, engines and agents that die under traffic, and come back.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use lb_tests::client::get;
use lb_tests::swarm::{Balanced, Swarm, Task, wait_until};
use nix::sys::signal::Signal;
use toml::toml;

use super::load::{Load, PATIENCE, Shop, ready};
use super::{balanced, own, own_with};

const ALL: [usize; 3] = [0, 1, 2];

/// Kills a task's first process, by `docker kill` or else by its node's kernel. Returns from when to when it died.
fn kill(swarm: &Swarm, task: &Task, way: &str) -> Range<Instant> {
    let process = task.process(swarm).unwrap();
    std::thread::scope(|scope| {
        // Docker says that it is done a while after that.
        let end = scope.spawn(|| process.wait_dead().unwrap());
        let start = Instant::now();
        match way {
            "docker kill" => task.kill(swarm).unwrap(),
            _ => process.signal(swarm, Signal::SIGKILL).unwrap(),
        }
        start..end.join().unwrap()
    })
}

#[test]
fn a_task_that_is_killed_costs_the_requests_in_it() {
    let Some(swarm) = balanced() else { return };
    let shop = Shop::open(&swarm, 3, &["--restart-delay", "0s"], &[0, 1]);
    for way in ["docker kill", "kill -9"] {
        let tasks = shop.web.running().unwrap();
        let killed = &tasks[0];
        let load = shop.load(&ALL);
        let held = shop.hold(&ALL, &tasks);
        let death = std::thread::scope(|scope| {
            let busy = held.into_iter().map(|(name, mut connection)| {
                let request = move || (connection.get("/slow/4000").is_ok(), Instant::now());
                (name, scope.spawn(request))
            });
            let busy: Vec<_> = busy.collect();
            let death = kill(&swarm, killed, way);
            let since = wait_until("the Swarm knows that it is dead", || {
                let since = Instant::now();
                let tasks = shop.web.tasks()?;
                let runs = tasks.iter().any(|task| task.id == killed.id && task.state == "running");
                Ok(if runs { Err(format!("{tasks:#?}")) } else { Ok(since) })
            })
            .unwrap();
            shop.wait_forgotten(&ALL, since, &BTreeSet::from([killed.name.clone()]));
            for (name, busy) in busy {
                let (answered, end) = busy.join().unwrap();
                assert_eq!(answered, name != killed.name, "{way}: a request in {name}");
                let waited = end.saturating_duration_since(death.end);
                assert!(
                    answered || waited < PATIENCE,
                    "{way}: a request in {name} hung for {waited:?}"
                );
            }
            swarm.wait_serving(&shop.web, 3).unwrap();
            death
        });
        let lost = load.assert_lost_only_in(&death);
        eprintln!(
            "{way}: {lost} requests lost, it died within {:?}",
            death.end - death.start
        );
    }
}

/// A task's states as the agent of a node shows them from now on, until it shows it no more.
fn watch(swarm: &Balanced, node: usize, task: &str) -> Vec<(String, Duration)> {
    let (start, mut seen) = (Instant::now(), Vec::<(String, Duration)>::new());
    loop {
        let list = swarm.admin(node, "/v1/backends").unwrap();
        let mut items = list["items"].as_array().unwrap().iter();
        let Some(found) = items.find(|item| item["task"] == task) else {
            return seen;
        };
        let state = found["state"].as_str().unwrap_or_default().to_owned();
        if seen.last().is_none_or(|(last, _)| *last != state) {
            seen.push((state, start.elapsed()));
        }
        assert!(start.elapsed() < Duration::from_secs(10), "node {node}: {seen:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The Swarm's own state never says of a crashed task that it drains: it is `running`, then gone. So whoever sees it drain
/// was told by the agent of its node.
#[test]
fn everybody_leaves_a_dead_task_before_the_swarm_says_that_it_is_dead() {
    let rarely = toml! {
        [provider]
        poll = "1s"
    };
    let Some(swarm) = own_with(Swarm::builder(), &rarely) else {
        return;
    };
    let shop = Shop::open(&swarm, 6, &["--restart-delay", "60s"], &[0, 1]);
    let tasks = shop.web.running().unwrap();
    let mut told = [0; 3];
    for node in [2, 1, 0] {
        let killed = tasks.iter().find(|task| task.node == Some(node)).unwrap();
        let load = shop.load(&ALL);
        let death = std::thread::scope(|scope| {
            let swarm: &Balanced = &swarm;
            let watchers = ALL.map(|node| (node, scope.spawn(move || watch(swarm, node, &killed.name))));
            let death = kill(swarm, killed, "kill -9");
            for (node, watcher) in watchers {
                let seen = watcher.join().unwrap();
                eprintln!("node {node}: {} of node {:?}: {seen:?}", killed.name, killed.node);
                told[node] += usize::from(seen.iter().any(|(state, _)| state == "draining"));
            }
            death
        });
        let lost = load.assert_lost_only_in(&death);
        eprintln!("{lost} requests lost, it died within {:?}", death.end - death.start);
    }
    // A list that the managers' agents read at the very moment may be first, once.
    assert!(told.iter().all(|told| *told >= 2), "{told:?}");
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
    let tasks = shop.web.wait_running(3).unwrap();
    let tasks: BTreeSet<_> = tasks.into_iter().map(|task| task.name).collect();
    swarm.start_agent(2).unwrap();
    // It is ready with what it knew before, until a manager's agent has told it more.
    let mut there = Load::default();
    there.add("at node3", &swarm.client(0).netns().open(), shop.at(2));
    let start = Instant::now();
    let since = loop {
        let ready = ready(&swarm, 2, shop.web.name());
        if ready.as_ref().is_some_and(|ready| ready.is_disjoint(&before)) {
            break Instant::now();
        }
        assert!(start.elapsed() < lb_tests::swarm::PATIENCE, "it sends to {ready:?}");
        std::thread::sleep(Duration::from_millis(2));
    };
    // From then on it has somebody who answers, and soon all who do.
    wait_until("all new tasks are used", || {
        let ready = ready(&swarm, 2, shop.web.name());
        Ok(if ready.as_ref() == Some(&tasks) {
            Ok(())
        } else {
            Err(format!("{ready:?}, not {tasks:?}"))
        })
    })
    .unwrap();
    there.assert_lossless_since(since);
    let all = shop.load(&ALL);
    all.assert_lossless();
    inside.assert_lossless();
}

#[test]
fn an_update_while_an_agent_is_away_loses_nothing_at_other_nodes() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 3, &[], &[0, 1]);
    let before: BTreeSet<_> = shop.web.running().unwrap().into_iter().map(|task| task.id).collect();
    swarm.stop_agent(2).unwrap();
    let load = shop.load(&[0, 1]);
    shop.web.update(&["--force"]).unwrap();
    shop.web.wait_updated().unwrap();
    let tasks = shop.web.wait_running(3).unwrap();
    assert!(tasks.iter().all(|task| !before.contains(&task.id)));
    let (there, others): (BTreeSet<_>, BTreeSet<_>) = {
        let (there, others): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.node == Some(2));
        let names = |tasks: Vec<Task>| tasks.into_iter().map(|task| task.name).collect();
        (names(there), names(others))
    };
    assert!(!there.is_empty() && !others.is_empty(), "{there:?} {others:?}");
    load.flow();
    // A manager's agent that knows it from its disk alone.
    swarm.kill_agent(0).unwrap();
    swarm.start_agent(0).unwrap();
    load.flow();
    for node in [0, 1] {
        assert_eq!(published(&swarm, &shop, node), others, "node {node}");
    }
    load.assert_lossless();

    swarm.start_agent(2).unwrap();
    let load = shop.load(&[0, 1]);
    let all = there.union(&others).cloned().collect();
    for node in ALL {
        wait_until("the tasks on the node of the agent that came back are used", || {
            let known = published(&swarm, &shop, node);
            Ok(if known == all {
                Ok(())
            } else {
                Err(format!("{known:?}, not {all:?}"))
            })
        })
        .unwrap();
    }
    load.assert_lossless();
    shop.load(&ALL).assert_lossless();
}

/// Who answers at a node's port, asked often enough that everybody gets a turn.
fn published(swarm: &Balanced, shop: &Shop<'_>, node: usize) -> BTreeSet<String> {
    let target = shop.at(node);
    let client = swarm.client(0).netns();
    client.run(|| (0..12).filter_map(|_| Some(get(target).ok()?.backend)).collect())
}

#[test]
fn a_managers_agent_that_starts_again_knows_what_nodes_have_reported() {
    let Some(swarm) = own(Swarm::builder()) else { return };
    let shop = Shop::open(&swarm, 3, &[], &[]);
    swarm
        .node(2)
        .output("ip", &["address", "add", "10.80.0.33/24", "dev", "eth0"])
        .unwrap();
    let second = SocketAddr::new(IpAddr::from([10, 80, 0, 33]), shop.at(2).port());
    let client = swarm.client(0).netns();
    wait_until("the port is answered at a second address", || {
        Ok(client.run(|| get(second)).map(drop).map_err(|error| error.to_string()))
    })
    .unwrap();
    let mut load = shop.load(&ALL);
    load.add("at a second address", &client.open(), second);
    for _ in 0..2 {
        swarm.kill_agent(0).unwrap();
        load.flow();
        swarm.start_agent(0).unwrap();
        // Longer than it takes until all have connected again.
        for _ in 0..5 {
            load.flow();
        }
    }
    // An agent that is away has left its addresses.
    swarm.stop_agent(2).unwrap();
    swarm.kill_agent(0).unwrap();
    swarm.start_agent(0).unwrap();
    for _ in 0..5 {
        load.flow();
    }
    load.assert_lossless();
}
