//! The last good snapshot on disk, with which an agent starts while no manager answers.
//!
//! One line that says what the file is, with the SHA-256 of the rest; then JSON. The file is replaced as a whole, and
//! one that is damaged, or of another layout, is as good as none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::message::SNAPSHOT_MAX;
use crate::model::snapshot::Snapshot;

/// First words of the file. The number rises with every change of its layout.
const MAGIC: &str = "lb-snapshot 1 ";
/// Between two writes.
const SPACING: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// What is kept.
pub(super) type Kept = (Arc<Snapshot>, Option<u64>);

#[derive(Serialize)]
struct Written<'a> {
    index: Option<u64>,
    snapshot: &'a Snapshot,
}

#[derive(Deserialize)]
struct Stored {
    index: Option<u64>,
    snapshot: Snapshot,
}

/// Reads the file. `None` if there is none.
///
/// # Errors
/// It cannot be read, or is not what was written.
pub(super) fn load(path: &Path) -> Result<Option<Kept>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("not a regular file".into());
    }
    let limit = SNAPSHOT_MAX + 4096;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > limit {
        return Err("too large".into());
    }
    let (head, content) = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|end| (&bytes[..end], &bytes[end + 1..]))
        .ok_or("not a snapshot file")?;
    let sum = head
        .strip_prefix(MAGIC.as_bytes())
        .ok_or("not a snapshot file of this version")?;
    if sum != checksum(content).as_bytes() {
        return Err("damaged: its checksum is wrong".into());
    }
    let stored: Stored = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    Ok(Some((Arc::new(stored.snapshot), stored.index)))
}

/// Replaces the file as a whole.
///
/// # Errors
/// It cannot be written; the old one is still there.
pub(super) fn store(path: &Path, kept: &Kept) -> io::Result<()> {
    let content = serde_json::to_vec(&Written {
        index: kept.1,
        snapshot: &kept.0,
    })?;
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    // One that was left behind may belong to somebody else, or have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(format!("{MAGIC}{}\n", checksum(&content)).as_bytes())?;
            file.write_all(&content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory)?.sync_all()
}

fn checksum(content: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in digest(&SHA256, content).as_ref() {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Keeps the file in step with what is in force, until that or the agent ends.
pub(super) async fn keep(
    path: PathBuf,
    mut newest: watch::Receiver<Option<Kept>>,
    problem: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut written: Option<Arc<Snapshot>> = None;
    loop {
        let changed = stop.run_until_cancelled(newest.changed()).await;
        // What came last is written also when the agent ends.
        let ends = !matches!(changed, Some(Ok(())));
        let kept = newest.borrow_and_update().clone();
        let mut rest = SPACING;
        if let Some(kept) = kept.filter(|(snapshot, _)| written.as_ref().is_none_or(|w| !Arc::ptr_eq(w, snapshot))) {
            let (target, snapshot) = (path.clone(), kept.0.clone());
            let result = match tokio::task::spawn_blocking(move || store(&target, &kept)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match result {
                Ok(()) => {
                    written = Some(snapshot);
                    problem.send_if_modified(|problem| problem.take().is_some());
                }
                Err(error) => {
                    let error = format!("cannot keep the cluster state in {}: {error}", path.display());
                    if problem.borrow().as_ref() != Some(&error) {
                        warn!(target: "lb::stream", "{error}");
                    }
                    problem.send_replace(Some(error));
                    newest.mark_changed();
                    rest = RETRY;
                }
            }
        }
        if ends {
            return;
        }
        // Stopped meanwhile: the next round is the last.
        let _ = stop.run_until_cancelled(tokio::time::sleep(rest)).await;
    }
}

#[cfg(test)]
#[path = "tests/disk.rs"]
mod tests;
