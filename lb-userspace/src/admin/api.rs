//! What the admin socket answers and `lbctl -o json` prints: the stable, versioned JSON.
//!
//! Fields may be added within [`API_VERSION`]; none is renamed, removed or given another meaning.
//! Numbers are numbers, addresses strings, times RFC 3339, durations seconds or named with their unit.

mod answer;
mod datapath;
mod service;
mod status;
pub mod time;

use serde::{Deserialize, Serialize};

pub use answer::{Check, DnsAnswer, DnsQuestion, DnsRecord, Level, Plan};
pub use datapath::{MapEntry, MapStatus, Program, Traffic};
pub use service::{Backend, BackendCount, Flow, Port, Service, ServiceTraffic};
pub use status::{
    AgentStatus, DatapathStatus, DnsStatus, HookStatus, InterfaceStatus, ProviderError, ProviderStatus, Refused,
    Status, SwarmStatus,
};

/// Version of everything in this module.
pub const API_VERSION: &str = "v1";

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The running agent.
    #[default]
    Agent,
    /// The pinned maps, read without an agent: names are not known.
    Maps,
}

/// Every answer: a list of one kind of item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ServiceList`, `Status` ...
    pub kind: String,
    /// Who answers.
    pub source: Origin,
    /// Generation of the snapshot that the names come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Number of items that match, where a limit cut the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// The answer.
    pub items: Vec<T>,
}

impl<T: Item> List<T> {
    /// An answer from `source`.
    pub fn new(source: Origin, items: Vec<T>) -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: T::KIND.into(),
            source,
            generation: None,
            total: None,
            items,
        }
    }
}

/// Something that lists are made of.
pub trait Item {
    /// Kind of a list of these.
    const KIND: &'static str;
    /// Names that [`Item::field`] knows.
    const FIELDS: &'static [&'static str];
    /// The values to compare with a filter `name=value`; empty for a field that is not set.
    fn field(&self, name: &str) -> Vec<String>;
}

/// `{"error": ...}`: why there is no answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// One sentence, lower case, without full stop.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// An error without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Kinds of failure; `lbctl` gives each its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request makes no sense.
    Usage,
    /// Neither agent nor maps can be reached, or the agent cannot answer yet.
    Unavailable,
    /// The caller may not.
    PermissionDenied,
    /// No such object.
    NotFound,
    /// More than one object of that name.
    Ambiguous,
    /// Another API version or map layout.
    Version,
    /// Anything else.
    Internal,
}

/// The body of a failed request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure.
    pub error: Error,
}
