//! An agent that has nothing to do uses next to no processor time, however large the cluster is and however often the
//! kernel confirms its neighbours.

use std::time::{Duration, Instant};

use lb_tests::cluster::Cluster;

use super::own;
use super::scale::{BACKENDS, File, Tables, busy, services};

const REST: Duration = Duration::from_secs(12);
/// A hundred times what a release build needs: debug builds and busy machines have room.
const SHARE: f64 = 0.02;

#[test]
fn an_agent_at_rest_uses_next_to_no_processor_time() {
    let tables = Cluster::builder().nodes(1).clients(0).tables(1 << 20, 1 << 17);
    let Some(cluster) = own(tables.log("info")) else {
        return;
    };
    let count = services();
    let node = cluster.node(0);
    cluster.overwrite(&File::new(&cluster, count).text()).unwrap();
    Tables::of(node).wait("the last slots", Duration::from_secs(120), |t| {
        t.id(count - 1).is_some_and(|id| t.slots(id).0 == BACKENDS)
    });
    // What a large state being taken in leaves to be done.
    std::thread::sleep(Duration::from_secs(8));
    let neighbour = |state: &str| {
        let line = format!("neigh replace 10.80.0.77 lladdr 02:00:00:00:00:77 nud {state} dev eth0\n");
        node.netns().ip(&line).unwrap();
    };
    neighbour("reachable");
    std::thread::sleep(Duration::from_secs(2));
    let pid = node.agent().pid().unwrap();
    let (before, start) = (busy(pid), Instant::now());
    while start.elapsed() < REST {
        neighbour("stale");
        neighbour("reachable");
        std::thread::sleep(Duration::from_millis(400));
    }
    let share = (busy(pid) - before).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("at rest, {count} services: {:.3} % of a processor", share * 100.0);
    assert!(share < SHARE, "{:.2} % of a processor at rest", share * 100.0);
}
