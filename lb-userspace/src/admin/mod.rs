//! Admin API on a Unix socket, and metrics and health over HTTP.
//!
//! | path | where | answer |
//! |---|---|---|
//! | `/v1/status` | socket | [`api::Status`] |
//! | `/v1/services`, `/v1/services/{name}` | socket | [`api::Service`] |
//! | `/v1/backends` | socket | [`api::Backend`] |
//! | `/v1/flows?limit=N` | socket | [`api::Flow`] |
//! | `/v1/plan` | socket | [`api::Plan`] |
//! | `/v1/dns?name=&network=` or `&client=` | socket | [`api::DnsAnswer`] |
//! | `/livez`, `/readyz`, `/metrics` | socket and TCP | text |
//!
//! Lists take `filter=field=value`, any number of times. Everything is read-only.

pub mod api;
pub mod filter;
pub mod inspect;
pub mod inventory;
mod listen;
pub mod report;
mod routes;

use std::sync::Arc;

use tokio::sync::watch;

pub use inspect::Inspect;
pub use listen::{ServeError, Socket, serve, serve_metrics};

use crate::model::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;

/// What differs between the maps and the desired state, computed when asked for.
pub type PlanReader = Arc<dyn Fn() -> Result<api::Plan, api::Error> + Send + Sync>;
/// Explains what a name would be answered with.
pub type DnsReader = Arc<dyn Fn(&api::DnsQuestion) -> Result<api::DnsAnswer, api::Error> + Send + Sync>;

/// Read-only handles on everything that is reported.
#[derive(Clone)]
pub struct State {
    /// The agent's own part of the status; `maps` and `traffic` are filled in when asked for.
    pub status: watch::Receiver<api::Status>,
    /// The newest snapshot, for the names.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The maps.
    pub view: Arc<dyn Inspect>,
    /// Answers `/v1/plan`.
    pub plan: PlanReader,
    /// Answers `/v1/dns`.
    pub dns: DnsReader,
    /// Answers `/metrics`.
    pub metrics: Arc<Metrics>,
}
