//! How a [`Plan`] looks: as text for `lbctl plan` and the log, as JSON for `-o json`.

use std::fmt;
use std::net::IpAddr;

use lb_common::abi::{
    self, Addresses, BACKEND_DRAINING, BACKEND_READY, Backends, EndpointKey, Frontends, LocalBackends, NODE_PRESENT,
    Nodes, SOURCE_ALLOWED, Services, Slots, SourceKey, Sources, Table, Vips,
};
use lb_common::address::Address;
use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use serde_json::{Value, json};

use super::{Action, Change, Op, Plan, Row};
use crate::model::snapshot::Protocol;

// === impl Plan ===

impl Plan {
    /// Numbers of objects to add, to change and to remove.
    pub fn counts(&self) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        self.changes.iter().for_each(|change| change.count(&mut counts));
        counts
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| change.write(f, 0))?;
        for problem in &self.problems {
            writeln!(f, "! {problem}")?;
        }
        let (add, change, remove) = self.counts();
        write!(f, "Plan: {add} to add, {change} to change, {remove} to remove.")
    }
}

// === impl Change ===

impl Change {
    fn count(&self, counts: &mut (usize, usize, usize)) {
        match self.action {
            Action::Add => counts.0 += 1,
            Action::Change if self.changes.is_empty() => counts.1 += 1,
            Action::Change => {}
            Action::Remove => counts.2 += 1,
        }
        self.changes.iter().for_each(|inner| inner.count(counts));
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let Self {
            action,
            object,
            name,
            detail,
            changes,
        } = self;
        write!(f, "{:1$}{action} {object} {name}", "", depth * 4)?;
        if !detail.is_empty() {
            write!(f, " ({detail})")?;
        }
        writeln!(f)?;
        changes.iter().try_for_each(|inner| inner.write(f, depth + 1))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Change => "~",
            Self::Remove => "-",
        })
    }
}

// === impl Op ===

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.action, self.row.table(), self.row.key())
    }
}

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut op = serializer.serialize_struct("Op", 6)?;
        op.serialize_field("phase", &self.phase)?;
        op.serialize_field("action", &self.action)?;
        op.serialize_field("table", self.row.table())?;
        op.serialize_field("key", &self.row.key())?;
        op.serialize_field("value", &self.row.value())?;
        op.serialize_field("after", &self.after)?;
        op.end()
    }
}

// === impl Row ===

impl Row {
    /// Name of its table.
    pub const fn table(&self) -> &'static str {
        match self {
            Self::Node(..) => Nodes::NAME,
            Self::Address(..) => Addresses::NAME,
            Self::Backend(..) => Backends::NAME,
            Self::LocalBackend(..) => LocalBackends::NAME,
            Self::Slot(..) => Slots::NAME,
            Self::Service(..) => Services::NAME,
            Self::Frontend(..) => Frontends::NAME,
            Self::Vip(..) => Vips::NAME,
            Self::Source(..) => Sources::NAME,
        }
    }

    /// Its key as text.
    pub fn key(&self) -> String {
        match self {
            Self::Node(id, _) | Self::Backend(id, _) | Self::Service(id, _) => id.to_string(),
            Self::Address(address, _) => address.to_string(),
            Self::LocalBackend(key, _) | Self::Frontend(key, _) => {
                format!("{} network {}", endpoint(key), key.network)
            }
            Self::Slot(key, _) => format!("{}/{}/{}", key.service, key.generation, key.index),
            Self::Vip(key, _) => format!("{} network {}", key.address, key.network),
            Self::Source(key, _) => format!("{} service {}", prefix(key), key.service),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Node(_, node) => json!({
                "tunnel_v4": address(node.tunnel_v4), "tunnel_v6": address(node.tunnel_v6),
                "present": node.flags & NODE_PRESENT != 0, "local": node.flags & abi::NODE_LOCAL != 0,
            }),
            Self::Address(_, value) => json!({"node": value.node, "local": value.flags & abi::NODE_LOCAL != 0}),
            Self::Backend(_, b) => json!({
                "address": b.address.to_string(), "network": b.network, "port": b.port,
                "protocol": protocol(b.protocol), "node": b.node, "generation": b.generation,
                "state": state(b.state), "local": b.flags & abi::BACKEND_LOCAL != 0, "ifindex": b.ifindex,
                "mac": b.mac.map(|byte| format!("{byte:02x}")).join(":"),
            }),
            Self::LocalBackend(_, id) | Self::Slot(_, id) => json!({"backend": id}),
            Self::Service(_, s) => json!({
                "identity": format!("{:016x}", s.identity), "generation": s.generation, "count": s.count,
                "tcp_timeout": s.tcp_timeout, "udp_timeout": s.udp_timeout,
            }),
            Self::Frontend(_, frontend) => json!({"service": frontend.service}),
            Self::Vip(_, vip) => json!({"frontends": vip.frontends}),
            Self::Source(_, value) => json!({"allowed": *value == SOURCE_ALLOWED}),
        }
    }
}

fn address(address: Address) -> Option<String> {
    (address != Address::ANY).then(|| address.to_string())
}

/// `10.0.1.9:80/tcp`, `[fd00::9]:80/tcp`; a published port is `*:80/tcp`, with its family if that is IPv6.
pub(super) fn endpoint(key: &EndpointKey) -> String {
    let (port, protocol) = (key.port, protocol(key.protocol));
    match key.address.to_ip() {
        _ if key.address == Address::ANY && key.family == 6 => format!("*:{port}/{protocol} ipv6"),
        _ if key.address == Address::ANY => format!("*:{port}/{protocol}"),
        IpAddr::V4(address) => format!("{address}:{port}/{protocol}"),
        IpAddr::V6(address) => format!("[{address}]:{port}/{protocol}"),
    }
}

/// `10.0.0.0/8`, `fd00::/8`, `everybody`.
pub(super) fn prefix(key: &SourceKey) -> String {
    let bits = key.bits.saturating_sub(SourceKey::EVERYBODY);
    match key.address.to_ip() {
        _ if bits == 0 => "everybody".into(),
        address @ IpAddr::V4(_) => format!("{address}/{}", bits.saturating_sub(96)),
        address => format!("{address}/{bits}"),
    }
}

fn protocol(number: u8) -> String {
    Protocol::from_number(number).map_or_else(|| number.to_string(), |p| p.to_string())
}

/// Word for a backend's state.
pub(super) const fn state(state: u8) -> &'static str {
    match state {
        BACKEND_READY => "ready",
        BACKEND_DRAINING => "draining",
        _ => "gone",
    }
}
