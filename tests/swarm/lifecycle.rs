//! Tasks and nodes that stop, die and come back, and what is left of a Swarm.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lb_tests::client::{Connection, get};
use lb_tests::require;
use lb_tests::swarm::{Iptables, Swarm, wait_until};

use super::shared;

#[test]
fn a_task_that_is_stopped_finishes_its_request() {
    let Some(swarm) = shared() else { return };
    let web = swarm.service("web", &["--publish", "80"]).unwrap();
    let task = web.wait_running(1).unwrap().remove(0);
    let target = SocketAddr::from((task.gateway_address(&swarm).unwrap(), 80));
    let node = swarm.node(task.node.unwrap()).netns();
    let (mut idle, mut busy) = node.run(|| (Connection::open(target).unwrap(), Connection::open(target).unwrap()));
    assert_eq!(idle.ask().unwrap().backend, task.name);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| busy.get("/slow/4000"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        // SIGTERM comes 2 s later, and finds the request half done.
        web.remove().unwrap();
        let draining = wait_until("the task runs and is to go", || {
            let all = swarm.manager().api("/tasks").unwrap();
            let found = all.as_array().unwrap().iter().any(|known| known["ID"] == *task.id);
            Ok(if found {
                Err("the manager still knows it".to_owned())
            } else {
                Ok(())
            })
        });
        draining.unwrap();
        let body = answer.join().unwrap().unwrap();
        assert!(String::from_utf8_lossy(&body).starts_with(&task.name));
    });
    idle.wait_end(std::time::Duration::from_secs(5)).unwrap();
}

#[test]
fn an_update_shows_tasks_that_run_and_are_to_stop() {
    let Some(swarm) = shared() else { return };
    let web = swarm.service("web", &["--replicas", "2"]).unwrap();
    let before: BTreeSet<_> = web.wait_running(2).unwrap().into_iter().map(|task| task.id).collect();
    web.update(&["--force"]).unwrap();
    // Docker's own 2 s between taking a task out of service and SIGTERM.
    let draining = wait_until("a task drains", || {
        let tasks = web.tasks()?;
        let draining = tasks
            .iter()
            .find(|task| task.state == "running" && task.desired == "shutdown");
        Ok(draining.cloned().ok_or_else(|| format!("{tasks:#?}")))
    });
    assert!(before.contains(&draining.unwrap().id));
    web.wait_updated().unwrap();
    let after: BTreeSet<_> = web.wait_running(2).unwrap().into_iter().map(|task| task.id).collect();
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
    assert_eq!(web.scale(3).unwrap().len(), 3);
}

#[test]
fn a_killed_task_is_replaced_and_an_ill_one_too() {
    let Some(swarm) = shared() else { return };
    let health = [
        "--restart-delay",
        "0s",
        "--health-cmd",
        "/bin/lb-task health",
        "--health-interval",
        "500ms",
        "--health-retries",
        "1",
    ];
    let web = swarm.service("web", &health).unwrap();
    let mut task = web.wait_running(1).unwrap().remove(0);
    for _ in 0..2 {
        task.kill(&swarm).unwrap();
        let next = replaced(&web, &task.id);
        task = next;
        task.exec(&swarm, &["sicken"]).unwrap();
        task = replaced(&web, &task.id);
    }
}

fn replaced(service: &lb_tests::swarm::Service<'_>, old: &str) -> lb_tests::swarm::Task {
    let next = wait_until("another task runs", || {
        let tasks = service.tasks()?;
        let next = tasks.iter().find(|task| task.is_running() && task.id != old);
        Ok(next.cloned().ok_or_else(|| format!("{tasks:#?}")))
    });
    next.unwrap()
}

#[test]
fn nodes_drain_die_and_come_back() {
    if !require::swarm() {
        return;
    }
    let swarm = Swarm::builder().nodes(2).start().unwrap();
    let web = swarm.service("web", &["--replicas", "2"]).unwrap();
    web.wait_running(2).unwrap();
    let nodes = |tasks: &[lb_tests::swarm::Task]| tasks.iter().filter_map(|task| task.node).collect::<BTreeSet<_>>();

    swarm.set_availability(1, "drain").unwrap();
    let moved = wait_until("all tasks are on the other node", || {
        let tasks = web.running()?;
        Ok(if tasks.len() == 2 && nodes(&tasks) == BTreeSet::from([0]) {
            Ok(())
        } else {
            Err(format!("{tasks:#?}"))
        })
    });
    moved.unwrap();
    swarm.set_availability(1, "active").unwrap();

    // A dockerd that is killed leaves its containers alone, and ends them when it is back.
    swarm.node(1).kill_engine().unwrap();
    assert!(swarm.node(1).api("/_ping").is_err());
    swarm.start_engine(1).unwrap();
    swarm.wait_nodes_ready().unwrap();
    swarm.node(1).stop_engine().unwrap();
    swarm.start_engine(1).unwrap();
    swarm.wait_nodes_ready().unwrap();

    // A node without power loses its processes and /run, and knows its cluster when it is back.
    let run = swarm.node(1).run_directory();
    fs::write(run.join("mark"), "").unwrap();
    let id = swarm.node(1).api("/info").unwrap()["Swarm"]["NodeID"].clone();
    swarm.node(1).turn_off().unwrap();
    assert!(swarm.node(1).output("true", &[]).is_err());
    swarm.turn_on(1).unwrap();
    swarm.wait_nodes_ready().unwrap();
    assert!(!run.join("mark").exists());
    assert_eq!(swarm.node(1).api("/info").unwrap()["Swarm"]["NodeID"], id);
    web.update(&["--force"]).unwrap();
    web.wait_updated().unwrap();
    assert_eq!(nodes(&web.wait_running(2).unwrap()), BTreeSet::from([0, 1]));
}

