//! Provider `docker`, its pure half: what a Swarm manager's Engine API lists, as a [`Snapshot`].
//!
//! [`api`] reads the answers, [`translate`] puts them in the project's own words. Neither does any I/O.
//!
//! What the lists do not hold, and so the snapshot does not either: the data-path address of a node (with
//! `--data-path-addr` it differs from the address that `GET /nodes` shows), the addresses of tasks on the gateway
//! bridge, and plain containers on attachable networks. The agents report those about their own node.
//!
//! [`Snapshot`]: crate::model::snapshot::Snapshot

pub mod api;
mod services;
pub mod translate;

pub use translate::{TranslateError, node_names, translate};

#[cfg(test)]
mod tests;
