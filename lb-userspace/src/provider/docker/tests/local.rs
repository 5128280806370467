//! This node's containers, through a stand-in for dockerd.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::local::{Container, Local};
use super::super::{Docker, Options, Streamed, Timing, start};
use super::fake::{Answer, Fake};
use super::recorded::answer;

const SOON: Duration = Duration::from_secs(20);

fn started(fake: &Fake, resync: Duration) -> Docker {
    let timing = Timing {
        resync,
        call: Duration::from_millis(500),
        ..Timing::default()
    };
    let nobody = watch::channel(Streamed::default()).1;
    let socket = fake.socket.clone();
    start(Options { socket, timing }, nobody)
}

async fn until(docker: &mut Docker, wanted: impl Fn(&Local) -> bool) -> Arc<Local> {
    let found = tokio::time::timeout(SOON, docker.local.wait_for(|local| wanted(local))).await;
    let found = found.ok().map(|local| Arc::clone(&local.unwrap()));
    found.unwrap_or_else(|| panic!("still {:?}", *docker.local.borrow()))
}

fn container<'a>(local: &'a Local, name: &str) -> &'a Container {
    let mut all = local.containers.iter();
    all.find(|c| c.name.split('.').next() == Some(name))
        .unwrap_or_else(|| panic!("no {name}"))
}

#[tokio::test]
async fn containers_have_namespaces_endpoints_and_gateways() {
    let fake = Fake::worker();
    let mut docker = started(&fake, Duration::from_secs(60));
    let local = until(&mut docker, |local| !local.containers.is_empty()).await;
    assert_eq!(
        (local.containers.len(), local.networks.len(), &local.error),
        (6, 4, &None)
    );
    let web = container(&local, "web");
    assert_eq!(web.task.as_deref(), Some("na9fm9y7ztiur291wh4b54wfw"));
    assert_eq!(web.sandbox, "0fc28cc517f6");
    assert_eq!(
        web.gateway,
        Some(("172.18.0.6".parse().unwrap(), [2, 0x42, 0xac, 0x12, 0, 6]))
    );
    let endpoints: Vec<_> = web
        .endpoints
        .iter()
        .map(|e| format!("{} {} {} {:02x?}", e.network, e.name, e.address, e.mac))
        .collect();
    assert_eq!(
        endpoints,
        [
            "6997tq6jx06tkjn2w8gezth1w ingress 10.0.0.17 [02, 42, 0a, 00, 00, 11]",
            "rrwiwfqv5ag959ohkulmw4f2o shop 10.0.1.17 [02, 42, 0a, 00, 01, 11]",
        ]
    );
    // A plain container on an attachable network.
    let plain = container(&local, "plain");
    assert_eq!(
        (&plain.task, plain.endpoints.len(), plain.gateway.is_some()),
        (&None, 1, true)
    );
    let ingress = local.networks.iter().find(|network| network.ingress).unwrap();
    assert_eq!((ingress.number, ingress.sandbox.as_str()), (Some(4096), "1-6997tq6jx0"));
}

#[tokio::test]
async fn a_manager_tells_which_networks_are_encrypted() {
    let fake = Fake::worker();
    fake.set("/networks", answer!("manager-networks"));
    let mut docker = started(&fake, Duration::from_secs(60));
    let local = until(&mut docker, |local| !local.networks.is_empty()).await;
    let encrypted: Vec<_> = local
        .networks
        .iter()
        .filter(|n| n.encrypted)
        .map(|n| n.name.as_str())
        .collect();
    assert_eq!(encrypted, ["vault"]);
}

#[tokio::test]
async fn that_there_is_nothing_is_known_only_when_the_engine_has_said_so() {
    let fake = Fake::worker();
    fake.set("/networks", b"[]");
    fake.set("/containers/json", b"[]");
    let mut docker = started(&fake, Duration::from_secs(60));
    assert!(!docker.local.borrow().known);
    let local = until(&mut docker, |local| local.known).await;
    assert!(local.containers.is_empty() && local.networks.is_empty());
}

