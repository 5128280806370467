//! `lb-agent config`: what would be in force, without running.

use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use lb_userspace::config::{self, Config, Loaded, ProviderKind};
use lb_userspace::{provider, stream};

use crate::args::{ConfigCommand, Source};

pub(crate) fn run(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check { source, cluster } => check(source, *cluster),
        ConfigCommand::Default => print(&config::default_file()),
        ConfigCommand::Show { source, origin } => print(&config::effective(&load(source)?, *origin)),
    }
}

pub(crate) fn load(source: &Source) -> Result<Loaded> {
    Ok(config::load(&source.config, &source.set)?)
}

fn check(source: &Source, with_cluster: bool) -> Result<()> {
    let config = load(source)?.config;
    if config.stream.enabled() {
        stream::Identity::load(&config.stream)?;
    }
    let mut report = format!("{}: ok\n", source.config.display());
    if with_cluster {
        report.push_str(&check_cluster(&config)?);
    }
    print(&report)
}

fn check_cluster(config: &Config) -> Result<String> {
    match config.provider.kind {
        ProviderKind::File => {
            let path: &Path = &config.provider.path;
            let name = path.display().to_string();
            let snapshot = provider::file::parse(&name, &provider::file::read(path)?, config.datapath.tunnel_port)?;
            let backends: usize = snapshot.services.iter().map(|service| service.backends.len()).sum();
            let report = format!(
                "{name}: ok, {} nodes, {} networks, {} services, {backends} backends\n",
                snapshot.nodes.len(),
                snapshot.networks.len(),
                snapshot.services.len()
            );
            if !snapshot.nodes.iter().any(|node| node.name == config.node.name) {
                eprintln!(
                    "{name}: warning: there is no node `{}`, this node's name",
                    config.node.name
                );
            }
            for workload in &config.workload {
                if !snapshot.networks.iter().any(|network| network.name == workload.network) {
                    eprintln!(
                        "{name}: warning: there is no network `{}`, which workload `{}` is in",
                        workload.network, workload.interface
                    );
                }
            }
            Ok(report)
        }
        ProviderKind::Docker => Ok(format!(
            "{}: the Swarm is read while the agent runs; `lbctl status` shows what came of it\n",
            config.provider.socket.display()
        )),
    }
}

/// Writes to standard output. A reader that has gone (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}
