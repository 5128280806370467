//! The agent's configuration: what can be set, where a value came from, and what is wrong with it.
//!
//! Precedence: `--set` on the command line, then environment (`LB_SECTION__KEY`), then the file, then defaults.

use serde::{Deserialize, Serialize};

mod check;
pub mod document;
mod load;
mod print;
mod sections;
pub(crate) mod settings;

pub use load::{ConfigError, Loaded, Origin, load, load_from};
pub use print::{default_file, effective};
pub use sections::{
    Admin, Datapath, Dns, Log, LogFormat, Metrics, Node, OnExit, Paths, Provider, ProviderKind, Stream, Timeouts,
    Workload, XdpMode,
};
pub use settings::{FileMode, InterfaceGlob};

/// Where the configuration file is unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "/etc/lb/agent.toml";

/// The whole configuration. What [`load`] returns is checked, and its empty names and paths are filled in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This machine.
    pub node: Node,
    /// Directories.
    pub paths: Paths,
    /// Where cluster state comes from.
    pub provider: Provider,
    /// The programs in the kernel.
    pub datapath: Datapath,
    /// Interfaces that lead to workloads.
    pub workload: Vec<Workload>,
    /// Cluster state between agents.
    pub stream: Stream,
    /// DNS.
    pub dns: Dns,
    /// Prometheus metrics and health.
    pub metrics: Metrics,
    /// The Unix socket.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
}

impl Config {
    /// Network of the workloads behind an interface of this node, if it leads to any. The first match decides.
    pub fn workload_network(&self, interface: &str) -> Option<&str> {
        self.workload
            .iter()
            .find(|workload| workload.interface.matches(interface))
            .map(|w| w.network.as_str())
    }
}

#[cfg(test)]
mod tests;