#[tokio::test]
async fn an_event_is_followed_at_once() {
    let fake = Fake::worker();
    fake.set("/containers/json", "[]");
    let mut docker = started(&fake, Duration::from_secs(60));
    until(&mut docker, |local| !local.networks.is_empty()).await;
    fake.set("/containers/json", answer!("worker-containers"));
    let since = Instant::now();
    fake.event("{\"Type\":\"container\",\"Action\":\"start\"}\n{\"Type\":\"network\",\"Action\":\"connect\"}\n");
    until(&mut docker, |local| local.containers.len() == 6).await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());

    // What is known is not asked for again, until it is started again.
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.calls();
    let mut containers: serde_json::Value = serde_json::from_slice(answer!("worker-containers")).unwrap();
    containers[0]["NetworkSettings"]["Networks"]["shop"]["EndpointID"] = "another".into();
    let id = containers[0]["Id"].as_str().unwrap().to_owned();
    let inspected = format!("/containers/{id}/json");
    fake.set(&inspected, r#"{"NetworkSettings":{"SandboxID":"ffffffffffff0000"}}"#);
    fake.set("/containers/json", containers.to_string());
    fake.event("{\"Type\":\"container\",\"Action\":\"start\"}\n");
    until(&mut docker, |local| {
        local.containers.iter().any(|c| c.sandbox == "ffffffffffff")
    })
    .await;
    let calls = fake.calls();
    let inspections: Vec<_> = calls
        .iter()
        .filter(|call| call.starts_with("/containers/") && *call != "/containers/json")
        .collect();
    assert_eq!(inspections, [&inspected]);
}

#[tokio::test]
async fn lost_events_cost_time_only_and_a_container_may_go_meanwhile() {
    let fake = Fake::worker();
    let mut containers: serde_json::Value = serde_json::from_slice(answer!("worker-containers")).unwrap();
    containers[0]["Id"] = "gone".into();
    fake.set("/containers/json", containers.to_string());
    let mut docker = started(&fake, Duration::from_millis(200));
    until(&mut docker, |local| local.containers.len() == 5).await;
    fake.set("/containers/json", "null");
    until(&mut docker, |local| local.containers.is_empty()).await;
}

#[tokio::test]
async fn a_restart_of_the_engine_is_survived() {
    let mut fake = Fake::worker();
    let mut docker = started(&fake, Duration::from_millis(200));
    until(&mut docker, |local| local.containers.len() == 6).await;
    fake.answer("/containers/json", Answer::Hangs);
    let local = until(&mut docker, |local| local.error.is_some()).await;
    assert_eq!(local.containers.len(), 6);
    fake.stop().await;
    fake.set("/containers/json", "[]");
    until(&mut docker, |local| {
        local.error.as_deref().is_some_and(|e| e.contains("cannot reach"))
    })
    .await;
    fake.start();
    let local = until(&mut docker, |local| local.error.is_none()).await;
    assert!(local.containers.is_empty());
}

const DIES: &str = "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"x\",\"Attributes\":\
    {\"com.docker.swarm.task.id\":\"na9fm9y7ztiur291wh4b54wfw\",\"exitCode\":\"137\"}}}\n";
const WEB: &str = "na9fm9y7ztiur291wh4b54wfw";

async fn until_died(docker: &mut Docker, wanted: &[&str]) {
    let found = tokio::time::timeout(SOON, docker.died.wait_for(|died| died.iter().eq(wanted)))
        .await
        .is_ok();
    assert!(found, "still {:?}", *docker.died.borrow());
}

#[tokio::test]
async fn a_death_is_told_before_anything_is_read() {
    let fake = Fake::worker();
    let mut docker = started(&fake, Duration::from_secs(60));
    until(&mut docker, |local| local.containers.len() == 6).await;
    assert!(docker.died.borrow().is_empty());
    // What follows an event is a reading, and the engine does not answer it.
    fake.answer("/containers/json", Answer::Hangs);
    for line in [
        "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{\"ID\":\"x\",\"Attributes\":null}}\n",
        "{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":null}\n",
        "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"Attributes\":\
         {\"com.docker.swarm.task.id\":\"other\"}}}\n",
        DIES,
    ] {
        fake.event(line);
    }
    until_died(&mut docker, &[WEB]).await;
    assert_eq!(docker.local.borrow().containers.len(), 6, "what was read last stays");
}

#[tokio::test]
async fn a_death_of_which_no_event_tells_is_seen_when_its_container_is_gone() {
    let fake = Fake::worker();
    let mut docker = started(&fake, Duration::from_millis(100));
    until(&mut docker, |local| local.containers.len() == 6).await;
    let mut containers: Vec<serde_json::Value> = serde_json::from_slice(answer!("worker-containers")).unwrap();
    // Out of its networks is not dead.
    let api = containers
        .iter_mut()
        .find(|c| c["Labels"]["com.docker.swarm.service.name"] == "api");
    api.unwrap()["NetworkSettings"]["Networks"] = serde_json::json!({});
    containers.retain(|c| c["Labels"]["com.docker.swarm.task.id"] != WEB);
    fake.set("/containers/json", serde_json::to_vec(&containers).unwrap());
    until_died(&mut docker, &[WEB]).await;
    assert_eq!(docker.local.borrow().containers.len(), 4);
}
