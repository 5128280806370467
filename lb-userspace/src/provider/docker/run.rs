//! Follows this node's role, and the state of the Swarm in the way that the role allows.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::backoff::Backoff;
use super::engine::{Engine, EngineError};
use super::gossip::from_gossip;
use super::manager::{self, Lists};
use super::publish::Publisher;
use super::role::{Part, Role};
use super::{Streamed, Timing, api};
use crate::model::snapshot::Snapshot;

/// Watches until nobody wants to know any more.
pub(super) async fn watch(
    engine: Arc<Engine>,
    publisher: Arc<Publisher>,
    roles: watch::Sender<Role>,
    streamed: watch::Receiver<Streamed>,
    timing: Timing,
) {
    let follower = roles.subscribe();
    tokio::select! {
        () = publisher.closed() => {}
        () = follow_stream(&publisher, follower, streamed.clone(), &timing) => {}
        () = follow_engine(&engine, &publisher, &roles, &streamed, &timing) => {}
    }
}

/// Publishes what managers' agents say, unless this node is a manager. Apart from the engine: they may say it while
/// the engine is silent.
async fn follow_stream(
    publisher: &Publisher,
    mut roles: watch::Receiver<Role>,
    mut streamed: watch::Receiver<Streamed>,
    timing: &Timing,
) {
    let mut open = true;
    // What an agent before this one kept on the disk may be older than what it left in the tables: a manager's agent
    // gets a moment to say something newer.
    let patience = tokio::time::sleep(timing.grace);
    tokio::pin!(patience);
    let mut waited = false;
    loop {
        {
            let role = roles.borrow_and_update().clone();
            let now = streamed.borrow_and_update().clone();
            if role.part != Part::Manager
                && let Some(snapshot) = now.snapshot
                // What is not live is the best there is only until the engine was asked.
                && (now.live || waited && publisher.is_empty())
            {
                publisher.accept((*snapshot).clone(), Vec::new(), &role.node, "stream");
            }
        }
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { return },
            changed = streamed.changed(), if open => open = changed.is_ok(),
            () = &mut patience, if !waited => waited = true,
        }
    }
}

async fn follow_engine(
    engine: &Engine,
    publisher: &Publisher,
    roles: &watch::Sender<Role>,
    streamed: &watch::Receiver<Streamed>,
    timing: &Timing,
) {
    let mut lists = Lists::default();
    let mut backoff = Backoff::default();
    let mut doubt = false;
    let mut wait = Wait::default();
    loop {
        let role = match engine.info().await {
            Ok(info) => Role::of(&info),
            Err(error) => {
                // A worker whose state comes from a manager does not need its engine for it.
                if !streamed.borrow().live || roles.borrow().part == Part::Manager {
                    publisher.reject(error.to_string());
                }
                tokio::time::sleep(backoff.next()).await;
                continue;
            }
        };
        if role.part != Part::Manager
            && let Some(snapshot) = publisher.no_manager()
        {
            wait.read = Some(snapshot);
        }
        if roles.borrow().part != role.part {
            info!(target: "lb::provider", node = role.node, part = ?role.part, "this node's part in the Swarm");
        }
        roles.send_if_modified(|current| {
            let news = *current != role;
            current.clone_from(&role);
            news
        });
        let outcome = match &role.part {
            Part::Manager => manager::follow(engine, &mut lists, publisher, &role, timing).await,
            Part::Worker => worker(engine, publisher, &role, streamed, timing, &mut wait).await,
            Part::None(reason) => {
                publisher.reject(format!("this node's engine has nothing to say: {reason}"));
                tokio::time::sleep(timing.look).await;
                Ok(())
            }
            Part::Unknown => Ok(()),
        };
        match outcome {
            Ok(()) => {
                backoff.reset();
                doubt = false;
            }
            // Perhaps it is no manager any more: then that is no error.
            Err(error) if error.is_unavailable() && !doubt => doubt = true,
            Err(error) => {
                publisher.reject(error.to_string());
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

/// A worker that waits for a manager's agent.
#[derive(Default)]
struct Wait {
    /// Since when none answers.
    lost: Option<Instant>,
    /// What this node read itself while it was a manager, until a manager's agent has answered.
    read: Option<Arc<Snapshot>>,
}

/// On a worker: waits, and asks the engine about its networks if no manager's agent answers.
async fn worker(
    engine: &Engine,
    publisher: &Publisher,
    role: &Role,
    streamed: &watch::Receiver<Streamed>,
    timing: &Timing,
    wait: &mut Wait,
) -> Result<(), EngineError> {
    let mut streamed = streamed.clone();
    let since = *wait.lost.get_or_insert_with(Instant::now);
    let mut open = true;
    let end = Instant::now() + timing.look;
    let patience = tokio::time::sleep_until(since + timing.grace);
    tokio::pin!(patience);
    let mut asked = false;
    loop {
        if streamed.borrow_and_update().live {
            *wait = Wait::default();
        } else if wait.lost.is_none() {
            wait.lost = Some(Instant::now());
            patience.as_mut().reset(Instant::now() + timing.grace);
        }
        tokio::select! {
            () = tokio::time::sleep_until(end) => return Ok(()),
            changed = streamed.changed(), if open => open = changed.is_ok(),
            () = &mut patience, if wait.lost.is_some() && !asked => {
                asked = true;
                let known = wait.read.clone().or_else(|| streamed.borrow().snapshot.clone());
                let networks = gossip(engine).await?;
                // A manager may have answered meanwhile.
                if streamed.borrow().live {
                    continue;
                }
                match from_gossip(known.as_deref(), &networks, role) {
                    Some((snapshot, refused)) => publisher.accept(snapshot, refused, &role.node, "engine"),
                    None => publisher.reject("no manager's agent answers, and this node's engine names no node"),
                }
            }
        }
    }
}

/// All overlay networks of a worker's engine, in full.
pub(super) async fn gossip(engine: &Engine) -> Result<Vec<api::node::GossipedNetwork>, EngineError> {
    let networks = engine.networks().await?;
    let overlays = networks.iter().filter(|n| n.driver == "overlay" && n.scope == "swarm");
    let answers = join_all(overlays.map(|network| engine.gossip(&network.id))).await;
    answers.into_iter().filter_map(Result::transpose).collect()
}
