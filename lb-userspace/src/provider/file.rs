//! Provider `file`: one TOML document, the same on every node, watched for changes. docs/cluster-file.md describes it.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Change, ProviderError, ProviderState};
use crate::config::document::{Document, Fault};
use crate::model::snapshot::Snapshot;

mod claims;
mod cut;
mod document;
mod names;
mod pieces;
mod ports;
mod read;
mod services;
mod sources;
mod validate;
mod watcher;

pub use ports::AUTOMATIC;
pub use read::read;

use pieces::Pieces;
use read::Stamp;

/// Reads a cluster document. `name` is the name that faults give it, `tunnel_port` the UDP port that no service may
/// publish. The snapshot's generation is 0.
///
/// # Errors
/// Every fault that was found.
pub fn parse(name: &str, bytes: &[u8], tunnel_port: u16) -> Result<Snapshot, ProviderError> {
    let document = Document::from_bytes(name, bytes).map_err(|fault| ProviderError::Invalid(vec![*fault]))?;
    validate::validate(&document, tunnel_port).map_err(ProviderError::Invalid)
}

/// Watches a cluster document from a thread of its own, until all receivers are gone.
///
/// # Errors
/// The thread cannot be made. A file that is not there, or wrong, is part of the state and no error here.
pub fn start(path: &Path, tunnel_port: u16) -> io::Result<watch::Receiver<ProviderState>> {
    let (sender, receiver) = watch::channel(ProviderState::default());
    let path = std::path::absolute(path)?;
    std::thread::Builder::new()
        .name("provider-file".into())
        .spawn(move || {
            let mut source = Source {
                path: path.clone(),
                tunnel_port,
                sender,
                last: None,
                pieces: None,
                doubt: None,
                stamp: None,
                reread: false,
                file: None,
                cut_off: false,
            };
            watcher::run(&path, &mut source);
        })?;
    Ok(receiver)
}

type Content = Result<Vec<u8>, ProviderError>;

/// The document, what was last made of it, and who wants to know.
struct Source {
    path: PathBuf,
    tunnel_port: u16,
    sender: watch::Sender<ProviderState>,
    /// The content of which the published state speaks.
    last: Option<Content>,
    /// Those of `last`, where it can be taken apart.
    pieces: Option<Pieces>,
    /// A content that cannot be used and was seen once: it may be half written.
    doubt: Option<Content>,
    /// How the file looked from outside when it was read last,
    stamp: Option<Stamp>,
    /// and the time before.
    reread: bool,
    /// Device and inode of `last`.
    file: Option<[i64; 2]>,
    /// `last` was refused for being the beginning of the one before.
    cut_off: bool,
}

/// Whether the document has to be read again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// What was read is published.
    Settled,
    /// What was read cannot be used; if it is still there at the next reading, the error is published.
    Doubtful,
    /// Nobody listens any more.
    Unwanted,
}

