//! Runs `lbctl` against one node, as an engineer on that node would.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::Node;
use crate::require;

/// Runs `lbctl` with these arguments inside the node's namespace.
///
/// # Errors
/// If it cannot be started. Its own exit code is in the output.
pub fn run(node: &Node, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(require::binary("lbctl")?);
    command
        .env("LB_SOCKET", node.socket())
        .env("LB_BPFFS", node.bpffs())
        .env("NO_COLOR", "1")
        .args(arguments);
    node.netns().run(|| command.output()).context("start lbctl")
}

/// Its standard output as text.
///
/// # Errors
/// If it ends with a code other than 0; the message holds its standard error.
pub fn text(node: &Node, arguments: &[&str]) -> Result<String> {
    let output = run(node, arguments)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "lbctl {}: {}: {error}",
        arguments.join(" "),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Its output with `-o json`.
///
/// # Errors
/// As [`text`], and if the output is not JSON.
pub fn json(node: &Node, arguments: &[&str]) -> Result<Value> {
    let mut arguments = arguments.to_vec();
    arguments.extend(["-o", "json"]);
    let text = text(node, &arguments)?;
    serde_json::from_str(&text).with_context(|| format!("lbctl {} printed no JSON:\n{text}", arguments.join(" ")))
}
