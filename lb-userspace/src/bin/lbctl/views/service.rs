//! Services.

use std::fmt::Write as _;

use lb_userspace::admin::api::{Port, Service};
use lb_userspace::model::snapshot::EndpointMode;

use super::{list, tasks};
use crate::output::{Context, View, bytes, dash};
use crate::table::Table;

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

fn title(service: &Service) -> String {
    match (&service.name, service.ids.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(id)) => format!("id {id}"),
        (None, None) => "-".into(),
    }
}

fn mode(mode: EndpointMode) -> &'static str {
    match mode {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
    }
}

/// As docker writes it: `*:8080->80/tcp`, and `80->8080/tcp` for a VIP's port.
pub(super) fn port(port: &Port) -> String {
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
