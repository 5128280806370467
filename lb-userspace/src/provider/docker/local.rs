//! [`Local`]: the containers of this node that are in overlay networks, and those networks, watched on every node.
//!
//! Events of the engine cause an immediate reading; everything is read anew now and then all the same. Which of the
//! Swarm's tasks have died is told apart, and at once: the Swarm's own state says so up to a second later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::api::node::{Container as Listed, Event, LocalEndpoint};
use super::api::{self, Network};
use super::backoff::Backoff;
use super::engine::{Engine, EngineError};
use super::translate::{address, number};

/// Between two readings caused by events, when there are many of them.
const SPACING: Duration = Duration::from_millis(10);
/// The bridge over which containers reach the world outside, and are reached by their node.
const GATEWAY_BRIDGE: &str = "docker_gwbridge";
const TASK_LABEL: &str = "com.docker.swarm.task.id";
/// So long a death is told. The cluster state may name a task first when it has died already.
const DEATHS: Duration = Duration::from_secs(60);
const EVENTS: [&str; 8] = [
    "start",
    "die",
    "destroy",
    "restart",
    "connect",
    "disconnect",
    "create",
    "remove",
];

/// What runs on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Running containers with an endpoint in an overlay network, by id.
    pub containers: Vec<Container>,
    /// Overlay networks that the engine knows, by id. On a manager these are all of the Swarm, also those that have
    /// no endpoint on this node, and so no namespace.
    pub networks: Vec<LocalNetwork>,
    /// Whether the engine has answered at all; before, that nothing is named means nothing.
    pub known: bool,
    /// Why this is not the newest state, if it is not; the last one stays.
    pub error: Option<String>,
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 digits.
    pub id: String,
    /// Such as `web.1.xyz`.
    pub name: String,
    /// Id of the Swarm's task that it is, if it is one.
    pub task: Option<String>,
    /// Name of its namespace's file in `netns` below the engine's exec root.
    pub sandbox: String,
    /// Its places in overlay networks, by network.
    pub endpoints: Vec<Endpoint>,
    /// Address and MAC address on the gateway bridge; containers in internal networks alone have none.
    pub gateway: Option<(IpAddr, [u8; 6])>,
}

/// A container's place in an overlay network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The network's id.
    pub network: String,
    /// The network's name.
    pub name: String,
    /// The container's address there.
    pub address: IpAddr,
    /// The container's MAC address there.
    pub mac: [u8; 6],
}

/// An overlay network that the engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNetwork {
    /// The engine's id.
    pub id: String,
    /// Unique in the Swarm.
    pub name: String,
    /// Its number, as in the snapshot; `None` if Swarm has given it none.
    pub number: Option<u32>,
    /// Whether it carries published ports.
    pub ingress: bool,
    /// Never carried in clear text.
    pub encrypted: bool,
    /// Name of its namespace's file in `netns` below the engine's exec root, if it has one on this node.
    pub sandbox: String,
}

/// Where what was found out goes.
pub(super) struct Outlets {
    /// What runs on this node.
    pub(super) local: watch::Sender<Arc<Local>>,
    /// IDs of the Swarm's tasks of this node whose containers have died of late. None of them comes back: the Swarm makes
    /// new tasks.
    pub(super) died: watch::Sender<BTreeSet<String>>,
}

/// Watches until nobody wants to know any more.
pub(super) async fn watch(engine: Arc<Engine>, outlets: Outlets, resync: Duration) {
    tokio::select! {
        () = outlets.local.closed() => {}
        () = run(&engine, &outlets, resync) => {}
    }
}

async fn run(engine: &Engine, outlets: &Outlets, resync: Duration) {
    let mut memory = Memory::default();
    let mut backoff = Backoff::default();
    loop {
        match follow(engine, outlets, resync, &mut memory, &mut backoff).await {
            Ok(()) => {}
            Err(error) => publish_error(&outlets.local, &error),
        }
        // Also when the stream of events has ended: a restart of the engine takes its time.
        tokio::time::sleep(backoff.next()).await;
    }
}

/// What one reading has of those before it.
#[derive(Default)]
struct Memory {
    sandboxes: Sandboxes,
    deaths: Deaths,
}

