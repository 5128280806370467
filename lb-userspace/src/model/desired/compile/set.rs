//! The balanced set behind a listener.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use lb_common::abi::{SOURCE_ALLOWED, SOURCE_DENIED, SourceKey, TICK_SHIFT};
use lb_common::address::Address;

use super::super::{Family, Prefix, Service};
use super::{Compiler, Listener};
use crate::model::snapshot;

impl Compiler<'_> {
    /// Adds the balanced set of a listener, unless it is there; returns its identity.
    pub(super) fn set(&mut self, listener: &Listener<'_>, local: bool) -> Option<u64> {
        let key = listener.key(local);
        let identity = key.identity();
        if let Some(there) = self.desired.services.get(&identity) {
            if there.key == key && there.target == listener.port.target {
                return Some(identity);
            }
            let reason = if there.key == key {
                format!(
                    "its port leads to {} already, so it cannot lead to {}",
                    there.target, listener.port.target
                )
            } else {
                format!("its identity is that of {}; rename one of them", there.key)
            };
            self.refuse(format!("service {key}"), reason);
            return None;
        }
        let (shares, resting) = self.members(listener, local);
        let timeout = |t: Option<Duration>| t.map_or(0, ticks);
        self.desired.services.insert(
            identity,
            Service {
                key,
                target: listener.port.target,
                shares,
                resting,
                sources: sources(&listener.service.sources, listener.family),
                tcp_timeout: timeout(listener.service.tcp_timeout),
                udp_timeout: timeout(listener.service.udp_timeout),
            },
        );
        Some(identity)
    }
}

/// The rows that say whom published ports answer. An address that none matches is not answered.
fn sources(sources: &snapshot::Sources, family: Family) -> Option<BTreeMap<Prefix, u32>> {
    if sources.is_empty() {
        return None;
    }
    let mut rows = BTreeMap::new();
    if sources.allow.is_empty() {
        rows.insert((SourceKey::EVERYBODY, Address::default()), SOURCE_ALLOWED);
    }
    let lists = [(&sources.allow, SOURCE_ALLOWED), (&sources.deny, SOURCE_DENIED)];
    for (prefixes, value) in lists {
        let of_family = prefixes.iter().filter(|prefix| Family::of(prefix.addr()) == family);
        rows.extend(of_family.map(|prefix| (self::prefix(prefix), value)));
    }
    Some(rows)
}

fn prefix(prefix: &IpNet) -> Prefix {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    let bits = SourceKey::EVERYBODY + mapped + u32::from(prefix.prefix_len());
    (bits, prefix.network().into())
}

/// Ticks of a timeout; at least one, since zero stands for the agent's setting.
fn ticks(timeout: Duration) -> u32 {
    (timeout.as_nanos() >> TICK_SHIFT).clamp(1, u128::from(u32::MAX)) as u32
}
