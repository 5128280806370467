//! The newest report of each node, and how long it is believed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::message::Report;

/// Newest reports by node ID.
pub(super) struct Reports {
    /// So long a report outlives its connection: a node that reconnects must not seem to come and go.
    retain: Duration,
    /// Nodes in all.
    limit: usize,
    entries: Mutex<BTreeMap<String, Entry>>,
    sender: watch::Sender<BTreeMap<String, Report>>,
}

struct Entry {
    report: Report,
    /// Over which connection it came; a higher number is a newer one.
    connection: u64,
    ended: Option<Instant>,
}

impl Reports {
    pub(super) fn new(retain: Duration, limit: usize) -> Self {
        Self {
            retain,
            limit,
            entries: Mutex::default(),
            sender: watch::Sender::default(),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Report>> {
        self.sender.subscribe()
    }

    pub(super) fn len(&self) -> usize {
        self.sender.borrow().len()
    }

    /// A report came over a connection. Those of an older connection of the same node are late.
    pub(super) fn put(&self, connection: u64, report: Report) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries
            .get(&report.node)
            .is_some_and(|known| known.connection > connection)
        {
            return;
        }
        let entry = Entry {
            report: report.clone(),
            connection,
            ended: None,
        };
        if entries.insert(report.node.clone(), entry).is_none() && entries.len() > self.limit {
            // Only whoever changes its name at every connection comes here.
            let oldest = entries
                .iter()
                .filter_map(|(node, entry)| Some((entry.ended?, node.clone())))
                .min();
            if let Some((_, node)) = oldest {
                entries.remove(&node);
            }
        }
        self.publish(&entries);
    }

    /// A connection has ended.
    pub(super) fn end(&self, connection: u64, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.values_mut().filter(|entry| entry.connection == connection) {
            entry.ended = Some(now);
        }
    }

    /// Forgets what has been without a connection for too long.
    pub(super) fn expire(&self, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| {
            entry
                .ended
                .is_none_or(|ended| now.saturating_duration_since(ended) < self.retain)
        });
        self.publish(&entries);
    }

    fn publish(&self, entries: &BTreeMap<String, Entry>) {
        self.sender.send_if_modified(|reports| {
            let same =
                reports.len() == entries.len() && reports.values().zip(entries.values()).all(|(a, b)| *a == b.report);
            if !same {
                *reports = entries
                    .iter()
                    .map(|(node, entry)| (node.clone(), entry.report.clone()))
                    .collect();
            }
            !same
        });
    }
}

#[cfg(test)]
#[path = "tests/reports.rs"]
mod tests;
