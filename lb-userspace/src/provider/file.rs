//! Provider `file`: one TOML document, the same on every node, watched for changes. docs/cluster-file.md describes it.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Change, ProviderError, ProviderState};
use crate::config::document::Document;
use crate::model::snapshot::Snapshot;

mod document;
mod names;
mod ports;
mod read;
mod services;
mod sources;
mod validate;
mod watcher;

pub use ports::AUTOMATIC;
pub use read::read;

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
                doubt: None,
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
    /// A content that cannot be used and was seen once: it may be half written.
    doubt: Option<Content>,
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
    /// Reads the document and publishes what changed.
    fn refresh(&mut self) -> Outcome {
        if self.sender.is_closed() {
            return Outcome::Unwanted;
        }
        let content = read(&self.path);
        if self.last.as_ref() == Some(&content) {
            self.doubt = None;
            return Outcome::Settled;
        }
        let name = self.path.display().to_string();
        let parsed = content
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|bytes| parse(&name, bytes, self.tunnel_port));
        match parsed {
            Ok(snapshot) => self.publish(snapshot),
            Err(_) if self.doubt.as_ref() != Some(&content) => {
                self.doubt = Some(content);
                return Outcome::Doubtful;
            }
            Err(error) => self.refuse(error),
        }
        self.doubt = None;
        self.last = Some(content);
        Outcome::Settled
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
