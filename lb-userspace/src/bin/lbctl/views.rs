//! How each kind of item looks: columns of lists, and pages for single objects.

use std::fmt::Write as _;

use lb_userspace::admin::api::{
    Backend, Check, DnsAnswer, Flow, Level, MapEntry, MapStatus, Plan, Port, Program, Service,
};
use lb_userspace::model::snapshot::{BackendState, EndpointMode};

use crate::output::{Context, View, bytes, count, dash, duration};
use crate::table::Table;

mod status;

impl View for Service {
    fn name(&self) -> String {
        match (&self.network, &self.name, self.ids.first()) {
            (Some(network), Some(name), _) => format!("{network}/{name}"),
            (_, _, Some(id)) => id.to_string(),
            _ => String::new(),
        }
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec!["NAME", "NETWORK", "VIP", "PORTS", "MODE", ">READY", ">FLOWS"];
        if context.wide {
            columns.extend([">STARTED", ">PACKETS", ">BYTES", "ALIASES", "IDS"]);
        }
        let mut table = Table::new(&columns);
        for s in items {
            let traffic = &s.traffic;
            table.row([
                title(s),
                s.network.clone().unwrap_or_else(|| dash(s.network_id)),
                list(s.vips.iter()),
                list(s.ports.iter().map(port)),
                dash(s.mode.map(mode)),
                format!("{}/{}", s.backends.ready, s.backends.total),
                s.flows.to_string(),
                traffic.flows_total.to_string(),
                (traffic.packets_total + traffic.reply_packets_total).to_string(),
                bytes(traffic.bytes_total + traffic.reply_bytes_total),
                list(s.aliases.iter()),
                list(s.ids.iter()),
            ]);
        }
        table
    }
}

/// All about one service.
pub(crate) fn describe(s: &Service, context: &Context) -> String {
    let mut text = String::new();
    let t = &s.traffic;
    let lines = [
        ("Name", title(s)),
        (
            "Network",
            format!("{} (id {})", dash(s.network.as_ref()), dash(s.network_id)),
        ),
        ("Mode", dash(s.mode.map(mode))),
        ("VIPs", list(s.vips.iter())),
        ("Aliases", list(s.aliases.iter())),
        ("Ports", list(s.ports.iter().map(port))),
        ("Ids", list(s.ids.iter())),
        (
            "Backends",
            format!("{} ready, {} draining", s.backends.ready, s.backends.draining),
        ),
        ("Flows", format!("{} now, {} begun", s.flows, t.flows_total)),
        (
            "To backends",
            format!("{} packets, {}", t.packets_total, bytes(t.bytes_total)),
        ),
        (
            "To clients",
            format!("{} packets, {}", t.reply_packets_total, bytes(t.reply_bytes_total)),
        ),
    ];
    for (name, value) in lines {
        let _ = writeln!(text, "{:<13}{value}", format!("{name}:"));
    }
    text.push_str("Tasks:\n");
    for line in tasks(&s.tasks, context).render(true).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// The tasks of one service.
pub(crate) fn tasks(items: &[Backend], _context: &Context) -> Table {
    let mut table = Table::new(&["TASK", "NODE", "ADDRESS", "PROTO", "STATE", ">WEIGHT", ">FLOWS"]);
    for b in items {
        table.row([
            task(b),
            dash(b.node.as_ref()),
            address(b),
            dash(b.protocol),
            state(b).into(),
            dash(b.weight),
            b.flows.to_string(),
        ]);
    }
    table
}

impl View for Backend {
    fn name(&self) -> String {
        match (&self.task, self.id) {
            (Some(task), _) => task.clone(),
            (None, id) => dash(id),
        }
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec![
            "SERVICE", "NETWORK", "TASK", "NODE", "ADDRESS", "PROTO", "STATE", ">WEIGHT", ">FLOWS",
        ];
        if context.wide {
            columns.extend([">ID", "LOCAL"]);
        }
        let mut table = Table::new(&columns);
        for b in items {
            table.row([
                dash(b.service.as_ref()),
                b.network.clone().unwrap_or_else(|| dash(b.network_id)),
                task(b),
                dash(b.node.as_ref()),
                address(b),
                dash(b.protocol),
                state(b).into(),
                dash(b.weight),
                b.flows.to_string(),
                dash(b.id),
                if b.local { "yes" } else { "no" }.into(),
            ]);
        }
        table
    }
}

impl View for Flow {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.protocol, self.client, self.frontend)
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec![
            "PROTO", "CLIENT", "FRONTEND", "BACKEND", "STATE", ">AGE", ">EXPIRES", "ORIGIN",
        ];
        if context.wide {
            columns.extend(["SERVICE", ">NETWORK", ">SOURCE PORT"]);
        }
        let mut table = Table::new(&columns);
        for f in items {
            table.row([
                f.protocol.to_string(),
                f.client.to_string(),
                f.frontend.to_string(),
                f.backend.map_or_else(|| "gone".into(), |b| b.to_string()),
                f.state.clone(),
                duration(f.age_seconds),
                duration(f.expires_seconds),
                f.origin.clone().unwrap_or_else(|| "direct".into()),
                f.service.clone(),
                f.network_id.to_string(),
                dash(f.translated_port),
            ]);
        }
        table
    }
}

