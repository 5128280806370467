//! The agent's own part of the status, put together from what its parts reported last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use lb_common::abi::SCHEMA_VERSION;

use super::surroundings;
use super::sync::Outcome;
use crate::admin::api::{
    AgentStatus, DatapathStatus, DnsStatus, HookStatus, InterfaceStatus, ProviderError as ReportedError,
    ProviderStatus, Refused, Status, SwarmStatus,
};
use crate::config::{Config, ProviderKind};
use crate::datapath::attach::{Attachment, Hook, Mode};
use crate::dns::counters::Source;
use crate::dns::{DnsCounters, Zone};
use crate::model::snapshot::Snapshot;
use crate::provider::ProviderError;
use crate::provider::docker::{Drift, Local, Part, Role};
use crate::stream::StreamStatus;

/// The status of an agent that has just started.
pub(super) fn initial(config: &Config) -> Status {
    Status {
        agent: Some(AgentStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            node: config.node.name.clone(),
            addresses: Vec::new(),
            started: SystemTime::now(),
        }),
        provider: Some(ProviderStatus {
            kind: match config.provider.kind {
                ProviderKind::File => "file".into(),
                ProviderKind::Docker => "docker".into(),
            },
            location: match config.provider.kind {
                ProviderKind::File => config.provider.path.display().to_string(),
                ProviderKind::Docker => config.provider.socket.display().to_string(),
            },
            ..ProviderStatus::default()
        }),
        datapath: DatapathStatus {
            schema: SCHEMA_VERSION,
            interfaces: Vec::new(),
        },
        ..Status::default()
    }
}

/// The provider has something new, or something to complain about.
pub(super) fn provider_read(status: &mut Status, snapshot: Option<&Snapshot>, error: Option<&ProviderError>) {
    let Some(provider) = &mut status.provider else { return };
    provider.connected = error.is_none() && snapshot.is_some();
    provider.error = error.map(reported);
    provider.generation = snapshot.map_or(provider.generation, |s| s.generation);
}

fn reported(error: &ProviderError) -> ReportedError {
    match error {
        ProviderError::Invalid(faults) if !faults.is_empty() => {
            let first = &faults[0];
            let more = match faults.len() {
                1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            ReportedError {
                message: format!("{}{more}", first.message),
                file: Some(first.source.clone()),
                line: first.line.and_then(|line| u32::try_from(line).ok()),
                field: (!first.field.is_empty()).then(|| first.field.clone()),
            }
        }
        other => ReportedError {
            message: other.summary(),
            ..ReportedError::default()
        },
    }
}

/// A synchronisation ended.
pub(super) fn synced(status: &mut Status, node: &str, snapshot: &Snapshot, outcome: &Outcome, milliseconds: f64) {
    if let Some(agent) = &mut status.agent {
        node.clone_into(&mut agent.node);
        agent.addresses = surroundings::own_addresses(node, snapshot).collect();
    }
    if let Some(provider) = &mut status.provider {
        provider.sync_error = (!outcome.problems.is_empty()).then(|| outcome.problems.join("; "));
        if outcome.problems.is_empty() {
            provider.applied = snapshot.generation;
            provider.last_sync = Some(SystemTime::now());
            provider.last_sync_ms = Some(milliseconds);
        }
    }
    status.datapath.interfaces = interfaces(&outcome.attachments);
    status.refused = outcome
        .odd
        .iter()
        .map(|odd| Refused {
            network: odd.network.clone(),
            reason: odd.reason.clone(),
        })
        .collect();
    if outcome.problems.is_empty() {
        status.ready = true;
    }
}

/// This node's part in a Swarm.
pub(super) fn swarm(role: &Role, local: &Local, drift: Option<&Drift>, stream: &StreamStatus) -> SwarmStatus {
    let (part, reason) = match &role.part {
        Part::Unknown => ("unknown", None),
        Part::Manager => ("manager", None),
        Part::Worker => ("worker", None),
        Part::None(reason) => ("none", Some(reason.clone())),
    };
    SwarmStatus {
        role: part.into(),
        reason,
        node: role.node.clone(),
        containers: local.containers.len() as u64,
        error: local.error.clone(),
        drift: drift.cloned(),
        stream: stream.clone(),
    }
}

/// A synchronisation could not be done at all.
pub(super) fn failed(status: &mut Status, error: &str) {
    if let Some(provider) = &mut status.provider {
        provider.sync_error = Some(error.to_owned());
    }
}

/// What the name server did so far.
pub(super) fn dns(
    listen: &[SocketAddr],
    zone: &ArcSwap<Zone>,
    snapshot: &Snapshot,
    counters: &Arc<DnsCounters>,
) -> DnsStatus {
    DnsStatus {
        listen: listen.to_vec(),
        networks: snapshot.networks.len() as u64,
        names: zone.load().len() as u64,
        queries: counters.total(),
        servfail: Source::ALL.into_iter().map(|s| counters.count(s, "servfail")).sum(),
    }
}

fn interfaces(attachments: &[Attachment]) -> Vec<InterfaceStatus> {
    let mut found: BTreeMap<(&str, u32), InterfaceStatus> = BTreeMap::new();
    for attachment in attachments {
        let key = (attachment.namespace.as_str(), attachment.ifindex);
        let interface = found.entry(key).or_insert_with(|| InterfaceStatus {
            name: attachment.interface.clone(),
            namespace: attachment.namespace.clone(),
            ifindex: attachment.ifindex,
            role: match attachment.hook {
                Hook::FromWorkload | Hook::ToWorkload => "workload".into(),
                Hook::FromHost => "host".into(),
                _ => "node".into(),
            },
            hooks: Vec::new(),
        });
        interface.hooks.push(HookStatus {
            hook: match attachment.hook {
                Hook::XdpNative | Hook::XdpGeneric => "xdp".into(),
                Hook::TcNode | Hook::FromWorkload => "tc_ingress".into(),
                Hook::ToWorkload | Hook::FromHost => "tc_egress".into(),
            },
            mode: match attachment.mode {
                Mode::None => "off".into(),
                mode => mode.to_string(),
            },
            why: Some(match &attachment.error {
                Some(error) => format!("{}: {error}", attachment.why),
                None => attachment.why.clone(),
            }),
        });
    }
    let mut interfaces: Vec<_> = found.into_values().collect();
    for interface in &mut interfaces {
        // XDP is left out by choice: that too is worth a line.
        if interface.role == "node" && !interface.hooks.iter().any(|h| h.hook == "xdp") {
            let why = interface.hooks.first().and_then(|h| h.why.clone());
            interface.hooks.insert(
                0,
                HookStatus {
                    hook: "xdp".into(),
                    mode: "off".into(),
                    why,
                },
            );
        }
    }
    interfaces.sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name)));
    interfaces
}
