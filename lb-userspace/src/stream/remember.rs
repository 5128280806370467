//! [`Remembered`]: what nodes reported last, on disk. A manager's agent that starts again knows it before they have
//! connected again, and of those whose agents are away.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::disk::{self, Keep};
use super::message::{REPORT_MAX, Report, Reported};

/// Written anew this often though nothing has changed: how old it is counts.
pub(super) const REFRESH: Duration = Duration::from_secs(3600);

/// The last reports, and since when their nodes are away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// Seconds since 1970.
    written: u64,
    reports: Vec<Past>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    report: Report,
    /// Since when its node was not connected, seconds since 1970. `None`: it was.
    ended: Option<u64>,
}

impl Keep for Remembered {
    const MAGIC: &'static str = "lb-reports 1 ";
    const WHAT: &'static str = "what nodes report";
    /// Of some hundred nodes that say as much as they may, or of ten thousand that say the usual.
    const LENGTH_MAX: usize = 256 * REPORT_MAX;
    type Stored = Self;

    fn content(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    fn restored(stored: Self) -> Self {
        stored
    }

    fn same(&self, written: &Self) -> bool {
        self == written
    }
}

impl Remembered {
    /// `ended` is when a node's connection has; `wall` and `now` are the same moment.
    pub(super) fn new(
        reports: impl Iterator<Item = (Report, Option<Instant>)>,
        wall: SystemTime,
        now: Instant,
    ) -> Self {
        let written = seconds(wall);
        let past = |(report, ended): (Report, Option<Instant>)| {
            let away = ended.map(|ended| now.saturating_duration_since(ended).as_secs());
            let ended = away.map(|away| written.saturating_sub(away));
            Past { report, ended }
        };
        Self {
            written,
            reports: reports.map(past).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Reports that are not older than `retain`, and since when their nodes are away; who was connected is away since then. A
    /// clock that was set back makes nothing older.
    pub(super) fn believed(&self, retain: Duration, wall: SystemTime, now: Instant) -> Vec<(Report, Instant)> {
        let wall = seconds(wall);
        let believed = self.reports.iter().filter_map(|past| {
            let age = Duration::from_secs(wall.saturating_sub(past.ended.unwrap_or(self.written)));
            let ended = now.checked_sub(age).unwrap_or(now);
            (age < retain).then(|| (past.report.clone(), ended))
        });
        believed.collect()
    }
}

fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The file beside the one that holds the last snapshot.
pub fn reports_file(state_file: &Path) -> PathBuf {
    let mut name = state_file.as_os_str().to_owned();
    name.push(".reports");
    name.into()
}

/// What a server that is given this file begins with, by node ID. Nothing where it cannot be used, which the server says.
pub fn remembered(path: &Path, retain: Duration) -> BTreeMap<String, Reported> {
    let kept: Remembered = disk::load(path).ok().flatten().unwrap_or_default();
    let believed = kept.believed(retain, SystemTime::now(), Instant::now()).into_iter();
    let reported = |report| Reported { report, live: false };
    believed
        .map(|(report, _)| (report.node.clone(), reported(report)))
        .collect()
}

#[cfg(test)]
#[path = "tests/remember.rs"]
mod tests;
