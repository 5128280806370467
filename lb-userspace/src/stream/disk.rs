//! What an agent keeps on disk over a restart: the last good snapshot ([`Kept`]), and what other nodes reported last
//! ([`super::remember::Remembered`]).
//!
//! Each file is one line that says what the file is, with the SHA-256 of the rest; then JSON. A file is replaced as a
//! whole, and one that is damaged, or of another layout, is as good as none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::message::SNAPSHOT_MAX;
use crate::model::snapshot::Snapshot;

/// Between two writes.
const SPACING: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// Something that is kept.
pub(super) trait Keep: Clone + Send + Sync + 'static {
    /// First words of the file. The number in it rises with every change of its layout.
    const MAGIC: &'static str;
    /// What it is, for people.
    const WHAT: &'static str;
    /// Longest content, bytes.
    const LENGTH_MAX: usize;
    /// What is read.
    type Stored: DeserializeOwned;

    /// # Errors
    /// It cannot be encoded.
    fn content(&self) -> io::Result<Vec<u8>>;

    fn restored(stored: Self::Stored) -> Self;

    /// Whether it was written already when `written` was. May say no when it was.
    fn same(&self, written: &Self) -> bool;
}

/// The last snapshot, and [`super::View::index`].
pub(super) type Kept = (Arc<Snapshot>, Option<u64>);

#[derive(Serialize)]
struct Written<'a> {
    index: Option<u64>,
    snapshot: &'a Snapshot,
}

#[derive(Deserialize)]
pub(super) struct Stored {
    index: Option<u64>,
    snapshot: Snapshot,
}

impl Keep for Kept {
    const MAGIC: &'static str = "lb-snapshot 1 ";
    const WHAT: &'static str = "the cluster state";
    const LENGTH_MAX: usize = SNAPSHOT_MAX + 4096;
    type Stored = Stored;

    fn content(&self) -> io::Result<Vec<u8>> {
        let (snapshot, index) = (&*self.0, self.1);
        Ok(serde_json::to_vec(&Written { index, snapshot })?)
    }

    fn restored(stored: Stored) -> Self {
        (Arc::new(stored.snapshot), stored.index)
    }

    fn same(&self, written: &Self) -> bool {
        Arc::ptr_eq(&self.0, &written.0)
    }
}

/// Reads the file. `None` if there is none.
///
/// # Errors
/// It cannot be read, or is not what was written.
pub(super) fn load<K: Keep>(path: &Path) -> Result<Option<K>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("not a regular file".into());
    }
    let limit = K::LENGTH_MAX + 4096;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() > limit {
        return Err("too large".into());
    }
    parse(&bytes).map(Some)
}

/// What the bytes of a file say.
///
/// # Errors
/// They are not what was written.
pub(super) fn parse<K: Keep>(bytes: &[u8]) -> Result<K, String> {
    let (head, content) = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|end| (&bytes[..end], &bytes[end + 1..]))
        .ok_or("not a file of this kind")?;
    let sum = head
        .strip_prefix(K::MAGIC.as_bytes())
        .ok_or("not a file of this kind and version")?;
    if sum != checksum(content).as_bytes() {
        return Err("damaged: its checksum is wrong".into());
    }
    let stored = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    Ok(K::restored(stored))
}

/// The first line of a file with this content.
pub(super) fn head<K: Keep>(content: &[u8]) -> String {
    format!("{}{}\n", K::MAGIC, checksum(content))
}

/// Replaces the file as a whole.
///
/// # Errors
/// It cannot be written, or is longer than would be read again; the old one is still there.
pub(super) fn store<K: Keep>(path: &Path, kept: &K) -> io::Result<()> {
    let content = kept.content()?;
    if content.len() > K::LENGTH_MAX {
        let (size, limit) = (content.len() >> 20, K::LENGTH_MAX >> 20);
        return Err(io::Error::other(format!("{size} MiB, and {limit} can be kept")));
    }
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
            file.write_all(head::<K>(&content).as_bytes())?;
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
pub(super) async fn keep<K: Keep>(
    path: PathBuf,
    mut newest: watch::Receiver<Option<K>>,
    problem: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut written: Option<K> = None;
    loop {
        let changed = stop.run_until_cancelled(newest.changed()).await;
        // What came last is written also when the agent ends.
        let ends = !matches!(changed, Some(Ok(())));
        let kept = newest.borrow_and_update().clone();
        let mut rest = SPACING;
        if let Some(kept) = kept.filter(|kept| written.as_ref().is_none_or(|written| !kept.same(written))) {
            let (target, again) = (path.clone(), kept.clone());
            let result = match tokio::task::spawn_blocking(move || store(&target, &kept)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match result {
                Ok(()) => {
                    written = Some(again);
                    problem.send_if_modified(|problem| problem.take().is_some());
                }
                Err(error) => {
                    let error = format!("cannot keep {} in {}: {error}", K::WHAT, path.display());
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