/// Reads, and reads again after each event, until the stream of events ends.
async fn follow(
    engine: &Engine,
    outlets: &Outlets,
    resync: Duration,
    memory: &mut Memory,
    backoff: &mut Backoff,
) -> Result<(), EngineError> {
    let Memory { sandboxes, deaths } = memory;
    let mut events = engine.events(&["container", "network"], &EVENTS).await?;
    loop {
        let mut again = false;
        let (local, running) = {
            let reading = read(engine, sandboxes);
            tokio::pin!(reading);
            // Who dies meanwhile is not kept waiting.
            loop {
                tokio::select! {
                    read = &mut reading => break read?,
                    event = events.next() => {
                        let Some(event) = event else { return Ok(()) };
                        deaths.hear(&event, &outlets.died);
                        again = true;
                    }
                }
            }
        };
        let before = outlets.local.borrow().clone();
        deaths.compare(&before.containers, &running, &outlets.died);
        publish(&outlets.local, local);
        backoff.reset();
        let earliest = Instant::now() + SPACING;
        let mut due = if again { earliest } else { earliest + resync };
        // All events that come until then are seen by the one reading that follows.
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else { return Ok(()) };
                    deaths.hear(&event, &outlets.died);
                    due = earliest.max(Instant::now());
                }
                () = sleep_until(due) => break,
            }
        }
    }
}

/// Deaths of late, and when each was noticed.
#[derive(Default)]
struct Deaths(BTreeMap<String, Instant>);

impl Deaths {
    fn hear(&mut self, event: &Event, sender: &watch::Sender<BTreeSet<String>>) {
        if let Some(task) = death(event) {
            self.note(std::iter::once(task.to_owned()), sender);
        }
    }

    /// Also those of which no event has told.
    fn compare(&mut self, before: &[Container], running: &BTreeSet<String>, sender: &watch::Sender<BTreeSet<String>>) {
        let gone = before.iter().filter(|container| !running.contains(&container.id));
        self.note(gone.filter_map(|container| container.task.clone()), sender);
    }

    fn note(&mut self, tasks: impl Iterator<Item = String>, sender: &watch::Sender<BTreeSet<String>>) {
        let now = Instant::now();
        self.0.retain(|_, noticed| now.duration_since(*noticed) < DEATHS);
        for task in tasks {
            self.0.entry(task).or_insert_with_key(|task| {
                info!(target: "lb::provider", task, "a container has died");
                now
            });
        }
        sender.send_if_modified(|died| {
            let news = !died.iter().eq(self.0.keys());
            if news {
                *died = self.0.keys().cloned().collect();
            }
            news
        });
    }
}

/// The Swarm's task whose container has died by this event.
fn death(event: &Event) -> Option<&str> {
    let task = event.actor.attributes.get(TASK_LABEL)?;
    (event.kind == "container" && event.action == "die" && !task.is_empty()).then_some(task)
}

fn publish(sender: &watch::Sender<Arc<Local>>, local: Local) {
    sender.send_if_modified(|current| {
        if **current == local {
            return false;
        }
        if current.error.is_some() {
            info!(target: "lb::provider", "the engine's containers are known again");
        }
        *current = Arc::new(local);
        true
    });
}

fn publish_error(sender: &watch::Sender<Arc<Local>>, error: &EngineError) {
    let error = error.to_string();
    sender.send_if_modified(|current| {
        if current.error.as_ref() == Some(&error) {
            return false;
        }
        warn!(target: "lb::provider", error, "the engine's containers cannot be read; the last ones stay");
        *current = Arc::new(Local {
            error: Some(error),
            ..Local::clone(current)
        });
        true
    });
}

/// Namespaces of containers as they were found. An endpoint's id changes when its container is started again.
#[derive(Default)]
struct Sandboxes(BTreeMap<String, (BTreeSet<String>, String)>);

