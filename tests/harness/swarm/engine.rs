//! [`Engine`]: the dockerd of one machine, its command line and its API.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Settings;
use super::machine::Machine;
use crate::agent::tail;
use crate::client::{get_local, get_local_within};
use crate::netns::run;

/// How long dockerd may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where it is told to write its process id.
const PID_FILE: &str = "/run/docker.pid";

/// A dockerd that runs, or is going to.
#[derive(Debug)]
pub(super) struct Engine {
    log: PathBuf,
    socket: PathBuf,
    /// `nsenter`, as long as dockerd runs.
    child: Option<Child>,
}

impl Engine {
    pub(super) fn new(machine: &Machine, log: PathBuf) -> Self {
        Self {
            log,
            socket: machine.run_directory().join("docker.sock"),
            child: None,
        }
    }

    /// Starts it and returns at once.
    pub(super) fn spawn(&mut self, machine: &Machine, settings: &Settings) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        // Of a dockerd that was killed: the new one would take the number for a running process.
        drop(fs::remove_file(machine.run_directory().join("docker.pid")));
        let mut command = machine.command("env");
        command.arg(format!("PATH={}", settings.path(machine)?));
        command.args(["dockerd", "--pidfile", PID_FILE, "--storage-driver", settings.storage]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(machine.start(&mut command)?);
        Ok(())
    }

    /// Waits until it answers.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if get_local(&self.socket, "/_ping").is_ok() {
                return Ok(());
            }
            let child = self.child.as_mut().context("dockerd was not started")?;
            let ended = child.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                bail!(
                    "dockerd does not answer at {} ({ended:?}); its log ends:\n{}",
                    self.socket.display(),
                    tail(&fs::read_to_string(&self.log).unwrap_or_default(), 30)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends it a signal and waits for its end.
    pub(super) fn end(&mut self, machine: &Machine, signal: Signal) -> Result<()> {
        let mut child = self.child.take().context("dockerd does not run")?;
        let pid = fs::read_to_string(machine.run_directory().join("docker.pid"))?;
        machine.signal(pid.trim().parse()?, signal)?;
        let start = Instant::now();
        while child.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                self.child = Some(child);
                bail!("dockerd runs on {PATIENCE:?} after {signal}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The machine went down under it.
    pub(super) fn forget(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.wait());
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}

/// Runs the command line against the dockerd at `socket`.
pub(super) fn docker(socket: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
    command.arg("--host").arg(format!("unix://{}", socket.display()));
    Ok(run(command.args(arguments), "")?.trim_end().to_owned())
}

/// `GET` of a path of its API. It may be busy, as the machine is.
pub(super) fn api(socket: &Path, path: &str) -> Result<Value> {
    let body = get_local_within(socket, path, PATIENCE).with_context(|| format!("GET {path}"))?;
    Ok(serde_json::from_slice(&body)?)
}
