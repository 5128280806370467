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
use super::status;
use crate::admin::api;
use crate::config::Config;
use crate::model::snapshot::Snapshot;
use crate::net::Netlink;
use crate::provider::docker::{self, Docker, Drift, Local, Options, Reading, Role, Streamed};
use crate::provider::{Change, ProviderState};
use crate::stream::{
    Client, ClientOptions, Identity, IdentityError, Report, Server, ServerOptions, Source, StreamStatus, Timing, View,
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
    let (reports, reported) = watch::channel(BTreeMap::new());
    let (status, statuses) = watch::channel(StreamStatus::default());
    tokio::spawn(merge(
        docker.state.clone(),
        docker.readings.clone(),
        reported,
        state,
        view,
    ));
    let Docker { role, local, drift, .. } = docker;
    if let Some(identity) = identity {
        let talk = Talk {
            config: config.clone(),
            identity,
            role: role.clone(),
            views,
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
    })
}

/// The snapshot, with the addresses that nodes report of themselves behind those that the Swarm knows. An address that is
/// another node's stays that node's.
fn with_reports(snapshot: &Snapshot, reports: &BTreeMap<String, Report>) -> Snapshot {
    let mut merged = snapshot.clone();
    let mut taken: BTreeSet<IpAddr> = merged.nodes.iter().flat_map(|node| node.addresses.clone()).collect();
    for node in &mut merged.nodes {
        let Some(report) = node.id.as_ref().and_then(|id| reports.get(id)) else {
            continue;
        };
        for address in &report.addresses {
            if taken.insert(*address) {
                node.addresses.push(*address);
            }
        }
    }
    merged
}

/// Keeps `state` and `view` in step with what the provider and the nodes say.
async fn merge(
    mut provider: watch::Receiver<ProviderState>,
    mut readings: watch::Receiver<Option<Reading>>,
    mut reports: watch::Receiver<BTreeMap<String, Report>>,
    state: watch::Sender<ProviderState>,
    view: watch::Sender<Option<View>>,
) {
    let mut reporting = true;
    let (mut merged, mut told): (Option<Arc<Snapshot>>, _) = (None, BTreeMap::new());
    loop {
        let (newest, reading) = (
            provider.borrow_and_update().clone(),
            readings.borrow_and_update().clone(),
        );
        // A manager reads the same twice a second.
        let same = merged.as_ref().map(Arc::as_ptr) == newest.snapshot.as_ref().map(Arc::as_ptr);
        // Compared rather than asked whether it has changed: waiting for a change takes note of it.
        let reported = reports.borrow_and_update().clone();
        let news = !same || reported != told;
        state.send_if_modified(|state| {
            let mut changed = false;
            if let Some(snapshot) = &newest.snapshot
                && (news || newest.error.is_none() && state.error.is_some() || state.refused != newest.refused)
            {
                // Only a manager hears reports; on a worker they are in what the manager says.
                let whole = match &reading {
                    Some(_) => with_reports(snapshot, &reported),
                    None => (**snapshot).clone(),
                };
                let refused = (*newest.refused).clone();
                changed = state.accept(whole, refused, newest.node.as_deref()) != Change::Nothing;
            }
            if let Some(error) = &newest.error {
                changed |= state.reject((**error).clone());
            }
            changed
        });
        merged.clone_from(&newest.snapshot);
        told = reported;
        let snapshot = state.borrow().snapshot.clone();
        view.send_replace(reading.zip(snapshot).map(|(reading, snapshot)| View {
            snapshot,
            index: Some(reading.index),
            read: reading.read,
        }));
        tokio::select! {
            changed = provider.changed() => if changed.is_err() { return },
            changed = readings.changed() => if changed.is_err() { return },
            changed = reports.changed(), if reporting => reporting = changed.is_ok(),
            () = state.closed() => return,
        }
    }
}

/// Both ends of the stream, while this node is in a Swarm.
struct Talk {
    config: Config,
    identity: Arc<Identity>,
    role: watch::Receiver<Role>,
    views: watch::Receiver<Option<View>>,
    streamed: watch::Sender<Streamed>,
    reports: watch::Sender<BTreeMap<String, Report>>,
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
        let (report, own) = watch::channel(Report::default());
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
        let port = self.config.stream.port().unwrap_or_default();
        loop {
            let role = self.role.borrow_and_update().clone();
            if role.node != node {
                break;
            }
            managers.send_if_modified(|managers| replace(managers, follow(&role, port)));
            self.reports.send_if_modified(|all| {
                let mut new = reports.borrow_and_update().clone();
                new.insert(node.to_owned(), report.borrow().clone());
                replace(all, new)
            });
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
                _ = addresses.tick() => {
                    if let Some(addresses) = own_addresses(netlink.as_ref()).await {
                        let new = Report {
                            node: node.to_owned(),
                            name: role.name.clone(),
                            addresses,
                        };
                        report.send_if_modified(|report| replace(report, new));
                    }
                }
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::model::snapshot::Node;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn snapshot() -> Snapshot {
        let node = |name: &str, address: &str| Node {
            name: name.into(),
            id: Some(format!("id-{name}")),
            addresses: vec![ip(address)],
        };
        Snapshot {
            nodes: vec![node("n1", "192.0.2.1"), node("n2", "192.0.2.2")],
            ..Snapshot::default()
        }
    }

    fn report(node: &str, addresses: &[&str]) -> BTreeMap<String, Report> {
        let report = Report {
            node: node.into(),
            addresses: addresses.iter().map(|a| ip(a)).collect(),
            ..Report::default()
        };
        BTreeMap::from([(node.to_owned(), report)])
    }

    #[test]
    fn a_node_adds_addresses_and_takes_none_from_others() {
        let merged = with_reports(
            &snapshot(),
            &report("id-n2", &["192.0.2.1", "192.0.2.2", "2001:db8::2"]),
        );
        assert_eq!(merged.nodes[0].addresses, [ip("192.0.2.1")]);
        assert_eq!(merged.nodes[1].addresses, [ip("192.0.2.2"), ip("2001:db8::2")]);
    }

    #[tokio::test]
    async fn a_report_that_comes_after_the_state_is_merged() {
        let (provider, providers) = watch::channel(ProviderState::default());
        let (readings, read) = watch::channel(None);
        let (reports, reported) = watch::channel(BTreeMap::new());
        let (state, mut states) = watch::channel(ProviderState::default());
        let (view, views) = watch::channel(None);
        tokio::spawn(merge(providers, read, reported, state, view));
        provider.send_modify(|state| {
            state.accept(snapshot(), Vec::new(), Some("n1"));
        });
        let first = provider.borrow().snapshot.clone().unwrap();
        let known = |count: usize| {
            move |state: &ProviderState| {
                let nodes = state
                    .snapshot
                    .as_ref()
                    .map(|snapshot| snapshot.nodes[1].addresses.len());
                nodes == Some(count)
            }
        };
        let patience = Duration::from_secs(5);
        tokio::time::timeout(patience, states.wait_for(known(1)))
            .await
            .unwrap()
            .unwrap();
        readings.send_replace(Some(Reading {
            snapshot: first,
            index: 1,
            read: Instant::now(),
        }));
        for count in [2, 3] {
            // Some time after everything else has come to rest.
            tokio::time::sleep(Duration::from_millis(20)).await;
            reports.send_replace(report("id-n2", &["2001:db8::2", "2001:db8::3"][..count - 1]));
            tokio::time::timeout(patience, states.wait_for(known(count)))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                views.borrow().as_ref().unwrap().snapshot,
                states.borrow().snapshot.clone().unwrap()
            );
        }
    }
}