impl View for MapStatus {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec!["NAME", "TYPE", ">ENTRIES", ">MAX", ">FILL", ">MEMORY"];
        if context.wide {
            columns.extend([">ID", ">KEY", ">VALUE"]);
        }
        let mut table = Table::new(&columns);
        for m in items {
            table.row([
                m.name.clone(),
                m.kind.clone(),
                m.entries.to_string(),
                m.max_entries.to_string(),
                format!("{}%", percent(m)),
                bytes(m.memory_bytes),
                m.id.to_string(),
                bytes(m.key_size.into()),
                bytes(m.value_size.into()),
            ]);
        }
        table
    }
}

/// Fill in whole percent, rounded up, so that only an empty map shows 0.
pub(crate) fn percent(map: &MapStatus) -> u64 {
    (map.entries * 100).div_ceil(u64::from(map.max_entries.max(1)))
}

impl View for MapEntry {
    fn name(&self) -> String {
        fields(&self.key)
    }

    fn table(items: &[Self], _context: &Context) -> Table {
        let mut table = Table::new(&["KEY", "VALUE"]);
        for entry in items {
            table.row([fields(&entry.key), fields(&entry.value)]);
        }
        table
    }
}

/// An object as `name=value name=value`.
fn fields(value: &serde_json::Value) -> String {
    let plain = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .map(|(name, v)| format!("{name}={}", plain(v)))
            .collect::<Vec<_>>()
            .join(" "),
        other => plain(other),
    }
}

impl View for Program {
    fn name(&self) -> String {
        self.pin.clone()
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec!["PIN", "NAME", ">ID", "HOOK", "INTERFACE", ">RUNS", ">NS/RUN"];
        if context.wide {
            columns.extend(["TAG", "NOTE"]);
        }
        let mut table = Table::new(&columns);
        for p in items {
            let interface = match (&p.interface, p.ifindex) {
                (Some(name), _) => name.clone(),
                (None, Some(0)) => "gone".into(),
                (None, Some(ifindex)) => format!("index {ifindex}"),
                (None, None) => "-".into(),
            };
            let per_run = p.run_count.zip(p.run_time_ns).map(|(n, ns)| ns / n.max(1));
            table.row([
                p.pin.clone(),
                dash(p.name.as_ref()),
                dash(p.id),
                dash(p.hook.as_ref()),
                interface,
                p.run_count.map_or_else(|| "-".into(), count),
                dash(per_run),
                dash(p.tag.as_ref()),
                dash(p.note.as_ref()),
            ]);
        }
        table
    }
}

impl View for Plan {
    fn name(&self) -> String {
        self.steps.to_string()
    }

    fn table(_items: &[Self], _context: &Context) -> Table {
        Table::new(&[])
    }

