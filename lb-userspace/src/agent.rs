//! Wires the parts of the agent together.

use crate::config::Config;

/// Runs the agent until it is told to stop.
pub async fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}

/// Removes every trace of the agent.
pub fn uninstall(_config: &Config) -> anyhow::Result<()> {
    anyhow::bail!("not wired yet")
}
