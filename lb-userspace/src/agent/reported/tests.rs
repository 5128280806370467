//! What reports make of the cluster state.

use super::*;
use crate::agent::fixtures::{backend, ip, web};
use crate::model::snapshot::{Network, Node};

/// Two nodes; a task `a` on n1 and `b` on n2, which are published.
pub(crate) fn snapshot() -> Snapshot {
    let node = |name: &str, address: &str| Node {
        name: name.into(),
        id: Some(format!("id-{name}")),
        addresses: vec![ip(address)],
    };
    let backend = |task: &str, node: &str, address: &str| backend(&format!("web.1.{task}"), node, address);
    let backends = vec![backend("a", "n1", "10.0.0.5"), backend("b", "n2", "10.0.0.6")];
    Snapshot {
        nodes: vec![node("n1", "192.0.2.1"), node("n2", "192.0.2.2")],
        networks: vec![Network {
            name: "ingress".into(),
            id: 4096,
            subnets: Vec::new(),
            encrypted: false,
            overlay: true,
            ingress: true,
        }],
        services: vec![web("ingress", backends)].into(),
        ..Snapshot::default()
    }
}

pub(crate) fn report(node: &str, addresses: &[&str], tasks: Option<&[&str]>) -> BTreeMap<String, Reported> {
    let report = Report {
        node: node.into(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        tasks: tasks.map(|tasks| tasks.iter().map(|task| (*task).to_owned()).collect()),
        ..Report::default()
    };
    BTreeMap::from([(node.to_owned(), Reported { report, live: true })])
}

pub(crate) fn died(node: &str, tasks: &[&str]) -> BTreeMap<String, Reported> {
    let mut reports = report(node, &[], None);
    for reported in reports.values_mut() {
        reported.report.died = tasks.iter().map(|task| (*task).to_owned()).collect();
    }
    reports
}

fn backends(snapshot: &Snapshot) -> impl Iterator<Item = &Backend> {
    snapshot.services.iter().flat_map(|service| &service.backends)
}

pub(crate) fn state_of(snapshot: &Snapshot, task: &str) -> Option<BackendState> {
    let mut found = backends(snapshot).filter(|backend| task_id(&backend.name) == task);
    found.next().map(|backend| backend.state)
}

fn pending(snapshot: &Snapshot) -> Vec<&str> {
    let pending = backends(snapshot).filter(|backend| backend.pending);
    pending.map(|backend| task_id(&backend.name)).collect()
}

fn tasks(snapshot: &Snapshot) -> Vec<&str> {
    backends(snapshot).map(|backend| task_id(&backend.name)).collect()
}

#[test]
fn a_node_adds_addresses_and_takes_none_from_others() {
    let reports = report("id-n2", &["192.0.2.1", "192.0.2.2", "2001:db8::2"], None);
    let merged = with_reports(&snapshot(), &reports);
    assert_eq!(merged.nodes[0].addresses, [ip("192.0.2.1")]);
    assert_eq!(merged.nodes[1].addresses, [ip("192.0.2.2"), ip("2001:db8::2")]);
}

#[test]
fn an_address_that_has_moved_is_where_an_agent_is_connected() {
    let mut reports = report("id-n1", &["198.51.100.1"], None);
    reports.extend(report("id-n2", &["198.51.100.1"], None));
    let owners = |reports: &BTreeMap<String, Reported>| {
        let nodes = with_reports(&snapshot(), reports).nodes.into_iter();
        let owners = nodes.filter(|node| node.addresses.contains(&ip("198.51.100.1")));
        owners.map(|node| node.name).collect::<Vec<_>>()
    };
    assert_eq!(owners(&reports), ["n1"]);
    reports.get_mut("id-n1").unwrap().live = false;
    assert_eq!(owners(&reports), ["n2"]);
    reports.remove("id-n2");
    assert_eq!(owners(&reports), ["n1"], "who is away keeps what nobody else has");
}

#[test]
fn what_a_node_does_not_report_is_pending_and_who_has_never_reported_says_nothing() {
    let merge = |reports: &BTreeMap<String, Reported>| with_reports(&snapshot(), reports);
    assert_eq!(pending(&merge(&BTreeMap::new())), [""; 0], "no agent there");
    let older = report("id-n2", &[], None);
    assert_eq!(pending(&merge(&older)), [""; 0], "an older agent does not say");
    assert_eq!(pending(&merge(&report("id-n2", &[], Some(&[])))), ["b"]);
    assert_eq!(pending(&merge(&report("id-n2", &[], Some(&["b", "z"])))), [""; 0]);
    let mut away = report("id-n2", &[], Some(&["z"]));
    away.get_mut("id-n2").unwrap().live = false;
    assert_eq!(pending(&merge(&away)), ["b"], "its tables are as it said last");
    assert_eq!(
        pending(&merge(&report("id-n3", &[], Some(&[])))),
        [""; 0],
        "not in the Swarm"
    );
}

#[test]
fn what_no_tunnel_carries_is_not_waited_for() {
    let none = report("id-n2", &[], Some(&[]));
    let changes: [fn(&mut Network); 2] = [|n| n.encrypted = true, |n| n.ingress = false];
    for change in changes {
        let mut snapshot = snapshot();
        change(&mut snapshot.networks[0]);
        assert_eq!(pending(&with_reports(&snapshot, &none)), [""; 0]);
    }
}

#[test]
fn pending_backends_elsewhere_are_left_out_while_another_serves() {
    let snapshot = with_reports(&snapshot(), &report("id-n2", &[], Some(&[])));
    let rest = hold(&snapshot, "n1").unwrap();
    assert_eq!(tasks(&rest), ["a"]);
    assert_eq!(held(&snapshot, &rest), BTreeMap::from([("n2".to_owned(), 1)]));
    assert_eq!(hold(&snapshot, "n2"), None, "its own node has to take it over");
    assert_eq!(tasks(&hold(&snapshot, "n3").unwrap()), ["a"]);

    let mut draining = snapshot.clone();
    draining.services[0].backends[0].state = BackendState::Draining;
    assert_eq!(tasks(&hold(&draining, "n3").unwrap()), ["a"], "it still answers");
}

#[test]
fn a_service_without_another_backend_keeps_what_it_has() {
    let mut snapshot = snapshot();
    for backend in &mut snapshot.services[0].backends {
        backend.pending = true;
    }
    for node in ["n1", "n2", "n3"] {
        assert_eq!(hold(&snapshot, node), None, "as seen by {node}");
    }
    // One that has died is not better: its node does not report it any more.
    snapshot.services[0].backends[0].state = BackendState::Draining;
    assert_eq!(hold(&snapshot, "n3"), None);
}

#[test]
fn the_dead_drain_and_are_forgotten_with_their_tasks() {
    let (mut dead, none) = (Dead::default(), BTreeMap::new());
    let state = |dead: &Dead| {
        let mut snapshot = snapshot();
        dead.drain(&mut snapshot);
        ["a", "b"].map(|task| state_of(&snapshot, task) == Some(BackendState::Draining))
    };
    let own = BTreeSet::from(["a".to_owned()]);
    dead.update(&snapshot(), &died("id-n2", &["b"]), Some("n1"), &own);
    assert_eq!(state(&dead), [true, true]);
    assert_eq!(dead.on(&snapshot(), "n1").collect::<Vec<_>>(), ["a"]);
    dead.update(&snapshot(), &none, Some("n1"), &BTreeSet::new());
    assert_eq!(
        state(&dead),
        [true, true],
        "nobody says it any more, and nobody comes back"
    );
    let mut less = snapshot();
    less.services[0].backends.remove(0);
    dead.update(&less, &none, Some("n1"), &BTreeSet::new());
    assert_eq!(state(&dead), [false, true]);
}

#[test]
fn a_node_speaks_of_its_own_tasks_alone() {
    let mut dead = Dead::default();
    let own = BTreeSet::from(["b".to_owned()]);
    dead.update(&snapshot(), &died("id-n2", &["a"]), Some("n1"), &own);
    let mut snapshot = snapshot();
    dead.drain(&mut snapshot);
    assert_eq!(
        ["a", "b"].map(|task| state_of(&snapshot, task)),
        [Some(BackendState::Ready); 2]
    );
}

#[test]
fn what_serves_is_what_is_delivered_to() {
    use crate::model::desired::{Interfaces, Reach};
    use crate::model::snapshot::{Port, Protocol};
    let mut snapshot = snapshot();
    snapshot.services[0].ports.push(Port {
        protocol: Protocol::Tcp,
        port: 80,
        target: 80,
        published: Some(8080),
    });
    let reach = |leaving| Reach {
        ifindex: 4,
        mac: [2; 6],
        delivery: Some(ip("172.18.0.3").into()),
        leaving,
    };
    let serve = |interfaces: &Interfaces| serving(&Desired::compile(&snapshot, "n1", interfaces).unwrap());
    let key = (4096, ip("10.0.0.5").into());
    assert_eq!(serve(&Interfaces::new()), BTreeSet::new());
    assert_eq!(serve(&Interfaces::from([(key, reach(false))])), ["a".to_owned()].into());
    assert_eq!(serve(&Interfaces::from([(key, reach(true))])), BTreeSet::new());
}
