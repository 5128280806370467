//! What the checks look at, collected from `/proc`, `/sys`, the agent, the maps and, in a Swarm, the container engine.

pub(super) mod swarm;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use lb_common::abi::{INTERFACE_WORKLOAD, InterfaceKey, Interfaces, SettingsTable};
use lb_userspace::admin::api::{Code, InterfaceStatus, List, MapStatus, Status};
use lb_userspace::admin::report;
use lb_userspace::config::{self, Config, ConfigError, ProviderKind};
use lb_userspace::net::{Link, Netlink};
use lb_userspace::plan::store::ReadTables as _;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::args::Common;
use crate::source;
use swarm::Swarm;

/// The pinned maps.
pub(super) enum Maps {
    Open(Vec<MapStatus>),
    Missing(String),
    OtherSchema(String),
    Denied(String),
}

pub(super) struct Facts {
    pub(super) release: String,
    pub(super) kernel: Option<(u32, u32)>,
    pub(super) btf: bool,
    pub(super) jit: Option<u32>,
    pub(super) bpffs: String,
    /// None: the directory and all above it cannot be examined.
    pub(super) bpffs_mounted: Option<bool>,
    pub(super) agent: Result<Status, String>,
    /// The agent's effective ones.
    pub(super) capabilities: Option<u64>,
    /// The agent's process id, if its network namespace is not ours.
    pub(super) other_netns: Option<u32>,
    pub(super) maps: Maps,
    pub(super) interfaces: Vec<InterfaceStatus>,
    pub(super) forward_v4: Option<bool>,
    pub(super) forward_v6: Option<bool>,
    /// Of node interfaces; the larger of `all` and its own is in force.
    pub(super) rp_filter: Vec<(String, u32)>,
    pub(super) tunnel_mtu: Option<u16>,
    /// Of node interfaces.
    pub(super) mtus: Vec<(String, u32)>,
    /// The agent's configuration is there and cannot be used.
    pub(super) config: Result<(), String>,
    /// If cluster state comes from a Swarm.
    pub(super) swarm: Option<Swarm>,
}

impl Facts {
    pub(super) fn collect(common: &Common, config: &Path) -> Self {
        let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
        let agent: Result<List<Status>, _> = source::agent(common, "/v1/status", &[]);
        let agent = agent
            .map_err(|e| e.message)
            .and_then(|mut list| list.items.pop().ok_or("no status".into()));
        let pid = agent.as_ref().ok().and_then(|s| s.agent.as_ref()).map(|a| a.pid);
        let mut facts = Self {
            kernel: version(&release),
            release,
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            jit: number("/proc/sys/net/core/bpf_jit_enable"),
            bpffs: common.bpffs.display().to_string(),
            bpffs_mounted: mounted(&common.bpffs),
            capabilities: pid.and_then(capabilities),
            other_netns: pid.filter(|pid| other_netns(*pid)),
            agent,
            maps: Maps::Missing(String::new()),
            interfaces: Vec::new(),
            forward_v4: number("/proc/sys/net/ipv4/ip_forward").map(|v| v != 0),
            forward_v6: number("/proc/sys/net/ipv6/conf/all/forwarding").map(|v| v != 0),
            rp_filter: Vec::new(),
            tunnel_mtu: None,
            mtus: Vec::new(),
            config: Ok(()),
            swarm: None,
        };
        facts.read_maps(common);
        if let Ok(status) = &facts.agent {
            facts.interfaces = status.datapath.interfaces.clone();
        }
        facts.read_interfaces();
        match config::load(config, &[]) {
            Ok(loaded) => facts.read_swarm(common, &loaded.config),
            // The agent may run with another one, or not be set up yet.
            Err(ConfigError::Read { error, .. }) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => facts.config = Err(error.to_string()),
        }
        facts
    }

    fn read_swarm(&mut self, common: &Common, config: &Config) {
        if config.provider.kind != ProviderKind::Docker {
            return;
        }
        let nodes = source::maps(common).map(|view| swarm::tunnel_addresses(&view));
        let interfaces = self.interfaces.iter().filter(|i| i.role != "workload");
        let interfaces: Vec<&str> = interfaces.map(|i| i.name.as_str()).collect();
        self.swarm = Some(Swarm::collect(config, &nodes.unwrap_or_default(), &interfaces));
    }

    fn read_maps(&mut self, common: &Common) {
        let view = match source::maps(common) {
            Ok(view) => view,
            Err(e) => {
                self.maps = match e.code {
                    Code::Version => Maps::OtherSchema(e.message),
                    Code::PermissionDenied => Maps::Denied(e.message),
                    _ => Maps::Missing(e.message),
                };
                return;
            }
        };
        self.maps = match report::maps(&view) {
            Ok(maps) => Maps::Open(maps),
            Err(e) => Maps::Denied(e.message),
        };
        self.tunnel_mtu = view.get::<SettingsTable>(&0).ok().flatten().map(|s| s.tunnel_mtu);
        self.interfaces = super::attached(&view.programs().unwrap_or_default());
        let roles = view.entries::<Interfaces>().unwrap_or_default();
        for interface in &mut self.interfaces {
            let workload = roles
                .get(&InterfaceKey::node(interface.ifindex))
                .is_some_and(|r| r.flags & INTERFACE_WORKLOAD != 0);
            interface.role = if workload { "workload" } else { "node" }.into();
        }
    }

    fn read_interfaces(&mut self) {
        let all = number("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or(0);
        for interface in self.interfaces.iter().filter(|i| i.role != "workload") {
            let name = &interface.name;
            if let Some(own) = number(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")) {
                self.rp_filter.push((name.clone(), own.max(all)));
            }
        }
        // Not from sysfs, which shows the namespace that it was mounted in.
        for link in links() {
            if self
                .interfaces
                .iter()
                .any(|i| i.role != "workload" && i.name == link.name)
            {
                self.mtus.push((link.name, link.mtu));
            }
        }
    }
}

/// The interfaces of this network namespace; none if the kernel does not say.
fn links() -> Vec<Link> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else {
        return Vec::new();
    };
    runtime
        .block_on(async { Netlink::connect()?.links().await })
        .unwrap_or_default()
}

fn text(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number(path: &str) -> Option<u32> {
    text(path)?.parse().ok()
}

/// `(6, 18)` of `6.18.1-generic`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether `path`, or what exists above it, is a bpffs.
fn mounted(path: &Path) -> Option<bool> {
    let existing = path.ancestors().find(|p| p.exists())?;
    Some(statfs(existing).ok()?.filesystem_type() == BPF_FS_MAGIC)
}

fn capabilities(pid: u32) -> Option<u64> {
    let status = text(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn other_netns(pid: u32) -> bool {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let agents = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    own.is_some() && agents.is_some() && own != agents
}
