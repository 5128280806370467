//! The Swarm comes up, tasks run and reach each other, and nothing is left of it.

use std::collections::BTreeSet;

use super::shared;

#[test]
fn three_nodes_are_ready_and_replicas_spread() {
    let Some(swarm) = shared() else { return };
    let list = swarm
        .manager()
        .docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"])
        .unwrap();
    let lines: BTreeSet<_> = list.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        BTreeSet::from(["node1 Ready Leader", "node2 Ready", "node3 Ready"])
    );

    let web = swarm.service("web", &["--replicas", "3"]).unwrap();
    let tasks = web.wait_running(3).unwrap();
    let nodes: BTreeSet<_> = tasks.iter().filter_map(|task| task.node).collect();
    assert_eq!(nodes, BTreeSet::from([0, 1, 2]), "{tasks:#?}");
}
