//! [`Client`]: follows all managers, puts the best view in force, keeps it on disk, and reports to all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::choose::Choice;
use super::disk::{self, Kept};
use super::link::{self, Common, Event};
use super::message::Report;
use super::status::{Role, StreamStatus};
use super::{Identity, Timing};
use crate::model::snapshot::Snapshot;

/// Events that wait to be heard: bounds the snapshots that can pile up.
const EVENTS: usize = 8;

/// How a client is set up.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// ID of this node in the cluster.
    pub node: String,
    /// Who this agent is.
    pub identity: Arc<Identity>,
    /// Where the last state is kept. `None`: nowhere.
    pub state_file: Option<PathBuf>,
    /// Whether it wants snapshots. A manager does not: it only reports to the others.
    pub snapshots: bool,
    /// Intervals.
    pub timing: Timing,
}

/// A running client. It ends when `stop` is cancelled.
pub struct Client {
    shared: Arc<Shared>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    tasks: TaskTracker,
}

struct Shared {
    choice: Mutex<Choice>,
    /// Why the state that the disk held was not used.
    unread: Option<String>,
    /// Why the state in force is not on the disk.
    unwritten: watch::Receiver<Option<String>>,
}

impl Shared {
    fn choice(&self) -> std::sync::MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Puts the state from the disk in force, then follows `managers`, which may change at any time. An empty list
    /// means that they are not known at the moment, and changes nothing. While there is no `report`, they believe the last
    /// one.
    ///
    /// Reading the disk blocks, for about as long as a small file takes.
    pub fn start(
        options: ClientOptions,
        managers: watch::Receiver<Vec<SocketAddr>>,
        report: watch::Receiver<Option<Report>>,
        stop: &CancellationToken,
    ) -> Self {
        let (stored, unread) = match options.state_file.as_deref().map(disk::load) {
            None | Some(Ok(None)) => (None, None),
            Some(Ok(Some(kept))) => (Some(kept), None),
            Some(Err(error)) => {
                let path = options.state_file.as_deref().unwrap_or_else(|| "".as_ref());
                let error = format!("the state kept in {} cannot be used: {error}", path.display());
                warn!(target: "lb::stream", "{error}; it is replaced when a manager answers");
                (None, Some(error))
            }
        };
        if let Some((snapshot, _)) = &stored {
            info!(target: "lb::stream", services = snapshot.services.len(), "started with the state from the disk");
        }
        let (sender, snapshots) = watch::channel(stored.as_ref().map(|(snapshot, _)| snapshot.clone()));
        let (keep, kept) = watch::channel(None);
        let (problem, unwritten) = watch::channel(None);
        let (events, heard) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            choice: Mutex::new(Choice::new(options.timing, stored)),
            unread,
            unwritten,
        });
        let (tasks, stop) = (TaskTracker::new(), stop.child_token());
        if let Some(path) = options.state_file {
            tasks.spawn(disk::keep(path, kept, problem, stop.clone()));
        }
        let common = Arc::new(Common {
            node: options.node,
            identity: options.identity,
            timing: options.timing,
            snapshots: options.snapshots,
            report,
            events,
        });
        tasks.spawn(follow(common, shared.clone(), managers, tasks.clone(), stop.clone()));
        tasks.spawn(choose(shared.clone(), heard, sender, keep, options.timing, stop));
        tasks.close();
        Self {
            shared,
            snapshots,
            tasks,
        }
    }

    /// The state in force. Its generation is this node's own count, and rises with every change.
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.clone()
    }

    /// How it goes.
    pub fn status(&self) -> StreamStatus {
        let now = Instant::now();
        let choice = self.shared.choice();
        let managers = choice.managers(now);
        let alone = match managers.iter().any(|manager| manager.connected) {
            true => None,
            false => Some(match managers.iter().find_map(|manager| manager.error.as_deref()) {
                Some(error) => format!("no manager is connected: {error}"),
                None => "no manager is connected".into(),
            }),
        };
        let unread = match choice.in_force() {
            None => self.shared.unread.clone(),
            Some(_) => None,
        };
        StreamStatus {
            role: Role::Worker,
            source: choice.source(),
            age_ms: choice.age_ms(now),
            managers,
            nodes: Vec::new(),
            reports: 0,
            error: alone.or(unread).or_else(|| self.shared.unwritten.borrow().clone()),
        }
    }

    /// Waits for the end of all its connections, and for the disk, after `stop`.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

/// Keeps one link to each manager.
async fn follow(
    common: Arc<Common>,
    shared: Arc<Shared>,
    mut managers: watch::Receiver<Vec<SocketAddr>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut links: BTreeMap<SocketAddr, CancellationToken> = BTreeMap::new();
    loop {
        let wanted = managers.borrow_and_update().clone();
        if !wanted.is_empty() {
            links.retain(|address, link| {
                let stays = wanted.contains(address);
                if !stays {
                    link.cancel();
                    shared.choice().remove(*address);
                }
                stays
            });
        }
        for address in wanted {
            links.entry(address).or_insert_with(|| {
                shared.choice().add(address);
                let token = stop.child_token();
                tasks.spawn(link::run(common.clone(), address, token.clone()));
                token
            });
        }
        match stop.run_until_cancelled(managers.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return stop.cancelled().await,
            None => return,
        }
    }
}

/// Hears the links and puts in force what should be.
async fn choose(
    shared: Arc<Shared>,
    mut heard: mpsc::Receiver<(SocketAddr, Event, Instant)>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    keep: watch::Sender<Option<Kept>>,
    timing: Timing,
    stop: CancellationToken,
) {
    // Managers grow stale, and waiting ends, without any event.
    let mut ticks = interval(timing.alive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            event = heard.recv() => match event {
                Some(event) => Some(event),
                // The links have ended: so has the agent.
                None => return,
            },
            _ = ticks.tick() => None,
        };
        let mut choice = shared.choice();
        if let Some((address, event, at)) = event {
            choice.note(address, event, at);
        }
        let before = choice.source();
        let changed = choice.decide(Instant::now());
        let after = choice.source();
        if before != after {
            info!(target: "lb::stream", source = ?after, "cluster state comes from another source");
        }
        if changed && let Some(in_force) = choice.in_force() {
            let (snapshot, index) = (in_force.snapshot.clone(), in_force.index);
            drop(choice);
            info!(
                target: "lb::stream",
                generation = snapshot.generation,
                services = snapshot.services.len(),
                "cluster state changed"
            );
            keep.send_replace(Some((snapshot.clone(), index)));
            snapshots.send_replace(Some(snapshot));
        }
    }
}
