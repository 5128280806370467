//! `lbctl doctor`: what could keep traffic from flowing, and how to mend it. Pure checks over [`Facts`].

mod facts;
mod swarm;

use std::path::Path;

use lb_common::abi::NAMESPACE_NODE;
use lb_common::abi::SCHEMA_VERSION;
use lb_userspace::admin::api::{Check, HookStatus, InterfaceStatus, Level, List, MapStatus, Origin, Program};
use lb_userspace::datapath::view::ProgramInfo;

use crate::args::Common;
use crate::views::percent;
use facts::{Facts, Maps};

/// Oldest kernel with all that the programs need (`bpf_redirect_peer`).
const KERNEL_NEEDED: (u32, u32) = (5, 10);
/// First kernel with tcx, without which programs are attached as clsact filters.
const KERNEL_TCX: (u32, u32) = (6, 6);
/// Fill in percent from which a map deserves attention.
const FILL_WARN: u64 = 80;
const FILL_FAIL: u64 = 98;

/// Least that an IPv6 path must carry (RFC 8200 5).
const SMALLEST_TUNNEL_MTU: u16 = 1280;

/// Capabilities that the agent needs: name and bit.
const CAPABILITIES: &[(&str, u32)] = &[("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
const CAP_SYS_ADMIN: u32 = 21;

/// Collects the facts and judges them.
pub(crate) fn examine(common: &Common, config: &Path) -> List<Check> {
    let facts = Facts::collect(common, config);
    let source = if facts.agent.is_ok() {
        Origin::Agent
    } else {
        Origin::Maps
    };
    List::new(source, judge(&facts))
}

/// A program as the API has it.
pub(crate) fn program(info: ProgramInfo) -> Program {
    Program {
        pin: info.pin,
        name: info.name,
        id: info.id,
        tag: info.tag,
        hook: info.hook,
        ifindex: info.ifindex,
        interface: info.interface,
        run_count: info.run_count,
        run_time_ns: info.run_time_ns,
        note: info.note,
    }
}

/// The interfaces of the node's own namespace that pinned links are attached to. Native or generic is not told by a link.
pub(crate) fn attached(programs: &[ProgramInfo]) -> Vec<InterfaceStatus> {
    let mut all = Vec::<InterfaceStatus>::new();
    for p in programs.iter().filter(|p| p.namespace == NAMESPACE_NODE) {
        let (Some(hook), Some(ifindex)) = (&p.hook, p.ifindex.filter(|i| *i != 0)) else {
            continue;
        };
        let (hook, mode) = match hook.strip_prefix("tcx_") {
            Some(direction) => (format!("tc_{direction}"), "tcx"),
            None => (hook.clone(), "attached"),
        };
        let status = HookStatus {
            hook,
            mode: mode.into(),
            why: None,
        };
        match all.iter_mut().find(|i| i.ifindex == ifindex) {
            Some(interface) => interface.hooks.push(status),
            None => {
                let name = p.interface.clone().unwrap_or_else(|| format!("index {ifindex}"));
                all.push(InterfaceStatus {
                    name,
                    namespace: String::new(),
                    ifindex,
                    role: String::new(),
                    hooks: vec![status],
                });
            }
        }
    }
    all
}

struct Report(Vec<Check>);

impl Report {
    fn add(&mut self, id: &str, level: Level, finding: impl Into<String>, fix: Option<String>) {
        self.0.push(Check {
            id: id.into(),
            level,
            finding: finding.into(),
            fix,
        });
    }

    fn pass(&mut self, id: &str, finding: impl Into<String>) {
        self.add(id, Level::Pass, finding, None);
    }

    fn warn(&mut self, id: &str, finding: impl Into<String>, fix: impl Into<String>) {
        self.add(id, Level::Warn, finding, Some(fix.into()));
    }

    fn fail(&mut self, id: &str, finding: impl Into<String>, fix: impl Into<String>) {
        self.add(id, Level::Fail, finding, Some(fix.into()));
    }
}

/// Every check, in the order in which a cause comes before what it causes.
fn judge(facts: &Facts) -> Vec<Check> {
    let mut report = Report(Vec::new());
    kernel(facts, &mut report);
    if let Err(why) = &facts.config {
        report.fail(
            "config",
            why,
            "`lb-agent config check` shows where; --config FILE names another file",
        );
    }
    agent(facts, &mut report);
    match &facts.maps {
        Maps::Open(maps) => {
            report.pass("schema", format!("maps of schema v{SCHEMA_VERSION}"));
            fill(maps, &mut report);
        }
        Maps::Missing(why) => report.fail("schema", why, "start lb-agent; other directory: --bpffs DIR"),
        Maps::OtherSchema(why) => report.fail("schema", why, "install the lbctl and lb-agent of one version"),
        Maps::Denied(why) => report.warn("schema", why, "run as root, or join the group that owns the pins"),
    }
    attachment(facts, &mut report);
    sysctls(facts, &mut report);
    tunnel(facts, &mut report);
    if let Some(swarm) = &facts.swarm {
        swarm::judge(swarm, facts, &mut report);
    }
    report.0
}

fn kernel(facts: &Facts, report: &mut Report) {
    let release = &facts.release;
    match facts.kernel {
        None => report.warn(
            "kernel",
            format!("cannot read the version from {release:?}"),
            "check /proc",
        ),
        Some(v) if v < KERNEL_NEEDED => {
            let (major, minor) = KERNEL_NEEDED;
            report.fail(
                "kernel",
                format!("{release} is too old"),
                format!("boot {major}.{minor} or later"),
            );
        }
        Some(v) if v < KERNEL_TCX => {
            let fix = "tc programs are attached as clsact filters; 6.6 or later has tcx, which others cannot detach";
            report.warn("kernel", format!("{release} has no tcx"), fix);
        }
        Some(_) => report.pass("kernel", release),
    }
    if facts.btf {
        report.pass("btf", "/sys/kernel/btf/vmlinux present");
    } else {
        report.fail(
            "btf",
            "no /sys/kernel/btf/vmlinux",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
        );
    }
    match facts.jit {
        Some(0) => report.warn("jit", "the BPF JIT is off", "sysctl -w net.core.bpf_jit_enable=1"),
        Some(_) => report.pass("jit", "on"),
        // Not visible in other network namespaces.
        None => {}
    }
    let bpffs = &facts.bpffs;
    match facts.bpffs_mounted {
        Some(true) => report.pass("bpffs", format!("{bpffs} is in a mounted bpffs")),
        Some(false) => report.fail(
            "bpffs",
            format!("{bpffs} is in no bpffs"),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
        None => report.fail(
            "bpffs",
            format!("{bpffs} cannot be examined"),
            "mount -t bpf bpf /sys/fs/bpf, start lb-agent, or name the directory with --bpffs",
        ),
    }
}

fn agent(facts: &Facts, report: &mut Report) {
    let status = match &facts.agent {
        Err(why) => {
            let fix = "systemctl start lb-agent (traffic flows on meanwhile, but nothing follows the cluster)";
            report.fail("agent", why, fix);
            return;
        }
        Ok(status) => status,
    };
    if status.ready {
        report.pass("agent", "answers and is ready");
    } else {
        report.fail(
            "agent",
            "answers but is not ready",
            "see PROVIDER in `lbctl status` and the agent's log",
        );
    }
    if let Some(error) = status.provider.as_ref().and_then(|p| p.error.as_ref()) {
        report.fail(
            "provider",
            error.to_string(),
            "mend the input; the last good state stays in force",
        );
    } else if let Some(p) = &status.provider {
        if p.applied == p.generation {
            report.pass("provider", format!("generation {} is in force", p.applied));
        } else {
            let finding = format!("generation {} is seen, {} in force", p.generation, p.applied);
            report.warn(
                "provider",
                finding,
                "`lbctl plan` shows what is left to do; if it lasts, see the log",
            );
        }
    }
    if let Some(has) = facts.capabilities {
        let lacks = |bit: u32| has & (1 << bit) == 0;
        // The old all-embracing one stands for the other two.
        let missing: Vec<_> = CAPABILITIES
            .iter()
            .filter(|(_, bit)| lacks(*bit) && (*bit == 12 || lacks(CAP_SYS_ADMIN)))
            .map(|(name, _)| *name)
            .collect();
        if missing.is_empty() {
            report.pass("capabilities", "the agent has what it needs");
        } else {
            let finding = format!("the agent lacks {}", missing.join(", "));
            report.fail(
                "capabilities",
                finding,
                "grant them in the unit's AmbientCapabilities or the container's cap_add",
            );
        }
    }
    if let Some(pid) = facts.other_netns {
        report.warn(
            "netns",
            "the agent runs in another network namespace; what follows about interfaces and sysctls is about this one",
            format!("nsenter --net=/proc/{pid}/ns/net lbctl doctor"),
        );
    }
}

fn fill(maps: &[MapStatus], report: &mut Report) {
    // Arrays have all their elements from the start; only their used ones say something.
    let fullest = maps
        .iter()
        .filter(|m| m.kind == "hash" || m.name == "backends")
        .max_by_key(|m| percent(m));
    let Some(map) = fullest else { return };
    let finding = format!(
        "fullest map: {} {}/{} ({}%)",
        map.name,
        map.entries,
        map.max_entries,
        percent(map)
    );
    let fix = match map.name.as_str() {
        "flows4" | "flows6" | "replies4" | "replies6" | "overflow4" | "overflow6" => {
            "raise the flow capacity in the agent's configuration, or shorten its timeouts; `lbctl conn ls` shows who"
        }
        _ => "this cluster is larger than the tables; split it, or build with larger capacities",
    };
    match percent(map) {
        FILL_FAIL.. => report.fail("map-fill", finding, fix),
        FILL_WARN.. => report.warn("map-fill", finding, fix),
        _ => report.pass("map-fill", finding),
    }
}

fn attachment(facts: &Facts, report: &mut Report) {
    let nodes: Vec<_> = facts.interfaces.iter().filter(|i| i.role != "workload").collect();
    let unseen = facts.agent.is_err() && facts.kernel.is_some_and(|v| v < KERNEL_TCX);
    if nodes.is_empty() && unseen {
        let fix = "`tc filter show dev INTERFACE ingress` lists them";
        report.warn(
            "programs",
            "clsact filters have no pins: without the agent they are not known",
            fix,
        );
    } else if nodes.is_empty() {
        let fix = "name the node's interfaces in the agent's configuration; see DATAPATH in `lbctl status`";
        report.fail("programs", "no program is attached to any node interface", fix);
    }
    for interface in &facts.interfaces {
        for hook in &interface.hooks {
            let place = format!("{} {}", interface.name, hook.hook);
            let why = hook.why.as_ref().map_or_else(String::new, |w| format!(": {w}"));
            match hook.mode.as_str() {
                "off" if hook.hook == "xdp" => {}
                "off" => report.fail(
                    "programs",
                    format!("{place} is not attached{why}"),
                    "see the agent's log",
                ),
                "generic" => report.warn(
                    "xdp-mode",
                    format!("{place} runs generic XDP{why}"),
                    "slower than tc alone; set the interface's XDP mode to \"off\", or use a driver with native XDP",
                ),
                _ => {}
            }
        }
    }
    if !nodes.is_empty() && !report.0.iter().any(|c| c.id == "programs") {
        let names: Vec<_> = facts.interfaces.iter().map(|i| i.name.as_str()).collect();
        report.pass("programs", format!("attached to {}", names.join(", ")));
    }
}

fn sysctls(facts: &Facts, report: &mut Report) {
    match facts.forward_v4 {
        Some(true) => report.pass("ip_forward", "net.ipv4.ip_forward = 1"),
        Some(false) => report.fail(
            "ip_forward",
            "net.ipv4.ip_forward = 0: the kernel gives no route for forwarded packets",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        None => report.warn("ip_forward", "cannot read net.ipv4.ip_forward", "check /proc/sys"),
    }
    if facts.forward_v6 == Some(false) {
        report.warn(
            "ip6_forward",
            "net.ipv6.conf.all.forwarding = 0: IPv6 backends cannot be reached",
            "sysctl -w net.ipv6.conf.all.forwarding=1 (only needed with IPv6)",
        );
    }
    for (interface, value) in &facts.rp_filter {
        match value {
            1 => report.warn(
                "rp_filter",
                format!("{interface} filters strictly by reverse path, which drops clients that are routed elsewhere"),
                format!("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{interface}.rp_filter=2"),
            ),
            _ => report.pass("rp_filter", format!("{interface}: {value}")),
        }
    }
}

fn tunnel(facts: &Facts, report: &mut Report) {
    let Some(mtu) = facts.tunnel_mtu.filter(|mtu| *mtu != 0) else {
        return;
    };
    let narrowest = facts.mtus.iter().min_by_key(|(_, mtu)| *mtu);
    match narrowest {
        Some((name, link)) if u32::from(mtu) > *link => report.fail(
            "tunnel-mtu",
            format!("the tunnel assumes {mtu} bytes, but {name} carries {link}"),
            format!("set the tunnel's MTU in the agent's configuration to {link} or less"),
        ),
        _ if mtu < SMALLEST_TUNNEL_MTU => report.warn(
            "tunnel-mtu",
            format!("{mtu} bytes between nodes leave less than IPv6 needs"),
            "raise the tunnel's MTU in the agent's configuration",
        ),
        _ => report.pass("tunnel-mtu", format!("{mtu} bytes between nodes")),
    }
}

#[cfg(test)]
mod tests;
