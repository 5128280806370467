//! The node on one screen.

use std::fmt::Write as _;
use std::time::SystemTime;

use lb_userspace::admin::api::{
    AgentStatus, InterfaceStatus, MapStatus, Origin, ProviderStatus, Status, SwarmStatus, Traffic,
};
use lb_userspace::stream::{Role, Source};

use super::percent;
use crate::output::{Context, View, bytes, count, duration};
use crate::table::Table;

/// Maps that fill with use; the others are shown with `-o wide`.
const SHOWN: &[&str] = &["frontends", "services", "backends", "flows4", "flows6"];

impl View for Status {
    fn name(&self) -> String {
        self.agent.as_ref().map_or_else(String::new, |a| a.node.clone())
    }

    fn table(_items: &[Self], _context: &Context) -> Table {
        Table::new(&[])
    }

    fn page(items: &[Self], context: &Context) -> Option<String> {
        Some(items.iter().map(|status| page(status, context)).collect())
    }
}

fn page(status: &Status, context: &Context) -> String {
    let mut sections = vec![("AGENT", vec![agent(status, context)])];
    if let Some(p) = &status.provider {
        sections.push(("PROVIDER", provider(p, context)));
    }
    if let Some(s) = &status.swarm {
        sections.push(("SWARM", swarm(s)));
    }
    sections.push(("DATAPATH", datapath(status, context)));
    if status.pressed {
        sections.push(("PRESSURE", pressure(&status.maps)));
    }
    sections.push(("MAPS", maps(&status.maps, context)));
    sections.push(("TRAFFIC", traffic(&status.traffic, context)));
    if let Some(dns) = &status.dns {
        let listen: Vec<_> = dns.listen.iter().map(ToString::to_string).collect();
        let listen = if listen.is_empty() {
            "not listening".into()
        } else {
            listen.join(" ")
        };
        sections.push((
            "DNS",
            vec![format!(
                "{listen}   {} names in {} networks   {} queries, {} servfail",
                dns.names,
                dns.networks,
                count(dns.queries),
                count(dns.servfail)
            )],
        ));
    }
    if !status.refused.is_empty() {
        let lines = status.refused.iter().map(|r| format!("{}: {}", r.network, r.reason));
        sections.push(("REFUSED", lines.collect()));
    }
    let mut text = String::new();
    for (title, lines) in sections {
        for (i, line) in lines.iter().enumerate() {
            let _ = writeln!(text, "{:<11}{line}", if i == 0 { title } else { "" });
        }
    }
    text
}

fn since(then: SystemTime, context: &Context) -> String {
    duration(context.now.duration_since(then).unwrap_or_default().as_secs_f64())
}

fn agent(status: &Status, context: &Context) -> String {
    let Some(AgentStatus {
        pid,
        version,
        node,
        addresses,
        started,
    }) = &status.agent
    else {
        return match context.source {
            Origin::Maps => "not asked; what follows was read from the pinned maps".into(),
            Origin::Agent => "unknown".into(),
        };
    };
    let state = if status.ready {
        "running"
    } else {
        "starting (not ready)"
    };
    let addresses: String = addresses.iter().map(|a| format!(" {a}")).collect();
    format!(
        "{state} (pid {pid}, {})   version {version}   node {node}{addresses}",
        since(*started, context)
    )
}

fn swarm(s: &SwarmStatus) -> Vec<String> {
    let stream = &s.stream;
    let source = match &stream.source {
        Source::Nothing if s.role == "manager" => "this node's engine".into(),
        Source::Nothing => "none yet".into(),
        Source::Manager { address, node } => format!("manager {} at {address}", short(node)),
        Source::Disk => "this node's disk: no manager's agent has answered since the start".into(),
        Source::Engine => "this node's engine".into(),
    };
    let age = stream
        .age_ms
        .map_or_else(String::new, |ms| format!("   age {}", duration(ms as f64 / 1000.0)));
    let mut lines = vec![format!(
        "{} {}   state from {source}{age}   {} containers",
        s.role,
        short(&s.node),
        s.containers
    )];
    if stream.role == Role::Manager {
        lines.push(format!(
            "streams to {} nodes, {} reports",
            stream.nodes.len(),
            stream.reports
        ));
    }
    for manager in &stream.managers {
        let state = match (manager.connected, &manager.error) {
            (true, _) if manager.current => "connected, in force".into(),
            (true, _) => "connected".into(),
            (false, Some(error)) => format!("not connected: {error}"),
            (false, None) => "not connected".into(),
        };
        lines.push(format!("manager {}: {state}", manager.address));
    }
    if let Some(drift) = &s.drift {
        let listed = |lines: &[String]| match lines {
            [] => "none".into(),
            [first] => first.clone(),
            [first, more @ ..] => format!("{first} and {} more", more.len()),
        };
        lines.push(if drift.is_none() {
            "no drift: this node's engine knows the same tasks and VIPs".into()
        } else {
            format!(
                "drift: the engine alone knows {}; the state alone has {}",
                listed(&drift.missing),
                listed(&drift.surplus)
            )
        });
    }
    lines.extend([&s.reason, &s.error, &stream.error].into_iter().flatten().cloned());
    lines
}

