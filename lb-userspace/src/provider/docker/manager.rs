//! On a manager: lists the Swarm's objects, then follows their changes.
//!
//! Events say that a service, node or network has changed, but never that a task has: tasks are polled. Events can be
//! lost, so everything is listed anew now and then. What was sent before is not looked at again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::time::sleep_until;

use super::Timing;
use super::api::{self, Listed, Network, Node, Service, Task};
use super::engine::{Engine, EngineError, Events};
use super::publish::Publisher;
use super::role::Role;
use super::translate::translate;

/// Lists are read so long after the first event of several.
const SETTLE: Duration = Duration::from_millis(20);
/// Swarm stops a task 2 s after it has withdrawn it.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// So soon everything is listed anew if the stream of events has broken.
const REOPEN: Duration = Duration::from_secs(1);

/// One list, as it was sent and as it was read.
struct List<T> {
    bytes: Bytes,
    items: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            bytes: Bytes::new(),
            items: Vec::new(),
        }
    }
}

impl<T: Listed> List<T> {
    /// Takes an answer; whether it is another one than before.
    fn take(&mut self, bytes: Bytes) -> Result<bool, EngineError> {
        if self.bytes == bytes {
            return Ok(false);
        }
        self.items = api::list(&bytes)?;
        self.bytes = bytes;
        Ok(true)
    }
}

/// What a manager has listed.
#[derive(Default)]
pub(super) struct Lists {
    services: List<Service>,
    tasks: List<Task>,
    nodes: List<Node>,
    networks: List<Network>,
    /// What tasks refer to and no list had when they were last read for it.
    sought: BTreeSet<String>,
}

impl Lists {
    /// Reads all lists; whether one is another.
    async fn refresh(&mut self, engine: &Engine) -> Result<bool, EngineError> {
        let (tasks, services, nodes, networks) = tokio::try_join!(
            engine.list_bytes::<Task>(),
            engine.list_bytes::<Service>(),
            engine.list_bytes::<Node>(),
            engine.list_bytes::<Network>(),
        )?;
        let mut changed = self.tasks.take(tasks)?;
        changed |= self.services.take(services)?;
        changed |= self.nodes.take(nodes)?;
        changed |= self.networks.take(networks)?;
        Ok(changed)
    }

    /// Reads the list of tasks, and the others if a running task refers to something that is not in them.
    async fn refresh_tasks(&mut self, engine: &Engine) -> Result<bool, EngineError> {
        if !self.tasks.take(engine.list_bytes::<Task>().await?)? {
            return Ok(false);
        }
        let unknown = self.unknown();
        if !unknown.is_empty() && unknown != self.sought {
            self.refresh(engine).await?;
            self.sought = self.unknown();
        }
        Ok(true)
    }

    fn unknown(&self) -> BTreeSet<String> {
        let services: BTreeSet<&str> = self.services.items.iter().map(|s| s.id.as_str()).collect();
        let nodes: BTreeSet<&str> = self.nodes.items.iter().map(|n| n.id.as_str()).collect();
        let networks: BTreeSet<&str> = self.networks.items.iter().map(|n| n.id.as_str()).collect();
        let running = self.tasks.items.iter().filter(|task| task.status.state == "running");
        let mut unknown = BTreeSet::new();
        for task in running {
            let mut look = |known: &BTreeSet<&str>, id: &str| {
                if !id.is_empty() && !known.contains(id) {
                    unknown.insert(id.to_owned());
                }
            };
            look(&services, &task.service);
            look(&nodes, &task.node);
            for attachment in &task.attachments {
                look(&networks, &attachment.network.id);
            }
        }
        unknown
    }

    /// The newest change that is in the lists.
    fn index(&self) -> u64 {
        let services = self.services.items.iter().map(|s| s.version.index);
        let tasks = self.tasks.items.iter().map(|t| t.version.index);
        let nodes = self.nodes.items.iter().map(|n| n.version.index);
        services.chain(tasks).chain(nodes).max().unwrap_or(0)
    }

    fn publish(&self, publisher: &Publisher, role: &Role, read: Instant) {
        match translate(
            &self.services.items,
            &self.tasks.items,
            &self.nodes.items,
            &self.networks.items,
        ) {
            Ok((snapshot, refused)) => publisher.read(snapshot, refused, &role.node, self.index(), read),
            Err(error) => publisher.reject(error.to_string()),
        }
    }
}

/// Lists everything and follows changes for a while; then the node's role has to be looked at again.
///
/// # Errors
/// The first call that failed. The lists are still those of the last whole reading, or parts of a newer one that was
/// not published.
pub(super) async fn follow(
    engine: &Engine,
    lists: &mut Lists,
    publisher: &Publisher,
    role: &Role,
    timing: &Timing,
) -> Result<(), EngineError> {
    // First the events: what happens after the lists were made must not be missed.
    let mut events = Some(engine.events(&["service", "node", "network"], &[]).await?);
    let read = Instant::now();
    lists.refresh(engine).await?;
    lists.publish(publisher, role, read);
    let mut end = tokio::time::Instant::now() + timing.full;
    let mut settled = None;
    let mut poll = tokio::time::Instant::now() + timing.poll;
    loop {
        let due = settled.unwrap_or(end);
        let read;
        let changed = tokio::select! {
            () = sleep_until(end) => return Ok(()),
            event = next(&mut events) => {
                if !event {
                    events = None;
                    end = end.min(tokio::time::Instant::now() + REOPEN);
                } else if settled.is_none() {
                    settled = Some(tokio::time::Instant::now() + SETTLE);
                }
                continue;
            }
            () = sleep_until(due), if settled.is_some() => {
                settled = None;
                read = Instant::now();
                lists.refresh(engine).await?
            }
            () = sleep_until(poll) => {
                read = Instant::now();
                let changed = lists.refresh_tasks(engine).await?;
                poll = tokio::time::Instant::now() + pause(timing.poll, read.elapsed());
                changed
            }
        };
        if changed {
            lists.publish(publisher, role, read);
        } else {
            publisher.unchanged(read);
        }
    }
}

/// The pause until tasks are listed again: where that takes long, the engine must have time for other things, but
/// not so long that tasks stop before their going is known.
fn pause(poll: Duration, took: Duration) -> Duration {
    poll.max((4 * took).min(PAUSE_MAX))
}

/// Whether there was another event; pending if there is no stream.
async fn next(events: &mut Option<Events>) -> bool {
    match events {
        Some(events) => events.next().await.is_some(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_engine_is_asked_less_often_but_soon_enough() {
        let ms = Duration::from_millis;
        for (poll, took, expected) in [(500, 5, 500), (500, 200, 800), (500, 3000, 1000), (50, 20, 80)] {
            assert_eq!(pause(ms(poll), ms(took)), ms(expected));
        }
    }
}
