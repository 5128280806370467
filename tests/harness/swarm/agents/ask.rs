//! Asks a node's agent: through `lbctl`, its socket and its metrics.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Balanced;
use crate::client::{Connection, get_local};
use crate::{netns, require};

/// Port of every agent's metrics, on its node's loopback.
const METRICS_PORT: u16 = 9464;

impl Balanced {
    /// Runs `lbctl` on a node, as an engineer there would. Its exit code is in the output.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn lbctl_output(&self, index: usize, arguments: &[&str]) -> Result<Output> {
        let mut command = self.node(index).command(require::binary("lbctl")?)?;
        command.env("NO_COLOR", "1").args(arguments).stdin(Stdio::null());
        command.output().context("start lbctl")
    }

    /// What `lbctl` prints on a node.
    ///
    /// # Errors
    /// If it ends with a code other than 0; the message holds its standard error.
    pub fn lbctl(&self, index: usize, arguments: &[&str]) -> Result<String> {
        let mut command = self.node(index).command(require::binary("lbctl")?)?;
        netns::run(command.env("NO_COLOR", "1").args(arguments), "")
    }

    /// What `lbctl -o json` prints on a node.
    ///
    /// # Errors
    /// As [`Balanced::lbctl`], and if the output is not JSON.
    pub fn lbctl_json(&self, index: usize, arguments: &[&str]) -> Result<Value> {
        let text = self.lbctl(index, &[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("lbctl {} printed no JSON:\n{text}", arguments.join(" ")))
    }

    /// `GET` of a path on the admin socket of a node's agent.
    ///
    /// # Errors
    /// If the agent does not answer with status 200.
    pub fn admin(&self, index: usize, path: &str) -> Result<Value> {
        let node = self.node(index);
        let socket = node.run_directory().join("lb/admin.sock");
        let body = get_local(&socket, path).with_context(|| format!("{}: {path}", node.name()))?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// `GET` of a path at the metrics address of a node's agent: `/metrics`, `/readyz`.
    ///
    /// # Errors
    /// If nobody answers with status 200.
    pub fn metrics(&self, index: usize, path: &str) -> Result<String> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT));
        let body = self.node(index).netns().run(|| Connection::open(target)?.get(path))?;
        Ok(String::from_utf8(body)?)
    }
}