#[test]
fn a_node_is_a_machine_of_its_own() {
    let Some(swarm) = shared() else { return };
    let node = swarm.node(1);
    assert_eq!(node.output("uname", &["--nodename"]).unwrap().trim(), "node2");
    let seen = node
        .output("ip", &["-4", "-brief", "address", "show", "dev", "eth0"])
        .unwrap();
    assert!(seen.contains("10.80.0.2/24"), "{seen}");
    // Files in /run go both ways; those elsewhere stay there.
    node.output("sh", &["-c", "echo inside >/run/mark && echo inside >/etc/lb-mark"])
        .unwrap();
    assert_eq!(
        fs::read_to_string(node.run_directory().join("mark")).unwrap(),
        "inside\n"
    );
    assert!(!Path::new("/etc/lb-mark").exists());
    assert!(swarm.node(0).output("cat", &["/etc/lb-mark"]).is_err());
    // A BPF file system, /sys of its namespace, control groups that begin with the node's.
    assert_eq!(
        node.output("stat", &["-f", "-c", "%T", "/sys/fs/bpf"]).unwrap().trim(),
        "bpf_fs"
    );
    assert!(
        node.output("ls", &["/sys/class/net"])
            .unwrap()
            .contains("docker_gwbridge")
    );
    let groups = node.output("cat", &["/proc/self/cgroup"]).unwrap();
    assert!(
        groups
            .lines()
            .all(|line| line.ends_with(":/") || line.ends_with(":/init")),
        "{groups}"
    );
    // dockerd is among its processes, and this test is not.
    let processes = node
        .output("sh", &["-c", "cat /proc/[0-9]*/comm 2>/dev/null || true"])
        .unwrap();
    assert!(
        processes.contains("dockerd\n") && !processes.contains("a_node_is_a_mac"),
        "{processes}"
    );
}

#[test]
fn the_packet_filter_is_the_one_that_was_asked_for() {
    if !require::swarm() {
        return;
    }
    for (iptables, tool, forwarding, policy) in [
        (Iptables::Legacy, "iptables-legacy", false, "-P FORWARD DROP"),
        (Iptables::Nft, "iptables-nft", true, "-P FORWARD ACCEPT"),
    ] {
        let builder = Swarm::builder().nodes(1).iptables(iptables).forwarding(forwarding);
        let swarm = builder.start().unwrap();
        // For every bridge that it makes dockerd takes its jump out and puts it back.
        wait_until("dockerd has written its rules", || {
            let rules = swarm.node(0).output(tool, &["-S", "FORWARD"])?;
            Ok(if rules.contains(policy) && rules.contains("-j DOCKER-USER") {
                Ok(())
            } else {
                Err(format!("{tool}: {rules}"))
            })
        })
        .unwrap();
    }
}

#[test]
fn a_dropped_swarm_leaves_nothing() {
    if !require::swarm() {
        return;
    }
    let swarm = Swarm::builder().nodes(2).start().unwrap();
    let web = swarm.service("web", &["--replicas", "2", "--publish", "80"]).unwrap();
    let task = web.wait_running(2).unwrap().remove(0);
    let target = SocketAddr::from((task.gateway_address(&swarm).unwrap(), 80));
    let seen = swarm.node(task.node.unwrap()).netns().run(|| get(target)).unwrap();
    assert_eq!(seen.backend, task.name);
    drop(web);
    let pids: Vec<_> = swarm
        .nodes()
        .iter()
        .map(|node| node.on_machine(|machine| machine.pid()).unwrap())
        .collect();
    let names: Vec<_> = swarm
        .nodes()
        .iter()
        .map(|node| node.netns().name().to_owned())
        .collect();
    let directory = swarm.node(0).log().ancestors().nth(2).unwrap().to_owned();
    let groups: BTreeSet<_> = pids.iter().flat_map(|pid| cgroups(*pid)).collect();
    assert!(
        groups.iter().all(|group| group.exists()) && groups.len() >= 2,
        "{groups:?}"
    );
    drop(swarm);

    for pid in pids {
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "process {pid}");
    }
    for name in names {
        assert!(!Path::new("/run/netns").join(&name).exists(), "{name}");
    }
    for group in groups {
        assert!(!group.exists(), "{}", group.display());
    }
    assert!(!directory.exists(), "{}", directory.display());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(directory.to_str().unwrap()), "{mounts}");
}

/// The control groups of a machine, in all hierarchies where they are mounted with the hierarchy's usual name.
fn cgroups(pid: i32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        // The first process of a machine with one hierarchy is in a leaf.
        let path = path.strip_suffix("/init").unwrap_or(path).trim_start_matches('/');
        let hierarchy = Path::new("/sys/fs/cgroup");
        let hierarchy = match controllers.strip_prefix("name=").unwrap_or(controllers) {
            "" if hierarchy.join("unified").exists() => hierarchy.join("unified"),
            controllers => hierarchy.join(controllers),
        };
        Some(hierarchy.join(path))
    };
    text.lines().filter_map(group).collect()
}
