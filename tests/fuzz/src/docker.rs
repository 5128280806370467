//! Answers of the Engine API, and what a node makes of them.
//!
//! Input: which question (one byte), then answers with a zero byte between them, which JSON never has.

use lb_userspace::provider::docker::api::node::{Container, ContainerDetail, EngineVersion, GossipedNetwork};
use lb_userspace::provider::docker::api::{self, Info, Network, Node, Object, Service, Task};
use lb_userspace::provider::docker::{Role, drift, from_gossip, translate};

use crate::cluster::settles;

const MANAGER: u8 = b'm';
const WORKER: u8 = b'w';

/// # Panics
/// If a refusal does not say what was asked, or what is made of the answers leads to tables that are not as desired.
pub fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    let answers: Vec<&[u8]> = rest.split(|byte| *byte == 0).collect();
    match *kind {
        MANAGER => manager(&answers),
        WORKER => worker(&answers),
        _ => answers.iter().for_each(|answer| node(answer)),
    }
}

/// Services, tasks, nodes, networks.
fn manager(answers: &[&[u8]]) {
    let answer = |index: usize| answers.get(index).copied().unwrap_or(b"null");
    let lists = (
        list::<Service>(answer(0)),
        list::<Task>(answer(1)),
        list::<Node>(answer(2)),
        list::<Network>(answer(3)),
    );
    let (Some(services), Some(tasks), Some(nodes), Some(networks)) = lists else {
        return;
    };
    if let Ok((snapshot, _)) = translate(&services, &tasks, &nodes, &networks) {
        settles(&snapshot);
    }
}

/// What the engine says about itself, then its networks in full.
fn worker(answers: &[&[u8]]) {
    let Some((info, networks)) = answers.split_first() else {
        return;
    };
    let Some(info) = object::<Info>(info) else { return };
    let networks: Vec<GossipedNetwork> = networks.iter().filter_map(|answer| object(answer)).collect();
    if let Some((snapshot, _)) = from_gossip(None, &networks, &Role::of(&info)) {
        settles(&snapshot);
        let _ = drift::drift(&snapshot, &networks);
        if let Some((again, _)) = from_gossip(Some(&snapshot), &networks, &Role::of(&info)) {
            settles(&again);
        }
    }
}

/// Everything else that a node asks.
fn node(answer: &[u8]) {
    list::<Container>(answer);
    object::<ContainerDetail>(answer);
    object::<EngineVersion>(answer);
    object::<Network>(answer);
    let message = api::message(answer);
    assert!(!message.contains('\n') || message.len() <= 800, "{message}");
}

fn list<T: api::Listed>(answer: &[u8]) -> Option<Vec<T>> {
    told(T::PATH, api::list(answer))
}

fn object<T: Object>(answer: &[u8]) -> Option<T> {
    told(T::PATH, api::object(answer))
}

/// The operator has to know which question was answered with nonsense.
fn told<T>(path: &str, result: Result<T, api::ApiError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.to_string().contains(path), "{error}");
            None
        }
    }
}

/// A recorded answer.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../lb-userspace/tests/data/docker/", $name)).as_slice()
    };
}

/// Answers that engines gave.
pub fn seeds() -> Vec<Vec<u8>> {
    let small = [
        recorded!("services.json"),
        recorded!("tasks.json"),
        recorded!("nodes.json"),
        recorded!("networks.json"),
    ];
    let real = [
        recorded!("real/services.json"),
        recorded!("real/tasks.json"),
        recorded!("real/nodes.json"),
        recorded!("real/manager-networks.json"),
    ];
    let gossip = [
        recorded!("real/worker-info.json"),
        recorded!("real/worker-network-shop.json"),
        recorded!("real/worker-network-ingress.json"),
        recorded!("real/worker-network-blog.json"),
    ];
    let of_node = [
        recorded!("real/worker-containers.json"),
        recorded!("real/worker-container-web.json"),
        recorded!("real/version.json"),
        recorded!("real/worker-network-docker_gwbridge.json"),
        recorded!("real/worker-services-refused.json"),
    ];
    let encode = |kind: u8, answers: &[&[u8]]| [&[kind], &*answers.join(&0)].concat();
    let mut seeds = vec![encode(MANAGER, &small), encode(MANAGER, &real), encode(WORKER, &gossip)];
    seeds.extend(of_node.map(|answer| encode(b'n', &[answer])));
    seeds
}