/// What runs here, and the ids of all running containers.
async fn read(engine: &Engine, sandboxes: &mut Sandboxes) -> Result<(Local, BTreeSet<String>), EngineError> {
    let gateways = async { engine.network(GATEWAY_BRIDGE).await };
    let (networks, containers, gateways) = tokio::try_join!(engine.networks(), engine.containers(), gateways)?;
    let networks = overlays(&networks);
    let mut found = BTreeMap::new();
    for listed in &containers {
        if endpoints(listed, &networks).is_empty() {
            continue;
        }
        let ids: BTreeSet<String> = listed.settings.networks.values().map(|e| e.id.clone()).collect();
        let known = sandboxes.0.get(&listed.id).filter(|(known, _)| *known == ids);
        let sandbox = match known {
            Some((_, sandbox)) => sandbox.clone(),
            // It may be gone by now.
            None => match engine.container(&listed.id).await? {
                Some(detail) => detail.settings.id,
                None => continue,
            },
        };
        if !sandbox.is_empty() {
            found.insert(listed.id.clone(), (ids, sandbox));
        }
    }
    sandboxes.0 = found;
    let running = containers.iter().map(|listed| listed.id.clone()).collect();
    let local = assemble(&containers, networks, gateways.as_ref(), &sandboxes.0);
    Ok((local, running))
}

/// Puts together what the engine said. Containers without a namespace are left out.
fn assemble(
    containers: &[Listed],
    networks: Vec<LocalNetwork>,
    gateways: Option<&Network>,
    sandboxes: &BTreeMap<String, (BTreeSet<String>, String)>,
) -> Local {
    let mut out: Vec<Container> = containers
        .iter()
        .filter_map(|listed| {
            let (_, sandbox) = sandboxes.get(&listed.id)?;
            let sandbox: String = sandbox.chars().take(12).collect();
            let endpoints = endpoints(listed, &networks);
            let name = listed.names.first().map(|name| name.trim_start_matches('/'));
            let gateway = gateways.and_then(|bridge| gateway(bridge, &listed.id, &sandbox));
            (!endpoints.is_empty()).then(|| Container {
                id: listed.id.clone(),
                name: name.unwrap_or(&listed.id).to_owned(),
                task: listed.labels.get(TASK_LABEL).filter(|id| !id.is_empty()).cloned(),
                sandbox,
                endpoints,
                gateway,
            })
        })
        .collect();
    out.sort_by(|a, b| a.id.cmp(&b.id));
    Local {
        containers: out,
        networks,
        known: true,
        error: None,
    }
}

fn overlays(networks: &[Network]) -> Vec<LocalNetwork> {
    let overlays = networks.iter().filter(|n| n.driver == "overlay" && n.scope == "swarm");
    let mut out: Vec<_> = overlays
        .map(|network| LocalNetwork {
            id: network.id.clone(),
            name: network.name.clone(),
            number: number(network),
            ingress: network.ingress,
            encrypted: network.options.contains_key("encrypted"),
            sandbox: format!("1-{}", network.id.chars().take(10).collect::<String>()),
        })
        .collect();
    out.sort_by(|a, b| a.id.cmp(&b.id));
    out
}

fn endpoints(listed: &api::node::Container, networks: &[LocalNetwork]) -> Vec<Endpoint> {
    let mut out = Vec::new();
    for endpoint in listed.settings.networks.values() {
        let Some(network) = networks.iter().find(|network| network.id == endpoint.network) else {
            continue;
        };
        let Some(mac) = mac(&endpoint.mac) else { continue };
        for address in [&endpoint.ipv4, &endpoint.ipv6]
            .into_iter()
            .filter_map(|ip| address(ip))
        {
            out.push(Endpoint {
                network: network.id.clone(),
                name: network.name.clone(),
                address,
                mac,
            });
        }
    }
    out.sort();
    out
}

/// A container's endpoint on the gateway bridge goes by the sandbox; only containers have one of their own id too.
fn gateway(bridge: &Network, container: &str, sandbox: &str) -> Option<(IpAddr, [u8; 6])> {
    let by_name = |endpoint: &&LocalEndpoint| endpoint.name.strip_prefix("gateway_") == Some(sandbox);
    let endpoint = bridge.endpoints.values().find(by_name);
    let endpoint = endpoint.or_else(|| bridge.endpoints.get(container))?;
    Some((address(&endpoint.ipv4)?, mac(&endpoint.mac)?))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    (parts.next().is_none() && mac != [0; 6]).then_some(mac)
}
