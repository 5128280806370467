//! Tasks, nodes, engines and agents that die under traffic, and come back.

use lb_tests::swarm::{Swarm, Task, wait_until};
use nix::sys::signal::Signal;

use super::load::{PATIENCE, Shop, slowest, summary};
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
