//! [`Process`]: the first process of a task's container, as it dies.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::{PATIENCE, Swarm, Task};

/// A task's first process. What it has open is closed when it has died.
#[derive(Debug)]
pub struct Process {
    node: usize,
    /// Its id on its node.
    pid: u32,
    /// Its directory below the node's `/proc`.
    directory: PathBuf,
}

impl Task {
    /// Its first process.
    ///
    /// # Errors
    /// If it does not run.
    pub fn process(&self, swarm: &Swarm) -> Result<Process> {
        let state = self.inspect(swarm)?["State"].clone();
        let pid = state["Pid"].as_u64().filter(|pid| *pid != 0);
        let pid = u32::try_from(pid.with_context(|| format!("task {} has no process: {state}", self.name))?)?;
        let node = self.node.with_context(|| format!("task {} has no node", self.name))?;
        let directory = swarm
            .node(node)
            .on_machine(|machine| machine.path(&format!("/proc/{pid}")))?;
        ensure!(directory.exists(), "there is no {}", directory.display());
        Ok(Process { node, pid, directory })
    }
}

impl Process {
    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is no more.
    pub fn signal(&self, swarm: &Swarm, signal: Signal) -> Result<()> {
        swarm
            .node(self.node)
            .on_machine(|machine| machine.signal(self.pid, signal))?
    }

    /// Waits until it is dead: its kernel accepts no more connections for it. Returns an instant right after that.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`].
    pub fn wait_dead(&self) -> Result<Instant> {
        let start = Instant::now();
        while !self.is_dead() {
            ensure!(start.elapsed() < PATIENCE, "process {} lives on", self.pid);
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(Instant::now())
    }

    /// A thread closes what it alone has open before it becomes a zombie; the first one stays one until its parent has seen
    /// it, the others go.
    fn is_dead(&self) -> bool {
        let (Ok(threads), Ok(stat)) = (
            fs::read_dir(self.directory.join("task")),
            fs::read_to_string(self.directory.join("stat")),
        ) else {
            return true;
        };
        // The name before it may hold anything.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        threads.count() <= 1 && matches!(state, Some('Z' | 'X'))
    }
}
