//! The agent's part in a Swarm: the provider `docker`, and what agents tell each other.
//!
//! Every agent serves the stream and follows all managers, whatever its node's part is at the moment: a worker has nothing
//! to serve, and a manager does not use what others say about the Swarm; so a promotion changes nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::containers::node_addresses;
use super::merge::{self, Merged, Sources};
use super::{reported, status};
use crate::admin::api;
use crate::config::Config;
use crate::model::desired::Desired;
use crate::net::Netlink;
use crate::provider::ProviderState;
use crate::provider::docker::{self, Docker, Drift, Local, Options, Role, Streamed};
use crate::stream::{
    self, Client, ClientOptions, Identity, IdentityError, Report, Reported, Server, ServerOptions, Source,
    StreamStatus, Timing, View,
};

/// How often streams are asked how they are.
const LOOK: Duration = Duration::from_millis(500);
/// How often the node's own addresses are read.
const ADDRESSES: Duration = Duration::from_secs(10);

/// What the rest of the agent gets.
pub(super) struct Swarm {
    /// The cluster state, with what the nodes have reported.
    pub(super) state: watch::Receiver<ProviderState>,
    /// What runs on this node.
    pub(super) local: watch::Receiver<Arc<Local>>,
    /// This node's part.
    pub(super) role: watch::Receiver<Role>,
    /// How the state differs from what the engine knows.
    pub(super) drift: watch::Receiver<Option<Drift>>,
    /// How the streams are.
    pub(super) stream: watch::Receiver<StreamStatus>,
    /// Tasks that published ports on this node lead to; `None` until the tables have been written.
    serving: watch::Sender<Option<BTreeSet<String>>>,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Containers of this node.
    Containers,
    /// This node's part, or the streams.
    Circumstances,
}

impl Swarm {
    /// Whether the containers of this node are known.
    pub(super) fn knows_containers(&self) -> bool {
        self.local.borrow().known
    }

    /// This node's part, for people.
    pub(super) fn status(&self) -> api::SwarmStatus {
        let drift = self.drift.borrow();
        status::swarm(
            &self.role.borrow(),
            &self.local.borrow(),
            drift.as_ref(),
            &self.stream.borrow(),
        )
    }

    /// Takes note of what the tables hold.
    pub(super) fn in_force(&self, desired: &Desired) {
        let tasks = Some(reported::serving(desired));
        self.serving.send_if_modified(|serving| replace(serving, tasks));
    }

    /// Ends when something has changed.
    pub(super) async fn changed(&mut self) -> News {
        let (ended, news) = tokio::select! {
            changed = self.local.changed() => (changed.is_err(), News::Containers),
            changed = self.role.changed() => (changed.is_err(), News::Circumstances),
            changed = self.drift.changed() => (changed.is_err(), News::Circumstances),
            changed = self.stream.changed() => (changed.is_err(), News::Circumstances),
        };
        if ended {
            // The parts end when the agent does.
            std::future::pending::<()>().await;
        }
        news
    }
}

/// Starts it. Without an identity (`[stream]`) the stream is off: managers do without, workers know what their engine knows.
///
/// # Errors
/// The identity is configured and cannot be used.
pub(super) fn start(config: &Config, stop: &CancellationToken) -> Result<Swarm> {
    let identity = match Identity::load(&config.stream) {
        Ok(identity) => Some(identity),
        Err(error @ IdentityError::Off) => {
            tracing::warn!(target: "lb::stream", %error, "agents do not talk to each other");
            None
        }
        Err(error) => return Err(error).context("cannot join the stream between agents"),
    };
    let (streamed, said) = watch::channel(Streamed::default());
    let docker = docker::start(Options::from(config), said);
    let (state, states) = watch::channel(ProviderState::default());
    let (view, views) = watch::channel(None);
    let reports_file = stream::reports_file(&config.stream.state_file);
    let known = match identity {
        Some(_) => stream::remembered(&reports_file, Timing::default().retain),
        None => BTreeMap::new(),
    };
    let (reports, reported) = watch::channel(known);
    let (status, statuses) = watch::channel(StreamStatus::default());
    let (dead, deaths) = watch::channel(BTreeSet::new());
    let (serving, served) = watch::channel(None);
    let Docker {
        state: provider,
        readings,
        role,
        local,
        died,
        drift,
    } = docker;
    let sources = Sources {
        provider,
        readings,
        reports: reported,
        died,
    };
    tokio::spawn(merge::run(sources, Merged { state, view, dead }));
    if let Some(identity) = identity {
        let talk = Talk {
            config: config.clone(),
            identity,
            role: role.clone(),
            views,
            serving: served,
            dead: deaths,
            streamed,
            reports,
            status,
        };
        tokio::spawn(talk.run(stop.clone()));
    }
    Ok(Swarm {
        state: states,
        local,
        role,
        drift,
        stream: statuses,
        serving,
    })
}

