//! The Swarm, followed through a stand-in for dockerd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::{Docker, Options, Part, Streamed, Timing, start};
use super::fake::{Answer, Fake};
use super::recorded::{answer, calm};
use super::{backends, service};
use crate::model::snapshot::{BackendState, Snapshot};
use crate::provider::ProviderState;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);

fn options(fake: &Fake) -> Options {
    Options {
        socket: fake.socket.clone(),
        timing: Timing {
            poll: Duration::from_millis(50),
            call: Duration::from_millis(500),
            look: Duration::from_millis(300),
            grace: Duration::from_millis(300),
            ..Timing::default()
        },
    }
}

fn started(fake: &Fake) -> (Docker, watch::Sender<Streamed>) {
    let (sender, streamed) = watch::channel(Streamed::default());
    (start(options(fake), streamed), sender)
}

async fn until(docker: &mut Docker, wanted: impl Fn(&ProviderState) -> bool) -> ProviderState {
    let found = tokio::time::timeout(SOON, docker.state.wait_for(|state| wanted(state))).await;
    let found = found.ok().map(|state| state.unwrap().clone());
    found.unwrap_or_else(|| panic!("still {:?}", *docker.state.borrow()))
}

fn snapshot(state: &ProviderState) -> &Snapshot {
    state.snapshot.as_deref().unwrap()
}

fn drained(state: &ProviderState) -> bool {
    let web = state
        .snapshot
        .as_deref()
        .map(|snapshot| service(snapshot, "shop", "web"));
    web.is_some_and(|web| backends(web).iter().any(|b| b.3 == BackendState::Draining))
}

#[tokio::test]
async fn a_manager_lists_then_polls_tasks() {
    let fake = Fake::manager();
    let (mut docker, _streamed) = started(&fake);
    let state = until(&mut docker, |state| state.snapshot.is_some()).await;
    let mut expected = calm();
    expected.generation = 1;
    assert_eq!(*snapshot(&state), expected);
    assert_eq!(state.node.as_deref(), Some("node1"));
    assert_eq!(state.refused.len(), 1);
    assert_eq!(docker.role.borrow().part, Part::Manager);
    let first = docker.readings.borrow().clone().unwrap();
    assert!(first.index > 90, "{}", first.index);

    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(snapshot(&docker.state.borrow()).generation, 1, "nothing has changed");
    assert!(!docker.state.has_changed().unwrap());
    assert!(docker.readings.borrow().clone().unwrap().read > first.read);
    let calls = fake.calls();
    let lists = |path: &str| calls.iter().filter(|call| *call == path).count();
    assert!(lists("/tasks") >= 4 && lists("/services") == 1, "{calls:?}");

    fake.set("/tasks", answer!("tasks-updating"));
    let state = until(&mut docker, drained).await;
    assert_eq!(snapshot(&state).generation, 2);
}

