//! The newest report of each node, and how long it is believed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::message::{Report, Reported};
use super::remember::Remembered;

/// In place of the connection over which a report came: it is this node's own.
const OWN: u64 = u64::MAX;

/// Newest reports by node ID.
pub(super) struct Reports {
    /// So long a report outlives its connection: its node's tables stay as they are while its agent is away.
    retain: Duration,
    /// Nodes in all.
    limit: usize,
    entries: Mutex<BTreeMap<String, Entry>>,
    sender: watch::Sender<BTreeMap<String, Reported>>,
}

struct Entry {
    report: Report,
    /// Over which connection it came; a higher number is a newer one.
    connection: u64,
    ended: Option<Instant>,
}

impl Reports {
    /// With what is remembered from before.
    pub(super) fn new(retain: Duration, limit: usize, remembered: &Remembered) -> Self {
        let past = remembered.believed(retain, SystemTime::now(), Instant::now());
        let entry = |(report, ended): (Report, Instant)| {
            let (node, ended) = (report.node.clone(), Some(ended));
            let connection = 0;
            (
                node,
                Entry {
                    report,
                    connection,
                    ended,
                },
            )
        };
        let reports = Self {
            retain,
            limit,
            entries: Mutex::new(past.into_iter().take(limit).map(entry).collect()),
            sender: watch::Sender::default(),
        };
        reports.publish(&reports.entries());
        reports
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Reported>> {
        self.sender.subscribe()
    }

    /// Of other nodes.
    pub(super) fn len(&self) -> usize {
        self.entries().values().filter(|entry| entry.connection != OWN).count()
    }

    /// This node's own, which comes over no connection.
    pub(super) fn put_own(&self, report: Report) {
        self.put(OWN, report);
    }

    /// A report came over a connection, whose number is at least 1. Those of an older connection of the same node are late.
    pub(super) fn put(&self, connection: u64, report: Report) {
        let mut entries = self.entries();
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
        let mut entries = self.entries();
        for entry in entries.values_mut().filter(|entry| entry.connection == connection) {
            entry.ended = Some(now);
        }
        self.publish(&entries);
    }

    /// Forgets what has been without a connection for too long.
    pub(super) fn expire(&self, now: Instant) {
        let mut entries = self.entries();
        entries.retain(|_, entry| {
            entry
                .ended
                .is_none_or(|ended| now.saturating_duration_since(ended) < self.retain)
        });
        self.publish(&entries);
    }

    /// All of it, for the disk.
    pub(super) fn remembered(&self, wall: SystemTime, now: Instant) -> Remembered {
        let entries = self.entries();
        Remembered::new(
            entries.values().map(|entry| (entry.report.clone(), entry.ended)),
            wall,
            now,
        )
    }

    fn publish(&self, entries: &BTreeMap<String, Entry>) {
        self.sender.send_if_modified(|reports| {
            let same = reports.len() == entries.len()
                && reports
                    .values()
                    .zip(entries.values())
                    .all(|(a, b)| a.report == b.report && a.live == b.ended.is_none());
            if !same {
                *reports = entries
                    .iter()
                    .map(|(node, entry)| {
                        let (report, live) = (entry.report.clone(), entry.ended.is_none());
                        (node.clone(), Reported { report, live })
                    })
                    .collect();
            }
            !same
        });
    }
}

#[cfg(test)]
#[path = "tests/reports.rs"]
mod tests;
