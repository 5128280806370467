//! Where cluster state comes from. Level-triggered: what counts is the newest [`ProviderState`], not how it came about.

use std::fmt;

use tokio::sync::watch;

use crate::config::document::Fault;
use crate::config::{Config, ProviderKind};

pub mod docker;
pub mod file;
mod state;

pub(crate) use state::Change;
pub use state::ProviderState;

/// Why the source's state cannot be used. It changes nothing: the last valid snapshot stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The source cannot be read.
    #[error("cannot read {source_name}: {message}")]
    Read {
        /// The file's path.
        source_name: String,
        /// What the system said.
        message: String,
    },
    /// The container engine of this node, or its Swarm, says nothing that can be used.
    #[error("{0}")]
    Engine(String),
    /// Its content is wrong: at least one fault, in the order of the document.
    #[error("{}", Faults(.0))]
    Invalid(Vec<Fault>),
}

impl ProviderError {
    /// The first fault in one line, and how many more there are.
    pub fn summary(&self) -> String {
        match self {
            Self::Read { .. } | Self::Engine(_) => self.to_string(),
            Self::Invalid(faults) => {
                let first = faults.first().map(Fault::summary).unwrap_or_default();
                match faults.len() {
                    0 | 1 => first,
                    more => format!("{first} (and {} more)", more - 1),
                }
            }
        }
    }
}

/// So many faults are shown in full.
const FAULTS_SHOWN: usize = 20;

struct Faults<'a>(&'a [Fault]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().take(FAULTS_SHOWN).enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        match self.0.len().saturating_sub(FAULTS_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Starts the configured provider. Its first state arrives as a change; until then the receiver holds an empty one.
/// The provider ends when all receivers are gone.
///
/// Provider `docker` alone, without what agents tell each other; it must be started within a tokio runtime.
///
/// # Errors
/// The thread or the file watch of the provider cannot be made.
pub fn start(config: &Config) -> std::io::Result<watch::Receiver<ProviderState>> {
    match config.provider.kind {
        ProviderKind::File => file::start(&config.provider.path, config.datapath.tunnel_port),
        ProviderKind::Docker => {
            let nobody = watch::channel(docker::Streamed::default()).1;
            Ok(docker::start(docker::Options::from(config), nobody).state)
        }
    }
}
