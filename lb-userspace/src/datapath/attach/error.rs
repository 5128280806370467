//! [`AttachError`]: why a program is not where it should be.

use std::io;
use std::path::PathBuf;

use aya::programs::ProgramError;

use super::{Hook, Wanted};
use crate::datapath::load;

/// One program could not be attached or taken away.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error("{hook} on {interface}: {source}")]
    Program {
        /// Where.
        hook: Hook,
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: ProgramError,
    },
    /// The link cannot be kept beyond the agent's life.
    #[error("{hook} on {interface}: the kernel gave no link that can be pinned")]
    NotALink {
        /// Where.
        hook: Hook,
        /// Interface name.
        interface: String,
    },
    /// The namespace of an interface cannot be entered.
    #[error("network namespace {namespace}: {source}")]
    Namespace {
        /// Its name.
        namespace: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The programs of a namespace cannot be loaded.
    #[error("network namespace {namespace}: {source}")]
    Pair {
        /// Its name.
        namespace: String,
        /// What went wrong.
        source: Box<load::LoadError>,
    },
    /// A pin.
    #[error("pin {}: {source}", .pin.display())]
    Pin {
        /// Its path.
        pin: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AttachError {
    /// The kernel has attached in a way that ends with the agent.
    pub(super) fn not_a_link(want: &Wanted) -> Self {
        Self::NotALink {
            hook: want.hook,
            interface: want.interface.clone(),
        }
    }
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = e.source();
    }
    text
}
