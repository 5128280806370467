//! [`Service`]: a service that a test creates, changes and waits for, by the command line that its users use.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::task::Task;
use super::{IMAGE, Swarm, items, text, wait_until};
use crate::require;

/// A service. Dropped, it is removed; if its test failed, its tasks are shown and every dockerd's log is kept.
#[derive(Debug)]
pub struct Service<'a> {
    swarm: &'a Swarm,
    name: String,
    id: String,
}

impl Swarm {
    /// Creates a service of [`IMAGE`] whose name begins with `name`, and returns at once. `options` are those of
    /// `docker service create`; each task says its own name to who asks.
    ///
    /// # Errors
    /// If the manager refuses.
    pub fn service(&self, name: &str, options: &[&str]) -> Result<Service<'_>> {
        self.service_running(name, options, &[])
    }

    /// As [`Swarm::service`], with arguments for `lb-task` other than `serve`.
    ///
    /// # Errors
    /// If the manager refuses.
    pub fn service_running(&self, name: &str, options: &[&str], arguments: &[&str]) -> Result<Service<'_>> {
        let name = format!("{name}-{}", self.number());
        let mut command = vec!["service", "create", "--detach", "--quiet", "--no-resolve-image"];
        command.extend(["--name", &name, "--env", "LB_TASK_NAME={{.Task.Name}}"]);
        command.extend(options);
        command.push(IMAGE);
        command.extend(arguments);
        let id = self.manager().docker(&command)?;
        Ok(Service { swarm: self, name, id })
    }
}

impl Service<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the manager says about it.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn inspect(&self) -> Result<Value> {
        self.swarm.manager().api(&format!("/services/{}", self.id))
    }

    /// Its virtual address in a network, by the network's id.
    ///
    /// # Errors
    /// If it has none there.
    pub fn vip(&self, network: &str) -> Result<Ipv4Addr> {
        let service = self.inspect()?;
        let found = items(&service["Endpoint"]["VirtualIPs"]).find(|vip| vip["NetworkID"] == network);
        let address = found.map(|vip| text(&vip["Addr"])).unwrap_or_default();
        let (address, _) = address
            .split_once('/')
            .with_context(|| format!("no VIP on {network}: {service}"))?;
        Ok(address.parse()?)
    }

    /// The port under which every node answers for a port of its tasks.
    ///
    /// # Errors
    /// If that is not published.
    pub fn published(&self, protocol: &str, target: u16) -> Result<u16> {
        let service = self.inspect()?;
        let port = items(&service["Endpoint"]["Ports"])
            .find(|port| port["Protocol"] == protocol && port["TargetPort"] == target)
            .and_then(|port| port["PublishedPort"].as_u64());
        let port = port.with_context(|| format!("{protocol} port {target} is not published: {service}"))?;
        Ok(u16::try_from(port)?)
    }

    /// All its tasks, also those that ended and are still remembered.
    ///
    /// # Errors
    /// If the manager does not answer.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        let manager = self.swarm.manager();
        let filters = format!("%7B%22service%22%3A%5B%22{}%22%5D%7D", self.id);
        let list = manager.api(&format!("/tasks?filters={filters}"))?;
        let nodes = self.swarm.node_ids()?;
        items(&list).map(|task| Task::parse(&nodes, &self.name, task)).collect()
    }

    /// Its tasks that run and are to go on.
    ///
    /// # Errors
    /// If the manager does not answer.
    pub fn running(&self) -> Result<Vec<Task>> {
        let mut tasks = self.tasks()?;
        tasks.retain(Task::is_running);
        Ok(tasks)
    }

    /// Waits until exactly `count` tasks run, and every other has ended.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`](super::PATIENCE); the message holds the tasks.
    pub fn wait_running(&self, count: usize) -> Result<Vec<Task>> {
        wait_until(&format!("{count} tasks of {} run", self.name), || {
            let tasks = self.tasks()?;
            let over = ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"];
            let (running, other): (Vec<_>, Vec<_>) = tasks.into_iter().partition(Task::is_running);
            let others_ended = other.iter().all(|task| over.contains(&&*task.state));
            if running.len() == count && others_ended {
                return Ok(Ok(running));
            }
            let states = running.iter().chain(&other);
            let states: Vec<_> = states
                .map(|task| {
                    format!(
                        "{} is {}, to be {}: {}",
                        task.name, task.state, task.desired, task.error
                    )
                })
                .collect();
            Ok(Err(format!("{states:?}")))
        })
    }

    /// Changes the number of replicas and waits for it.
    ///
    /// # Errors
    /// As [`Service::wait_running`].
    pub fn scale(&self, count: usize) -> Result<Vec<Task>> {
        let argument = format!("{}={count}", self.name);
        self.swarm
            .manager()
            .docker(&["service", "scale", "--detach", &argument])?;
        self.wait_running(count)
    }

    /// `docker service update` with these options; returns at once.
    ///
    /// # Errors
    /// If the manager refuses.
    pub fn update(&self, options: &[&str]) -> Result<()> {
        let mut command = vec!["service", "update", "--detach", "--quiet", "--no-resolve-image"];
        command.extend(options);
        command.push(&self.name);
        self.swarm.manager().docker(&command).map(drop)
    }

    /// Waits until the update that was begun is complete.
    ///
    /// # Errors
    /// If it is paused or rolled back, or takes longer than [`PATIENCE`](super::PATIENCE).
    pub fn wait_updated(&self) -> Result<()> {
        wait_until(&format!("{} is updated", self.name), || {
            let status = self.inspect()?["UpdateStatus"].clone();
            match status["State"].as_str().unwrap_or_default() {
                "completed" => Ok(Ok(())),
                "" | "updating" => Ok(Err(status.to_string())),
                _ => bail!("the update of {} does not go on: {status}", self.name),
            }
        })
    }

    /// Removes it; its tasks take as long as their grace period to go.
    ///
    /// # Errors
    /// If the manager refuses.
    pub fn remove(&self) -> Result<()> {
        self.swarm.manager().docker(&["service", "rm", &self.id]).map(drop)
    }
}

impl Swarm {
    /// Node ids, and the index of each node here.
    fn node_ids(&self) -> Result<Vec<(String, usize)>> {
        let list = self.manager().api("/nodes")?;
        let index = |name: &str| self.nodes.iter().position(|node| node.name() == name);
        let pairs = items(&list).filter_map(|node| {
            let index = index(node["Description"]["Hostname"].as_str()?)?;
            Some((text(&node["ID"]), index))
        });
        Ok(pairs.collect())
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tasks = self.tasks().unwrap_or_default();
            eprintln!("--- {}: its tasks: {tasks:#?}", self.name);
            let directory = require::artifacts();
            self.swarm.save_logs(&directory);
            eprintln!("--- logs of every dockerd are in {}", directory.display());
        }
        // The test may have removed it already.
        let _ = self.remove();
    }
}