/// As Docker shortens ids.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn provider(p: &ProviderStatus, context: &Context) -> Vec<String> {
    let connected = if p.connected { "connected" } else { "failing" };
    let sync = match (p.last_sync, p.last_sync_ms) {
        (Some(last), Some(ms)) => format!("last sync {} ago ({ms:.1}ms)", since(last, context)),
        (Some(last), None) => format!("last sync {} ago", since(last, context)),
        (None, _) => "no sync yet".into(),
    };
    let place = if p.location.is_empty() {
        String::new()
    } else {
        format!(" {}", p.location)
    };
    let mut lines = vec![format!(
        "{}{place}  {connected}   generation {} applied {}   {sync}",
        p.kind, p.generation, p.applied
    )];
    if let Some(error) = &p.error {
        lines.push(format!("error: {error}"));
        lines.push("the last good state stays in force".into());
    }
    lines.extend(p.sync_error.iter().map(|e| format!("sync error: {e}")));
    lines
}

fn datapath(status: &Status, context: &Context) -> Vec<String> {
    let interfaces = &status.datapath.interfaces;
    let mut lines = vec![format!("schema v{}", status.datapath.schema)];
    if interfaces.is_empty() {
        lines[0] += "   no interface attached";
    }
    let place = |i: &InterfaceStatus| match i.namespace.as_str() {
        "" => i.name.clone(),
        namespace => format!("{namespace}/{}", i.name),
    };
    let width = interfaces.iter().map(|i| place(i).len()).max().unwrap_or(0);
    for interface in interfaces {
        let InterfaceStatus { role, hooks, .. } = interface;
        let name = place(interface);
        let modes: Vec<_> = hooks.iter().map(|h| format!("{}:{}", h.hook, h.mode)).collect();
        lines.push(
            format!("{name:<width$}  {role:<8}  {}", modes.join(" "))
                .trim_end()
                .into(),
        );
        // A choice that costs speed, and a fault, are always explained; the rest on demand.
        let explained = hooks
            .iter()
            .filter(|h| context.wide || h.hook == "xdp" || h.mode == "off");
        lines.extend(explained.filter_map(|h| Some(format!("{:<width$}    {}: {}", "", h.hook, h.why.as_ref()?))));
    }
    lines
}

/// A flow table was full a moment ago.
fn pressure(maps: &[MapStatus]) -> Vec<String> {
    let fill = maps.iter().filter(|m| m.name == "overflow4" || m.name == "overflow6");
    let fill: Vec<_> = fill
        .map(|m| format!("{} {}/{}", m.name, m.entries, m.max_entries))
        .collect();
    vec![format!("a flow table was full: new flows go to {}", fill.join(", "))]
}

fn maps(maps: &[MapStatus], context: &Context) -> Vec<String> {
    let shown = maps.iter().filter(|m| context.wide || SHOWN.contains(&m.name.as_str()));
    let fill: Vec<_> = shown
        .map(|m| format!("{} {}/{} ({}%)", m.name, m.entries, m.max_entries, percent(m)))
        .collect();
    let memory: u64 = maps.iter().map(|m| m.memory_bytes).sum();
    if context.wide {
        return fill.into_iter().chain([format!("memory {}", bytes(memory))]).collect();
    }
    vec![format!("{}   memory {}", fill.join("   "), bytes(memory))]
}

fn traffic(traffic: &[Traffic], context: &Context) -> Vec<String> {
    let mut lines = Vec::new();
    for (verdict, title) in [
        ("forward", "forwarded"),
        ("answer", "answered"),
        ("pass", "passed"),
        ("drop", "dropped"),
    ] {
        let of = || traffic.iter().filter(|t| t.verdict == verdict && t.packets > 0);
        let total: u64 = of().map(|t| t.packets).sum();
        let mut reasons: Vec<_> = of().collect();
        reasons.sort_by_key(|t| std::cmp::Reverse(t.packets));
        let reasons: Vec<_> = reasons
            .iter()
            .map(|t| format!("{} {}", t.reason, count(t.packets)))
            .collect();
        // Drops are always told apart; the rest on demand.
        let detail = if reasons.is_empty() || !(context.wide || verdict == "drop") {
            String::new()
        } else {
            format!(" ({})", reasons.join(", "))
        };
        lines.push(format!("{title} {}{detail}", count(total)));
    }
    if context.wide {
        lines
    } else {
        vec![format!("packets: {}", lines.join("   "))]
    }
}
