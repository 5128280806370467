//! [`Balanced`]: a Swarm whose nodes run the real `lb-agent`, set up as an operator would.
//!
//! | on each node | what it is |
//! |---|---|
//! | `/run/lb/agent.toml` | its configuration: provider `docker`, and what [`Balanced::configure`] adds |
//! | `/run/lb/secret` | the secret that all agents share |
//! | `/run/lb/admin.sock` | where `lbctl` asks |
//! | `/sys/fs/bpf/lb` | maps and links, the node's own |

mod ask;
mod configuration;
mod run;
mod serving;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Result;
use toml::Table;

use super::{Builder, Node, Swarm};
use run::Process;

/// The agent's directory on its node.
const DIRECTORY: &str = "/run/lb";

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

    /// All that a node's agent wrote so far, over restarts.
    pub fn agent_log(&self, index: usize) -> String {
        fs::read_to_string(agent_log(self.node(index))).unwrap_or_default()
    }

    /// Where a node's agent writes, over restarts.
    pub fn agent_log_path(&self, index: usize) -> PathBuf {
        agent_log(self.node(index))
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

/// Where the agent of a node writes: beside the node's `/run`, which a reboot empties.
fn agent_log(node: &Node) -> PathBuf {
    node.directory.join("agent.log")
}