/// Both ends of the stream, while this node is in a Swarm.
struct Talk {
    config: Config,
    identity: Arc<Identity>,
    role: watch::Receiver<Role>,
    views: watch::Receiver<Option<View>>,
    /// What this node reports of its tasks.
    serving: watch::Receiver<Option<BTreeSet<String>>>,
    dead: watch::Receiver<BTreeSet<String>>,
    streamed: watch::Sender<Streamed>,
    reports: watch::Sender<BTreeMap<String, Reported>>,
    status: watch::Sender<StreamStatus>,
}

impl Talk {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let node = self.role.borrow_and_update().node.clone();
            if node.is_empty() {
                if self.role.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let end = stop.child_token();
            self.talk_as(&node, &end).await;
            end.cancel();
        }
    }

    /// Until this node has another id.
    async fn talk_as(&mut self, node: &str, stop: &CancellationToken) {
        let server = ServerOptions {
            node: node.to_owned(),
            listen: self.config.stream.listen.clone(),
            connections: self.config.stream.connections as usize,
            identity: Arc::clone(&self.identity),
            reports_file: Some(stream::reports_file(&self.config.stream.state_file)),
            timing: Timing::default(),
        };
        let server = match Server::start(server, self.views.clone(), stop) {
            Ok(server) => server,
            Err(error) => {
                tracing::error!(target: "lb::stream", %error, "the state is not sent to other nodes");
                tokio::time::sleep(ADDRESSES).await;
                return;
            }
        };
        let (managers, followed) = watch::channel(Vec::new());
        let (report, own) = watch::channel(None);
        let client = ClientOptions {
            node: node.to_owned(),
            identity: Arc::clone(&self.identity),
            state_file: Some(self.config.stream.state_file.clone()),
            snapshots: true,
            timing: Timing::default(),
        };
        let client = Client::start(client, followed, own, stop);
        let (mut snapshots, mut reports) = (client.snapshots(), server.reports());
        let mut look = tokio::time::interval(LOOK);
        let mut addresses = tokio::time::interval(ADDRESSES);
        let netlink = Netlink::connect().ok();
        let mut known = None;
        let port = self.config.stream.port().unwrap_or_default();
        loop {
            let role = self.role.borrow_and_update().clone();
            if role.node != node {
                break;
            }
            managers.send_if_modified(|managers| replace(managers, follow(&role, port)));
            if let (Some(addresses), Some(tasks)) = (&known, &*self.serving.borrow_and_update()) {
                let new = Report {
                    node: node.to_owned(),
                    name: role.name.clone(),
                    addresses: Vec::clone(addresses),
                    tasks: Some(tasks.clone()),
                    died: self.dead.borrow_and_update().clone(),
                };
                if report.borrow().as_ref() != Some(&new) {
                    server.report(new.clone());
                    report.send_replace(Some(new));
                }
            }
            self.reports
                .send_if_modified(|all| replace(all, reports.borrow_and_update().clone()));
            let status = client.status();
            let streamed = Streamed {
                snapshot: snapshots.borrow_and_update().clone(),
                live: matches!(status.source, Source::Manager { .. })
                    && status.managers.iter().any(|m| m.connected && m.current),
            };
            self.streamed.send_if_modified(|now| {
                let same = now.live == streamed.live
                    && now.snapshot.as_ref().map(Arc::as_ptr) == streamed.snapshot.as_ref().map(Arc::as_ptr);
                *now = streamed;
                !same
            });
            let status = if self.views.borrow().is_some() {
                StreamStatus {
                    managers: status.managers,
                    ..server.status()
                }
            } else {
                status
            };
            self.status.send_if_modified(|now| replace(now, status));
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.role.changed() => if changed.is_err() { break },
                changed = snapshots.changed() => if changed.is_err() { break },
                changed = reports.changed() => if changed.is_err() { break },
                _ = look.tick() => {}
                changed = self.serving.changed() => if changed.is_err() { break },
                changed = self.dead.changed() => if changed.is_err() { break },
                _ = addresses.tick() => known = own_addresses(netlink.as_ref()).await.or(known),
            }
        }
    }
}

/// The other managers' agents.
fn follow(role: &Role, port: u16) -> Vec<SocketAddr> {
    let others = role
        .managers
        .iter()
        .map(SocketAddr::ip)
        .filter(|ip| Some(*ip) != role.address);
    others.map(|ip| SocketAddr::new(ip, port)).collect()
}

async fn own_addresses(netlink: Option<&Netlink>) -> Option<Vec<IpAddr>> {
    let netlink = netlink?;
    let (links, addresses) = (netlink.links().await.ok()?, netlink.addresses().await.ok()?);
    Some(node_addresses(&links, &addresses))
}

/// Whether that was news.
fn replace<T: PartialEq>(now: &mut T, new: T) -> bool {
    let news = *now != new;
    *now = new;
    news
}
