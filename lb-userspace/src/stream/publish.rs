//! What a manager offers: the newest view, encoded once for all connections.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::message::{Head, SNAPSHOT_MAX};
use super::{View, same};
use crate::model::snapshot::Snapshot;

/// The newest view that can be sent.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    generation: u64,
    index: Option<u64>,
    read: Instant,
    /// The snapshot as JSON.
    pub(super) content: Arc<Vec<u8>>,
}

/// The offer, or the lack of one, and of which process it is.
#[derive(Clone, Debug)]
pub(super) struct Published {
    epoch: u64,
    started: Instant,
    pub(super) offer: Option<Offer>,
    /// Why the newest view is not offered.
    pub(super) error: Option<String>,
}

impl Published {
    pub(super) fn new() -> Self {
        Self {
            epoch: rand::random(),
            started: Instant::now(),
            offer: None,
            error: None,
        }
    }

    pub(super) fn head(&self, now: Instant) -> Head {
        let read = self.offer.as_ref().map_or(self.started, |offer| offer.read);
        let age = now.saturating_duration_since(read);
        Head {
            epoch: self.epoch,
            generation: self.generation(),
            index: self.offer.as_ref().and_then(|offer| offer.index),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.offer.as_ref().map_or(0, |offer| offer.generation)
    }
}

/// Encodes what `views` brings, until it or the agent ends. Readers are woken by new content alone.
pub(super) async fn run(
    mut views: watch::Receiver<Option<View>>,
    published: watch::Sender<Published>,
    stop: CancellationToken,
) {
    let mut last: Option<Arc<Snapshot>> = None;
    loop {
        let view = views.borrow_and_update().clone();
        if let Some(view) = view {
            let known = last
                .as_ref()
                .is_some_and(|last| Arc::ptr_eq(last, &view.snapshot) || same(last, &view.snapshot));
            let content = match known {
                true => None,
                false => Some(encode(view.snapshot.clone()).await),
            };
            last = Some(view.snapshot.clone());
            publish(&published, &view, content);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = views.changed() => if changed.is_err() {
                // The source has ended: what it said last stays on offer, and grows old.
                return stop.cancelled().await;
            }
        }
    }
}

fn publish(published: &watch::Sender<Published>, view: &View, content: Option<Result<Vec<u8>, String>>) {
    published.send_if_modified(|published| {
        let generation = published.generation();
        match content {
            Some(Ok(content)) => {
                published.offer = Some(Offer {
                    generation: generation + 1,
                    index: view.index,
                    read: view.read,
                    content: Arc::new(content),
                });
                published.error = None;
                true
            }
            Some(Err(problem)) => {
                error!(target: "lb::stream", error = %problem, "the newest cluster state cannot be sent");
                published.error = Some(problem);
                false
            }
            // An offer that could not be renewed is not confirmed by the view that it does not show.
            None if published.error.is_some() => false,
            None => {
                if let Some(offer) = &mut published.offer {
                    (offer.index, offer.read) = (view.index, view.read);
                }
                false
            }
        }
    });
}

async fn encode(snapshot: Arc<Snapshot>) -> Result<Vec<u8>, String> {
    let content = tokio::task::spawn_blocking(move || serde_json::to_vec(&*snapshot))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("the cluster state cannot be encoded: {error}"))?;
    match content.len() > SNAPSHOT_MAX {
        true => Err(format!(
            "the cluster state has {} MiB, and {} can be sent",
            content.len() >> 20,
            SNAPSHOT_MAX >> 20
        )),
        false => Ok(content),
    }
}
