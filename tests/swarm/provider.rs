//! Provider `docker` on real engines: what it finds out, and how soon.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_tests::require;
use lb_tests::swarm::{EXEC_ROOT, Node, Swarm};
use lb_userspace::model::snapshot::{BackendState, Service, Snapshot};
use lb_userspace::provider::ProviderState;
use lb_userspace::provider::docker::{self, Docker, Options, Part, Streamed, Timing};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::shared;

const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// The provider of a node's agent. On workers nobody says anything unless the sender does.
fn provider(runtime: &Runtime, node: &Node) -> (Docker, watch::Sender<Streamed>) {
    let _in = runtime.enter();
    let (sender, streamed) = watch::channel(Streamed::default());
    let timing = Timing {
        look: Duration::from_secs(1),
        grace: Duration::from_millis(100),
        ..Timing::default()
    };
    let socket = node.socket().to_owned();
    (docker::start(Options { socket, timing }, streamed), sender)
}

fn in_time<T>(runtime: &Runtime, goal: &str, future: impl Future<Output = T>) -> T {
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
    done.unwrap_or_else(|_| panic!("not in time: {goal}"))
}

/// Waits for a state of which `look` makes something.
fn until<T>(
    runtime: &Runtime,
    docker: &mut Docker,
    goal: &str,
    mut look: impl FnMut(&ProviderState) -> Option<T>,
) -> T {
    in_time(runtime, goal, async {
        loop {
            if let Some(found) = look(&docker.state.borrow_and_update()) {
                return found;
            }
            docker.state.changed().await.unwrap();
        }
    })
}

fn service<'a>(state: &'a ProviderState, network: &str, name: &str) -> Option<&'a Service> {
    let services = &state.snapshot.as_deref()?.services;
    services.iter().find(|s| s.network == network && s.name == name)
}

/// Task and state of each backend.
fn backends(service: &Service) -> BTreeSet<(String, bool)> {
    let ready = |state| state == BackendState::Ready;
    service
        .backends
        .iter()
        .map(|b| (b.name.clone(), ready(b.state)))
        .collect()
}

fn ready(service: &Service) -> BTreeSet<String> {
    let backends = backends(service).into_iter();
    backends.filter_map(|(name, ready)| ready.then_some(name)).collect()
}

#[test]
fn a_manager_follows_a_service_through_its_life() {
    let Some(swarm) = shared() else { return };
    let runtime = runtime();
    let (mut docker, _streamed) = provider(&runtime, swarm.manager());
    until(&runtime, &mut docker, "a first state", |state| state.snapshot.clone());
    let state = docker.state.borrow().clone();
    assert_eq!(state.node.as_deref(), Some(swarm.manager().name()));
    let snapshot = state.snapshot.unwrap();
    assert_eq!(snapshot.nodes.len(), 3);
    for (node, known) in swarm.nodes().iter().zip(&snapshot.nodes) {
        assert_eq!(
            (node.name(), vec![node.address()]),
            (known.name.as_str(), known.addresses.clone())
        );
    }

    let network = swarm.network("shop", &[]).unwrap();
    let web = swarm
        .service(
            "web",
            &[
                "--replicas",
                "3",
                "--network",
                network.name(),
                "--publish",
                "80",
                "--publish",
                "81:80",
            ],
        )
        .unwrap();
    let tasks = web.wait_running(3).unwrap();
    let names: BTreeSet<_> = tasks.iter().map(|task| task.name.clone()).collect();
    let (inside, outside) = until(&runtime, &mut docker, "all tasks", |state| {
        let inside = service(state, network.name(), web.name())?;
        let outside = service(state, "ingress", web.name())?;
        (ready(inside) == names && ready(outside) == names).then(|| (inside.clone(), outside.clone()))
    });
    assert_eq!(inside.vips, [IpAddr::from(web.vip(network.id()).unwrap())]);
    assert!(inside.any_port && outside.vips.is_empty());
    let published: BTreeSet<_> = outside.ports.iter().map(|p| (p.port, p.target, p.published)).collect();
    assert_eq!(published.len(), 2);
    assert!(published.contains(&(80, 80, Some(81))), "{published:?}");
    for task in &tasks {
        let backend = inside.backends.iter().find(|b| b.name == task.name).unwrap();
        assert_eq!(backend.node, swarm.node(task.node.unwrap()).name());
        assert_eq!(backend.addresses, [IpAddr::from(task.address(network.name()).unwrap())]);
    }

    // Before each old task goes, it drains; at any time somebody is ready.
    let mut drained = BTreeSet::new();
    web.update(&["--force"]).unwrap();
    until(&runtime, &mut docker, "all tasks are new", |state| {
        let web = service(state, network.name(), web.name())?;
        drained.extend(
            backends(web)
                .into_iter()
                .filter(|(_, ready)| !ready)
                .map(|(name, _)| name),
        );
        assert!(!ready(web).is_empty(), "{web:#?}");
        (ready(web).len() == 3 && ready(web).is_disjoint(&names) && backends(web).len() == 3).then_some(())
    });
    assert_eq!(drained, names);

    web.remove().unwrap();
    until(&runtime, &mut docker, "it is gone", |state| {
        service(state, network.name(), web.name()).is_none().then_some(())
    });
}