#[tokio::test]
async fn events_are_hints_for_everything_else() {
    let fake = Fake::manager();
    let (mut docker, _streamed) = started(&fake);
    until(&mut docker, |state| state.snapshot.is_some()).await;
    let mut services: serde_json::Value = serde_json::from_slice(answer!("services")).unwrap();
    services[0]["Spec"]["Name"] = "shop".into();
    fake.set("/services", services.to_string());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!docker.state.has_changed().unwrap(), "nobody has said so");
    let since = Instant::now();
    fake.event("{\"Type\":\"service\",\"Action\":\"update\",\"scope\":\"swarm\"}\n");
    let named = |state: &ProviderState| snapshot(state).services.iter().any(|s| s.name == "shop");
    until(&mut docker, named).await;
    assert!(since.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_task_of_an_unknown_service_makes_all_lists_be_read() {
    let fake = Fake::manager();
    let mut services: serde_json::Value = serde_json::from_slice(answer!("services")).unwrap();
    let mut web = services.as_array_mut().unwrap().remove(0);
    web["Spec"]["Name"] = "late".into();
    fake.set("/services", services.to_string());
    fake.set("/tasks", "[]");
    let (mut docker, _streamed) = started(&fake);
    until(&mut docker, |state| state.snapshot.is_some()).await;
    services.as_array_mut().unwrap().push(web);
    fake.set("/services", services.to_string());
    fake.set("/tasks", answer!("tasks"));
    let late = |state: &ProviderState| snapshot(state).services.iter().any(|s| s.name == "late");
    until(&mut docker, late).await;
}

#[tokio::test]
async fn faults_of_the_engine_keep_the_last_state() {
    let mut fake = Fake::manager();
    let (mut docker, _streamed) = started(&fake);
    let good = until(&mut docker, |state| state.snapshot.is_some()).await;
    let faults: [(&str, Answer, &str); 5] = [
        ("/tasks", Answer::Hangs, "does not answer GET /tasks within 500ms"),
        (
            "/tasks",
            Answer::Is("[{".into()),
            "answer to GET /tasks is not understood",
        ),
        (
            "/tasks",
            Answer::Is("<html>".into()),
            "answer to GET /tasks is not understood",
        ),
        ("/tasks", Answer::Refused(500, "rpc error"), "rpc error (status 500)"),
        (
            "/tasks",
            Answer::Refused(503, "The swarm does not have a leader."),
            "does not have a leader",
        ),
    ];
    for (path, fault, expected) in faults {
        fake.answer(path, fault);
        let state = until(&mut docker, |state| state.error.is_some()).await;
        let error = state.error.unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(state.snapshot, good.snapshot);
        fake.set(path, answer!("tasks"));
        let state = until(&mut docker, |state| state.error.is_none()).await;
        assert_eq!(state.snapshot, good.snapshot);
    }
    // Gone, and back after something has changed.
    fake.stop().await;
    let state = until(&mut docker, |state| state.error.is_some()).await;
    let error = state.error.unwrap().to_string();
    assert!(error.contains("is dockerd running?"), "{error}");
    assert_eq!(state.snapshot, good.snapshot);
    fake.set("/tasks", answer!("tasks-updating"));
    fake.start();
    let state = until(&mut docker, drained).await;
    assert!(state.error.is_none());
    assert_eq!(snapshot(&state).generation, 2);
}

#[tokio::test]
async fn an_engine_without_nodes_is_not_believed() {
    let fake = Fake::manager();
    let (mut docker, _streamed) = started(&fake);
    let good = until(&mut docker, |state| state.snapshot.is_some()).await;
    fake.set("/nodes", "[]");
    fake.event("{\"Type\":\"node\"}\n");
    let state = until(&mut docker, |state| state.error.is_some()).await;
    assert_eq!(state.snapshot, good.snapshot);
}

#[tokio::test]
async fn a_node_that_is_demoted_follows_managers_and_back() {
    let fake = Fake::manager();
    let (mut docker, streamed) = started(&fake);
    let state = until(&mut docker, |state| state.snapshot.is_some()).await;
    assert!(state.first_hand);
    fake.demote();
    docker.role.wait_for(|role| role.part == Part::Worker).await.unwrap();
    docker.readings.wait_for(Option::is_none).await.unwrap();
    // Until a manager's agent answers, what it read itself fills the gaps of what its engine says.
    let alone = |state: &ProviderState| {
        state
            .refused
            .iter()
            .any(|refusal| refusal.object == "state of the Swarm")
    };
    let state = until(&mut docker, alone).await;
    assert_eq!(service(snapshot(&state), "vault", "sealed").backends.len(), 2);
    let mut other = calm();
    other.generation = 77;
    other.services.retain(|s| s.name != "web");
    streamed.send_replace(Streamed {
        snapshot: Some(Arc::new(other)),
        live: true,
    });
    let without = |state: &ProviderState| snapshot(state).services.iter().all(|s| s.name != "web");
    let state = until(&mut docker, without).await;
    assert_eq!(state.node.as_deref(), Some("node2"));
    assert!(state.error.is_none() && !state.first_hand);
    fake.promote();
    let state = until(&mut docker, |state| !without(state)).await;
    assert!(state.first_hand);
    assert_eq!(docker.role.borrow().part, Part::Manager);
    assert!(docker.readings.borrow().is_some());
}

#[tokio::test]
async fn a_worker_asks_its_own_engine_only_while_no_manager_answers() {
    let fake = Fake::worker();
    let (mut docker, streamed) = started(&fake);
    let state = until(&mut docker, |state| state.snapshot.is_some()).await;
    assert_eq!(state.node.as_deref(), Some("node2"));
    assert!(
        state
            .refused
            .iter()
            .any(|refusal| refusal.object == "state of the Swarm")
    );
    assert_eq!(service(snapshot(&state), "shop", "web").backends.len(), 3);

    streamed.send_replace(Streamed {
        snapshot: Some(Arc::new(calm())),
        live: true,
    });
    until(&mut docker, |state| {
        snapshot(state).nodes.len() == 3 && state.refused.is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    fake.calls();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let calls = fake.calls();
    assert!(calls.iter().any(|call| call == "/info"), "{calls:?}");
    assert!(
        !calls.iter().any(|call| call.starts_with("/networks/rrwi")),
        "{calls:?}"
    );

    streamed.send_modify(|streamed| streamed.live = false);
    let state = until(&mut docker, |state| !state.refused.is_empty()).await;
    assert_eq!(snapshot(&state).networks.len(), 5, "what was known stays");
}

#[tokio::test]
async fn a_worker_follows_managers_though_its_engine_is_gone() {
    let mut fake = Fake::worker();
    fake.stop().await;
    let (mut docker, streamed) = started(&fake);
    until(&mut docker, |state| state.error.is_some()).await;
    streamed.send_replace(Streamed {
        snapshot: Some(Arc::new(calm())),
        live: true,
    });
    let state = until(&mut docker, |state| state.snapshot.is_some()).await;
    assert!(state.error.is_none());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        docker.state.borrow().error.is_none(),
        "its engine is not needed for the state"
    );
    let error = docker.local.borrow().error.clone().unwrap();
    assert!(error.contains("cannot reach the engine"), "{error}");
}

#[tokio::test]
async fn a_node_in_no_swarm_says_so() {
    let fake = Fake::worker();
    fake.set("/info", r#"{"Swarm":{"NodeID":"","LocalNodeState":"inactive"}}"#);
    let (mut docker, _streamed) = started(&fake);
    let state = until(&mut docker, |state| state.error.is_some()).await;
    let error = state.error.unwrap().to_string();
    assert!(error.contains("it is in no Swarm"), "{error}");
}

#[tokio::test]
async fn the_provider_ends_with_its_readers() {
    let fake = Fake::manager();
    let (docker, _streamed) = started(&fake);
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(docker);
    tokio::time::sleep(Duration::from_millis(200)).await;
    fake.calls();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fake.calls(), [""; 0]);
}
