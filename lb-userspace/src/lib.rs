//! The node agent and what `lbctl` shares with it.
//!
//! One way only: `provider -> Snapshot -> Desired -> plan -> maps`. DNS reads [`model::snapshot`] alone;
//! `lbctl` never plans or applies.
//!
//! | module | may use | must not use |
//! |---|---|---|
//! | [`model`] | std, lb-common | aya, tokio, I/O |
//! | [`provider`] | model | plan, datapath, dns |
//! | [`plan`] | model, lb-common | aya, providers |
//! | [`datapath`] | plan, lb-common, aya, nix | providers, dns, admin |
//! | [`net`] | rtnetlink, nix | aya, model |
//! | [`dns`] | model, net, hickory | datapath, plan, provider |
//! | [`stream`] | model, config, net, rustls | aya, plan, datapath, dns, provider |
//! | [`telemetry`], [`admin`] | read handles | mutating handles |
//! | [`fault`] | nix | agent, datapath, model, plan |
//! | [`agent`] | everything | logic |

pub mod admin;
pub mod agent;
pub mod config;
pub mod datapath;
pub mod dns;
pub mod fault;
pub mod lifecycle;
pub mod model;
pub mod net;
pub mod plan;
pub mod provider;
pub mod stream;
pub mod telemetry;
