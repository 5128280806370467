//! [`Plan`], [`DnsAnswer`] and [`Check`]: answers to questions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What separates the maps from the desired state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Steps to take; 0: nothing differs.
    pub steps: u64,
    /// For people.
    pub text: String,
    /// For programs.
    pub plan: serde_json::Value,
}

/// A name to explain, as asked by a client in `network`, or at `client`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsQuestion {
    /// With or without the final dot.
    pub name: String,
    /// Name of the network to ask from.
    pub network: Option<String>,
    /// Address to ask from; its network decides.
    pub client: Option<IpAddr>,
}

/// What would be answered, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsAnswer {
    /// The name asked for.
    pub name: String,
    /// Network that the question comes from, if any is known.
    pub network: Option<String>,
    /// `local`, or `upstream` for a name that is not ours.
    pub source: String,
    /// `NOERROR`, `NXDOMAIN` ...; empty for `upstream`.
    pub rcode: String,
    /// The records.
    pub records: Vec<DnsRecord>,
    /// How it was decided, step by step.
    pub why: Vec<String>,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsRecord {
    /// Its owner.
    pub name: String,
    /// `A`, `AAAA`, `PTR`, `SRV`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Seconds.
    pub ttl: u32,
    /// As in a zone file.
    pub data: String,
}

/// Outcome of one check of `lbctl doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name.
    pub id: String,
    /// How it went.
    pub level: Level,
    /// What was found.
    pub finding: String,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// As it should be.
    Pass,
    /// Works, but worse than it could, or could not be examined.
    Warn,
    /// Traffic is or will be lost.
    Fail,
}
