//! An agent's life: it is started, gets ready, is stopped or killed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::configuration::configuration;
use super::{Agent, Balanced, DIRECTORY, agent_log};
use crate::agent::{Supervisor, tail};
use crate::require;

/// How long an agent may take from its start to its first full sync (three may be starting on two cores).
const READY: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// Writes down its process id, then becomes the agent.
const RUN: &str = r#"echo $$ >/run/lb/agent.pid; exec "$@""#;

#[derive(Debug)]
pub(super) struct Process {
    /// `nsenter`, which ends with the agent and as the agent.
    pub(super) child: Child,
    pub(super) supervisor: Supervisor,
}

impl Balanced {
    /// Starts a node's agent and returns at once.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn spawn_agent(&self, index: usize) -> Result<()> {
        let (node, mut agent) = (self.node(index), self.agent(index));
        if let Some(process) = &mut agent.process {
            // It ends with its node, too.
            let ended = process.child.try_wait()?;
            ensure!(ended.is_some(), "the agent of {} runs already", node.name());
        }
        // Each time: /run is empty after a reboot.
        let directory = node.run_directory().join("lb");
        fs::create_dir_all(&directory)?;
        let secret = directory.join("secret");
        fs::write(&secret, &self.secret)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        fs::write(directory.join("agent.toml"), configuration(&agent.more).to_string())?;
        let supervisor = Supervisor::start(&directory.join("notify.sock"))?;
        let log = OpenOptions::new().create(true).append(true).open(agent_log(node))?;
        let mut command = node.command("sh")?;
        command.args(["-c", RUN, "sh"]).arg(require::binary("lb-agent")?);
        command.args(["run", "--config", &format!("{DIRECTORY}/agent.toml")]);
        command.env("NOTIFY_SOCKET", format!("{DIRECTORY}/notify.sock"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        agent.process = Some(Process {
            child: node.start(&mut command)?,
            supervisor,
        });
        Ok(())
    }

    /// Waits until a node's agent says that it is ready.
    ///
    /// # Errors
    /// If it ends first, or takes too long; the message holds its log.
    pub fn wait_agent_ready(&self, index: usize) -> Result<()> {
        let start = Instant::now();
        let trouble = loop {
            // Not under the lock for long: others may look at the agent meanwhile.
            let mut agent = self.agent(index);
            let process = agent.process.as_mut().context("the agent was not started")?;
            if process.supervisor.is_ready() {
                return Ok(());
            }
            if let Some(status) = process.child.try_wait()? {
                break format!("ended before it was ready: {status}");
            }
            if start.elapsed() > READY {
                break format!("was not ready after {READY:?}");
            }
            drop(agent);
            std::thread::sleep(Duration::from_millis(5));
        };
        let node = self.node(index);
        bail!(
            "the agent of {} {trouble}; its log ends:\n{}",
            node.name(),
            tail(&self.agent_log(index), 60)
        )
    }

    /// SIGTERM for a node's agent, and waits for its end. What it put into the kernel stays.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn stop_agent(&self, index: usize) -> Result<ExitStatus> {
        self.end_agent(index, Signal::SIGTERM)
    }

    /// SIGKILL for a node's agent, and waits for its end.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_agent(&self, index: usize) -> Result<ExitStatus> {
        self.end_agent(index, Signal::SIGKILL)
    }

    fn end_agent(&self, index: usize, signal: Signal) -> Result<ExitStatus> {
        let (node, mut agent) = (self.node(index), self.agent(index));
        let name = node.name();
        let mut process = agent
            .process
            .take()
            .with_context(|| format!("the agent of {name} does not run"))?;
        let pid = fs::read_to_string(node.run_directory().join("lb/agent.pid"))?;
        node.on_machine(|machine| machine.signal(pid.trim().parse()?, signal))??;
        let start = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > STOP {
                agent.process = Some(process);
                drop(agent);
                bail!(
                    "the agent of {name} runs on {STOP:?} after {signal}; its log ends:\n{}",
                    tail(&self.agent_log(index), 60)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `lb-agent uninstall` on a node whose agent does not run: what it prints.
    ///
    /// # Errors
    /// If it fails; the message holds its standard error.
    pub fn uninstall_agent(&self, index: usize) -> Result<String> {
        let binary = require::binary("lb-agent")?;
        let config = format!("{DIRECTORY}/agent.toml");
        let arguments = ["uninstall", "--config", &config];
        self.node(index).output(path(&binary)?, &arguments)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // The node went before, and the agent with it.
            drop(process.child.kill());
            drop(process.child.wait());
        }
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no readable path", path.display()))
}