    fn page(items: &[Self], _context: &Context) -> Option<String> {
        let mut text: String = items
            .iter()
            .map(|plan| plan.text.trim_end().to_owned() + "\n")
            .collect();
        if items.iter().all(|plan| plan.steps == 0) && text.trim().is_empty() {
            text = "Nothing to do: the maps hold the desired state.\n".into();
        }
        Some(text)
    }
}

impl View for DnsAnswer {
    fn name(&self) -> String {
        self.records
            .iter()
            .map(|r| r.data.clone())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn table(_items: &[Self], _context: &Context) -> Table {
        Table::new(&[])
    }

    fn page(items: &[Self], _context: &Context) -> Option<String> {
        let mut text = String::new();
        for answer in items {
            let from = answer
                .network
                .as_ref()
                .map_or_else(|| "no known network".into(), |n| format!("network {n}"));
            let outcome = if answer.rcode.is_empty() {
                &answer.source
            } else {
                &answer.rcode
            };
            let _ = writeln!(text, "{} asked from {from}: {outcome}", answer.name);
            if !answer.records.is_empty() {
                let mut table = Table::new(&["NAME", "TYPE", ">TTL", "DATA"]);
                for r in &answer.records {
                    table.row([r.name.clone(), r.kind.clone(), r.ttl.to_string(), r.data.clone()]);
                }
                text += &table.render(true);
            }
            for step in &answer.why {
                let _ = writeln!(text, "  {step}");
            }
        }
        Some(text)
    }
}

impl View for Check {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn table(_items: &[Self], _context: &Context) -> Table {
        Table::new(&[])
    }

    fn page(items: &[Self], _context: &Context) -> Option<String> {
        let width = items.iter().map(|c| c.id.len()).max().unwrap_or(0);
        let mut text = String::new();
        for check in items {
            let level = level(check.level);
            let _ = writeln!(text, "{level}  {:<width$}  {}", check.id, check.finding);
            if let Some(fix) = &check.fix {
                let _ = writeln!(text, "        -> {fix}");
            }
        }
        let number = |level| items.iter().filter(|c| c.level == level).count();
        let (passed, warned, failed) = (number(Level::Pass), number(Level::Warn), number(Level::Fail));
        let s = if warned == 1 { "" } else { "s" };
        let _ = writeln!(text, "{passed} passed, {warned} warning{s}, {failed} failed");
        Some(text)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Pass => "PASS",
        Level::Warn => "WARN",
        Level::Fail => "FAIL",
    }
}

fn title(service: &Service) -> String {
    match (&service.name, service.ids.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(id)) => format!("id {id}"),
        (None, None) => "-".into(),
    }
}

fn task(backend: &Backend) -> String {
    match (&backend.task, backend.id) {
        (Some(task), _) => task.clone(),
        (None, Some(id)) => format!("id {id}"),
        (None, None) => "-".into(),
    }
}

fn address(backend: &Backend) -> String {
    match (backend.address, backend.port) {
        (Some(ip), Some(port)) => std::net::SocketAddr::new(ip, port).to_string(),
        (ip, _) => dash(ip),
    }
}

fn state(backend: &Backend) -> &'static str {
    match backend.state {
        Some(BackendState::Ready) => "ready",
        Some(BackendState::Draining) => "draining",
        None => "gone",
    }
}

fn mode(mode: EndpointMode) -> &'static str {
    match mode {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
    }
}

/// As docker writes it: `*:8080->80/tcp`, and `80->8080/tcp` for a VIP's port.
fn port(port: &Port) -> String {
    let target = dash(port.target);
    let inside = match port.port {
        Some(p) if Some(p) != port.target && port.target.is_some() => format!("{p}->{target}"),
        Some(p) => p.to_string(),
        None => target.clone(),
    };
    match (port.published, port.port) {
        (None, _) => format!("{inside}/{}", port.protocol),
        (Some(published), None) => format!("*:{published}->{target}/{}", port.protocol),
        (Some(published), Some(_)) => format!("*:{published}->{target}/{p},{inside}/{p}", p = port.protocol),
    }
}

fn list(items: impl Iterator<Item = impl ToString>) -> String {
    let all: Vec<_> = items.map(|i| i.to_string()).collect();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

#[cfg(test)]
mod tests;
