//! [`Balanced`]: a Swarm whose nodes run the real `lb-agent`, set up as an operator would.
//!
//! | on each node | what it is |
//! |---|---|
//! | `/run/lb/agent.toml` | its configuration: provider `docker`, and what [`Balanced::configure`] adds |
//! | `/run/lb/secret` | the secret that all agents share |
//! | `/run/lb/admin.sock` | where `lbctl` asks |
//! | `/sys/fs/bpf/lb` | maps and links, the node's own |

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use toml::{Table, toml};

use super::{Builder, Node, Service, Swarm, Task, items, text, wait_until};
use crate::agent::{Supervisor, tail};
use crate::client::{Connection, get_local};
use crate::{netns, require};

/// The agent's directory on its node.
const DIRECTORY: &str = "/run/lb";
/// How long an agent may take from its start to its first full sync (three may be starting on two cores).
const READY: Duration = Duration::from_secs(120);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// Port of every agent's metrics, on its node's loopback.
const METRICS_PORT: u16 = 9464;
/// Writes down its process id, then becomes the agent.
const RUN: &str = r#"echo $$ >/run/lb/agent.pid; exec "$@""#;

/// A Swarm and the agents on its nodes. Dropped, nothing of either is left.
#[derive(Debug)]
pub struct Balanced {
    // First: its machines end the agents.
    swarm: Swarm,
    agents: Vec<Mutex<Agent>>,
    secret: String,
}

/// The agent of one node: what its configuration holds beside the usual, and while it runs its process.
#[derive(Debug, Default)]
struct Agent {
    more: Table,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    /// `nsenter`, which ends with the agent and as the agent.
    child: Child,
    supervisor: Supervisor,
}

impl Deref for Balanced {
    type Target = Swarm;

    fn deref(&self) -> &Swarm {
        &self.swarm
    }
}

impl Balanced {
    /// Agents for `swarm`, none of them started.
    ///
    /// # Errors
    /// Without randomness for a secret.
    pub fn new(swarm: Swarm) -> Result<Self> {
        let mut random = [0; 32];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
        Ok(Self {
            agents: swarm.nodes().iter().map(|_| Mutex::default()).collect(),
            secret: random.iter().map(|byte| format!("{byte:02x}")).collect(),
            swarm,
        })
    }

    /// A Swarm with an agent on every node, all ready.
    ///
    /// # Errors
    /// As [`Builder::start`], or if an agent does not get ready; the message holds its log.
    pub fn start(builder: Builder) -> Result<Self> {
        let balanced = Self::new(builder.start()?)?;
        balanced.start_agents()?;
        Ok(balanced)
    }

    /// As [`Swarm::shared`], with agents.
    ///
    /// # Errors
    /// As [`Balanced::start`].
    pub fn shared(shared: &Mutex<Weak<Self>>, start: impl FnOnce() -> Result<Self>) -> Result<Arc<Self>> {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(balanced) = shared.upgrade() {
            return Ok(balanced);
        }
        let balanced = Arc::new(start()?);
        *shared = Arc::downgrade(&balanced);
        Ok(balanced)
    }

    /// What the agent's configuration holds beside the usual, by section, from its next start on:
    /// `toml! { [dns] enabled = true }`.
    pub fn configure(&self, index: usize, more: Table) {
        self.agent(index).more = more;
    }

    /// Starts all agents, and waits until all are ready.
    ///
    /// # Errors
    /// As [`Balanced::start_agent`].
    pub fn start_agents(&self) -> Result<()> {
        for index in 0..self.agents.len() {
            self.spawn_agent(index)?;
        }
        (0..self.agents.len()).try_for_each(|index| self.wait_agent_ready(index))
    }

    /// Starts a node's agent, and waits until it is ready: its first full sync is done.
    ///
    /// # Errors
    /// If it runs already, or does not get ready; the message holds its log.
    pub fn start_agent(&self, index: usize) -> Result<()> {
        self.spawn_agent(index)?;
        self.wait_agent_ready(index)
    }

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

    /// All that a node's agent wrote so far, over restarts.
    pub fn agent_log(&self, index: usize) -> String {
        fs::read_to_string(agent_log(self.node(index))).unwrap_or_default()
    }

