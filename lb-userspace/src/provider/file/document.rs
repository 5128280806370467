//! The cluster file as it is written; `validate` makes a snapshot of it.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::settings::optional_duration;
use crate::model::snapshot::{BackendState, EndpointMode, Protocol};

/// The whole document. Absent lists are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    #[serde(default)]
    pub(super) node: Vec<Node>,
    #[serde(default)]
    pub(super) network: Vec<Network>,
    #[serde(default)]
    pub(super) service: Vec<Service>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: String,
    #[serde(deserialize_with = "addresses")]
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) id: Option<u32>,
    #[serde(default, deserialize_with = "subnets")]
    pub(super) subnets: Vec<IpNet>,
    #[serde(default)]
    pub(super) encrypted: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) network: String,
    #[serde(default)]
    pub(super) mode: EndpointMode,
    #[serde(default, deserialize_with = "addresses")]
    pub(super) vip: Vec<IpAddr>,
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    #[serde(default, deserialize_with = "subnets")]
    pub(super) allow: Vec<IpNet>,
    #[serde(default, deserialize_with = "subnets")]
    pub(super) deny: Vec<IpNet>,
    #[serde(default, deserialize_with = "optional_duration::deserialize")]
    pub(super) tcp_timeout: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration::deserialize")]
    pub(super) udp_timeout: Option<Duration>,
    #[serde(default)]
    pub(super) backend: Vec<Backend>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) port: u16,
    pub(super) target: Option<u16>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    #[serde(default)]
    pub(super) published: Published,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) node: String,
    #[serde(deserialize_with = "addresses")]
    pub(super) addresses: Vec<IpAddr>,
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) state: BackendState,
    #[serde(default = "one")]
    pub(super) weight: u16,
}

fn one() -> u16 {
    1
}

/// Whether and where a port is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Published {
    #[default]
    No,
    /// On a port of the automatic range.
    Auto,
    On(u16),
}

impl<'de> Deserialize<'de> for Published {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PublishedVisitor;
        impl Visitor<'_> for PublishedVisitor {
            type Value = Published;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port, true or \"auto\" for an automatic one, or false")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Published, E> {
                Ok(if value { Published::Auto } else { Published::No })
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Published, E> {
                u16::try_from(value)
                    .map(Published::On)
                    .map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Published, E> {
                match value {
                    "auto" => Ok(Published::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(PublishedVisitor)
    }
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            let reason = if text.contains('/') {
                "leave out the prefix length"
            } else {
                "write \"10.0.0.1\" or \"fd00::1\""
            };
            D::Error::custom(format!("`{text}` is not an address; {reason}"))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(parse).collect()
}

fn subnets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is not a prefix; write \"10.1.0.0/16\" or \"fd01::/48\""
            ))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(parse).collect()
}