/// Time of day in seconds, of a time as dockerd writes it.
fn time_of_day(text: &str) -> f64 {
    let (_, time) = text.trim().trim_end_matches('Z').split_once('T').unwrap();
    time.split(':')
        .fold(0.0, |sum, part| 60.0 * sum + part.parse::<f64>().unwrap())
}

#[test]
fn containers_are_known_at_once() {
    let Some(swarm) = shared() else { return };
    let runtime = runtime();
    let node = swarm.node(1);
    let (docker, _streamed) = provider(&runtime, node);
    let network = swarm.network("plain", &["--attachable"]).unwrap();
    let mut local = docker.local.clone();
    let mut took = Vec::new();
    for round in 0..5 {
        let name = format!("plain{}", swarm.number());
        let image = lb_tests::swarm::IMAGE;
        let id = node
            .docker(&["create", "--name", &name, "--network", network.name(), image])
            .unwrap();
        let waiting = runtime.spawn({
            let (mut local, id) = (local.clone(), id.clone());
            async move {
                let known = local
                    .wait_for(|local| local.containers.iter().any(|c| c.id == id))
                    .await;
                drop(known.unwrap());
                SystemTime::now()
            }
        });
        node.docker(&["start", &name]).unwrap();
        let known = in_time(&runtime, "the container is known", waiting).unwrap();
        let started = node
            .docker(&["inspect", "--format", "{{.State.StartedAt}}", &name])
            .unwrap();
        let known = known.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        took.push((known - time_of_day(&started)).rem_euclid(86_400.0));

        let here = local.borrow_and_update().clone();
        let container = here.containers.iter().find(|c| c.id == id).unwrap();
        let detail = node.api(&format!("/containers/{id}/json")).unwrap();
        let settings = &detail["NetworkSettings"];
        assert_eq!(container.name, name, "round {round}");
        let sandbox = settings["SandboxKey"].as_str().unwrap().rsplit('/').next();
        assert_eq!(Some(container.sandbox.as_str()), sandbox);
        assert_eq!(container.endpoints.len(), 1);
        let address = container.endpoints[0].address.to_string();
        assert_eq!(address, settings["Networks"][network.name()]["IPAddress"]);
        let (gateway, mac) = container.gateway.unwrap();
        let shown: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let namespace = format!("{EXEC_ROOT}/netns/{}", container.sandbox);
        let links = node.json_within(&namespace, "ip", &["address", "show"]).unwrap();
        let links = links.to_string();
        assert!(
            links.contains(&gateway.to_string()) && links.contains(&shown.join(":")),
            "{links}"
        );
        let there = here.networks.iter().find(|n| n.id == network.id()).unwrap();
        assert_eq!(there.number, Some(network.vni().unwrap()));
        assert_eq!(format!("{EXEC_ROOT}/netns/{}", there.sandbox), network.namespace());

        node.docker(&["rm", "--force", &name]).unwrap();
        let gone = async {
            drop(
                local
                    .wait_for(|local| local.containers.iter().all(|c| c.id != id))
                    .await
                    .unwrap(),
            )
        };
        in_time(&runtime, "the container is gone", gone);
    }
    took.sort_by(f64::total_cmp);
    println!("seconds from the start of a container until it is known: {took:.3?}");
    // Machines that run tests are slow at times: the middle one counts.
    assert!(took[2] < 0.5, "{took:?}");
}