impl Source {
    /// Reads the document and publishes what changed. Unless `prompted`, it is not read again and again as long as it
    /// looks the same from outside.
    fn refresh(&mut self, prompted: bool) -> Outcome {
        if self.sender.is_closed() {
            return Outcome::Unwanted;
        }
        let stamp = read::stamp(&self.path);
        let same = stamp.is_some() && stamp == self.stamp;
        // Within one tick of the file system's clock it may have changed without a trace: it is read twice.
        if same && self.reread && !prompted && self.doubt.is_none() {
            return Outcome::Settled;
        }
        self.reread = same;
        self.stamp = stamp;
        if let Some(outcome) = self.follow() {
            return outcome;
        }
        let content = read(&self.path);
        let file = self.stamp.map(|stamp| [stamp[0], stamp[1]]);
        if self.cut_off && file != self.file {
            // It was put there whole: so it is meant.
            (self.cut_off, self.last) = (false, None);
        }
        if self.last.as_ref() == Some(&content) {
            self.doubt = None;
            return Outcome::Settled;
        }
        let mut parsed = content
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|bytes| self.parse(bytes));
        self.cut_off =
            parsed.is_ok() && file == self.file && content.as_ref().is_ok_and(|bytes| self.is_cut_off(bytes));
        if let (true, Ok(bytes)) = (self.cut_off, &content) {
            parsed = Err(self.cut_off_at_end(bytes));
        }
        match parsed {
            Ok((pieces, snapshot)) => {
                self.pieces = pieces;
                self.publish(snapshot);
            }
            Err(_) if self.doubt.as_ref() != Some(&content) => {
                self.doubt = Some(content);
                return Outcome::Doubtful;
            }
            Err(error) => {
                self.pieces = None;
                self.refuse(error);
            }
        }
        self.doubt = None;
        self.file = file;
        self.last = Some(content);
        Outcome::Settled
    }

    /// Whether the file looks other than when it was read last.
    fn looks_changed(&self) -> bool {
        read::stamp(&self.path) != self.stamp
    }

    /// Whether this is only the beginning of the document in force.
    fn is_cut_off(&self, bytes: &[u8]) -> bool {
        let longer = |last: &Vec<u8>| last.len() > bytes.len() && last.starts_with(bytes);
        matches!(&self.last, Some(Ok(last)) if longer(last))
    }

    /// What a writer leaves that ran out of space, or was killed, may be valid and lack half of the cluster.
    fn cut_off_at_end(&self, bytes: &[u8]) -> ProviderError {
        let name = self.path.display().to_string();
        let mut fault = Fault::new(
            &name,
            "",
            "the file was cut off here: it is the beginning of the document in force",
        )
        .with_hint(Some(
            "write it again (is the disk full?); if the rest was removed on purpose, put it there by renaming".into(),
        ));
        fault.line = Some(bytes.split(|byte| *byte == b'\n').count());
        ProviderError::Invalid(vec![fault])
    }

    fn parse(&self, bytes: &[u8]) -> Result<(Option<Pieces>, Snapshot), ProviderError> {
        if let Some((pieces, snapshot)) = Pieces::read(bytes, self.tunnel_port) {
            return Ok((Some(pieces), snapshot));
        }
        let name = self.path.display().to_string();
        Ok((None, parse(&name, bytes, self.tunnel_port)?))
    }

    /// Follows a change of the document in force, at the cost of what it changes. `None`: it has to be read as a whole.
    fn follow(&mut self) -> Option<Outcome> {
        let Some(Ok(last)) = &mut self.last else { return None };
        let pieces = self.pieces.as_mut()?;
        let snapshot = match read::edit(&self.path, last).ok()? {
            None => None,
            Some(edit) => {
                if edit.new.is_empty() && edit.at + edit.old == last.len() {
                    return None;
                }
                let snapshot = pieces.change(last, &edit)?;
                last.splice(edit.at..edit.at + edit.old, edit.new);
                Some(snapshot)
            }
        };
        self.doubt = None;
        self.file = self.stamp.map(|stamp| [stamp[0], stamp[1]]);
        if let Some(snapshot) = snapshot {
            self.publish(snapshot);
        }
        Some(Outcome::Settled)
    }

    fn publish(&self, snapshot: Snapshot) {
        self.sender.send_if_modified(|state| {
            let change = state.accept(snapshot, Vec::new(), None);
            if change == Change::Snapshot
                && let Some(snapshot) = &state.snapshot
            {
                info!(
                    target: "lb::provider",
                    path = %self.path.display(),
                    generation = snapshot.generation,
                    nodes = snapshot.nodes.len(),
                    networks = snapshot.networks.len(),
                    services = snapshot.services.len(),
                    "cluster state changed"
                );
            }
            change != Change::Nothing
        });
    }

    fn refuse(&self, error: ProviderError) {
        warn!(target: "lb::provider", error = %error.summary(), "cluster state refused; the last valid one stays");
        self.sender.send_modify(|state| {
            state.reject(error);
        });
    }
}

#[cfg(test)]
mod tests;