    /// Where a node's agent writes, over restarts.
    pub fn agent_log_path(&self, index: usize) -> PathBuf {
        agent_log(self.node(index))
    }

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

    /// Waits until exactly `count` tasks of a service run, and every agent that runs has put exactly these into force.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`](super::PATIENCE); the message says who lacks what.
    pub fn wait_serving(&self, service: &Service<'_>, count: usize) -> Result<Vec<Task>> {
        let tasks = service.wait_running(count)?;
        let mut names: Vec<_> = tasks.iter().map(|task| task.name.clone()).collect();
        names.sort();
        self.wait_known(service.name(), &names)?;
        Ok(tasks)
    }

    /// Waits until for every agent that runs, exactly these tasks of a service are ready, and all of its state is in
    /// force. No tasks: the service is gone.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`](super::PATIENCE); the message says who lacks what.
    pub fn wait_known(&self, service: &str, tasks: &[String]) -> Result<()> {
        let running = (0..self.agents.len()).filter(|index| self.agent(*index).process.is_some());
        for index in running {
            let goal = format!("the agent of {} knows the tasks of {service}", self.node(index).name());
            wait_until(&goal, || {
                // An agent that is just starting does not answer yet.
                let lag = self.lag(index, service, tasks);
                Ok(lag
                    .unwrap_or_else(|error| Some(format!("{error:#}")))
                    .map_or(Ok(()), Err))
            })?;
        }
        Ok(())
    }

    /// What a node's agent has not yet put into force of a service's tasks.
    fn lag(&self, index: usize, service: &str, tasks: &[String]) -> Result<Option<String>> {
        let list = self.admin(index, "/v1/backends")?;
        let own = items(&list["items"]).filter(|item| item["service"] == service);
        // A task is there once for each network and port.
        let mut known: Vec<_> = own.map(|item| (text(&item["task"]), text(&item["state"]))).collect();
        known.sort();
        known.dedup();
        // Asked last: what was listed above is applied, or something newer.
        let provider = self.admin(index, "/v1/status")?["items"][0]["provider"].clone();
        let ready = known.iter().map(|(task, state)| (task, state.as_str()));
        if !ready.eq(tasks.iter().map(|task| (task, "ready"))) {
            return Ok(Some(format!(
                "it knows {known:?} instead of {tasks:?}; provider: {provider}"
            )));
        }
        let applied = provider["generation"] == provider["applied"] && provider["sync_error"].is_null();
        Ok((!applied).then(|| format!("not applied; provider: {provider}")))
    }

    fn agent(&self, index: usize) -> MutexGuard<'_, Agent> {
        self.agents[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what every agent and every dockerd wrote to `directory`, for whoever looks at a failed test.
    pub fn save_all_logs(&self, directory: &Path) {
        self.save_logs(directory);
        for node in self.nodes() {
            let _ = fs::copy(agent_log(node), directory.join(format!("{}-agent.log", node.name())));
        }
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

/// The usual configuration, and what a test adds to it.
fn configuration(more: &Table) -> Table {
    let mut all = toml! {
        [provider]
        kind = "docker"

        [stream]
        secret_file = "/run/lb/secret"

        [log]
        level = "info,lb::sync=debug"
    };
    for (section, settings) in more {
        match (
            all.get_mut(section).and_then(toml::Value::as_table_mut),
            settings.as_table(),
        ) {
            (Some(known), Some(settings)) => known.extend(settings.clone()),
            _ => drop(all.insert(section.clone(), settings.clone())),
        }
    }
    all
}

/// Where the agent of a node writes: beside the node's `/run`, which a reboot empties.
fn agent_log(node: &Node) -> PathBuf {
    node.directory.join("agent.log")
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no readable path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_adds_goes_beside_the_usual() {
        let more = toml! {
            [stream]
            connections = 3

            [dns]
            enabled = true
        };
        let all = configuration(&more);
        assert_eq!(all["stream"]["connections"].as_integer(), Some(3));
        assert_eq!(all["stream"]["secret_file"].as_str(), Some("/run/lb/secret"));
        assert_eq!(all["dns"]["enabled"].as_bool(), Some(true));
        assert_eq!(all["provider"]["kind"].as_str(), Some("docker"));
    }
}