#[test]
fn a_worker_alone_sees_what_its_own_networks_have() {
    let Some(swarm) = shared() else { return };
    let runtime = runtime();
    let network = swarm.network("shop", &[]).unwrap();
    let web = swarm
        .service(
            "web",
            &["--mode", "global", "--network", network.name(), "--publish", "80"],
        )
        .unwrap();
    let names: BTreeSet<_> = web.wait_running(3).unwrap().into_iter().map(|task| task.name).collect();
    let (mut worker, streamed) = provider(&runtime, swarm.node(1));
    let state = until(&runtime, &mut worker, "all tasks", |state| {
        let inside = service(state, network.name(), web.name())?;
        let outside = service(state, "ingress", web.name())?;
        (ready(inside) == names && ready(outside) == names).then(|| state.clone())
    });
    assert_eq!(state.node.as_deref(), Some(swarm.node(1).name()));
    assert!(
        state
            .refused
            .iter()
            .any(|refusal| refusal.object == "state of the Swarm")
    );
    let inside = service(&state, network.name(), web.name()).unwrap();
    assert_eq!(inside.vips, [IpAddr::from(web.vip(network.id()).unwrap())]);
    let port = service(&state, "ingress", web.name()).unwrap().ports[0];
    assert_eq!(port.published, Some(web.published("tcp", 80).unwrap()));

    // A manager's word counts more.
    let (mut manager, _nobody) = provider(&runtime, swarm.manager());
    let said: Arc<Snapshot> = until(&runtime, &mut manager, "a manager's word", |state| {
        state.snapshot.clone()
    });
    streamed.send_replace(Streamed {
        snapshot: Some(Arc::clone(&said)),
        live: true,
    });
    until(&runtime, &mut worker, "what the manager says", |state| {
        let snapshot = state.snapshot.as_deref()?;
        (snapshot.services == said.services && state.refused.is_empty()).then_some(())
    });
}

#[test]
fn a_promoted_node_reads_the_swarm_itself_and_a_demoted_one_no_more() {
    if !require::swarm() {
        return;
    }
    let swarm = Swarm::builder().nodes(2).start().unwrap();
    let runtime = runtime();
    let (mut docker, _streamed) = provider(&runtime, swarm.node(1));
    let (mut roles, mut readings) = (docker.role.clone(), docker.readings.clone());
    let mut part = |wanted: Part| {
        in_time(&runtime, "the role changes", async {
            drop(roles.wait_for(|role| role.part == wanted).await.unwrap());
            let reads = wanted == Part::Manager;
            drop(readings.wait_for(|reading| reading.is_some() == reads).await.unwrap());
        });
    };
    part(Part::Worker);
    swarm
        .manager()
        .docker(&["node", "promote", swarm.node(1).name()])
        .unwrap();
    part(Part::Manager);
    swarm
        .manager()
        .docker(&["node", "demote", swarm.node(1).name()])
        .unwrap();
    part(Part::Worker);
    let last = docker.state.borrow().snapshot.clone().unwrap();

    // Without its engine the last state stays.
    swarm.node(1).kill_engine().unwrap();
    until(&runtime, &mut docker, "the engine is missed", |state| {
        state.error.clone()
    });
    assert_eq!(docker.state.borrow().snapshot.as_ref().unwrap().services, last.services);
    swarm.start_engine(1).unwrap();
    until(&runtime, &mut docker, "the engine is back", |state| {
        state.error.is_none().then_some(())
    });
}
