//! [`Task`]: one container of a service, as the manager knows it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Node, Swarm, items, text};
use crate::netns::within;

/// A task at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// `<service>.<slot>.<id>`, or `<service>.<node id>.<id>` in a global service; the container's name.
    pub name: String,
    /// Index of its node; none until one is chosen.
    pub node: Option<usize>,
    /// What it does: `running`, `starting`, `shutdown` ...
    pub state: String,
    /// What it is to do.
    pub desired: String,
    /// Its container's id, once there is one.
    pub container: Option<String>,
    /// Its addresses, by the name of the network.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    /// Why it failed.
    pub error: String,
}

impl Task {
    pub(super) fn parse(swarm: &[(String, usize)], service: &str, task: &Value) -> Result<Self> {
        let id = text(&task["ID"]);
        let node = text(&task["NodeID"]);
        let place = task["Slot"]
            .as_u64()
            .map_or_else(|| node.clone(), |slot| slot.to_string());
        let mut addresses = BTreeMap::new();
        for attachment in items(&task["NetworksAttachments"]) {
            let network = text(&attachment["Network"]["Spec"]["Name"]);
            let address = text(&attachment["Addresses"][0]);
            let (address, _) = address
                .split_once('/')
                .with_context(|| format!("task {id}: {attachment}"))?;
            addresses.insert(network, address.parse()?);
        }
        let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
        Ok(Self {
            name: format!("{service}.{place}.{id}"),
            node: swarm.iter().find(|(known, _)| *known == node).map(|(_, index)| *index),
            state: text(&task["Status"]["State"]),
            desired: text(&task["DesiredState"]),
            container: (!container.is_empty()).then_some(container),
            addresses,
            error: text(&task["Status"]["Err"]),
            id,
        })
    }

    /// Whether it runs and is to go on.
    pub fn is_running(&self) -> bool {
        self.state == "running" && self.desired == "running"
    }

    /// Its address in a network.
    ///
    /// # Errors
    /// If it is not on it.
    pub fn address(&self, network: &str) -> Result<Ipv4Addr> {
        let found = self.addresses.get(network);
        found
            .copied()
            .with_context(|| format!("task {} is not on {network}: {:?}", self.name, self.addresses))
    }

    fn place<'a>(&self, swarm: &'a Swarm) -> Result<(&'a Node, &str)> {
        let node = self.node.with_context(|| format!("task {} has no node", self.name))?;
        let container = self.container.as_deref();
        Ok((
            swarm.node(node),
            container.with_context(|| format!("task {} has no container", self.name))?,
        ))
    }

    /// Runs `lb-task` with these arguments inside its container, by `docker exec`; what it prints.
    ///
    /// # Errors
    /// If it ends with a code other than 0; the message holds its standard error.
    pub fn exec(&self, swarm: &Swarm, arguments: &[&str]) -> Result<String> {
        let (node, container) = self.place(swarm)?;
        let mut command = vec!["exec", container, "/bin/lb-task"];
        command.extend(arguments);
        node.docker(&command)
    }

    /// Runs `work` on a thread inside its network namespace.
    ///
    /// # Errors
    /// If it has none any more.
    pub fn within<T: Send>(&self, swarm: &Swarm, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(within(&self.open_namespace(swarm)?, work))
    }

    /// Its network namespace, for [`spawn_within`](crate::netns::spawn_within).
    ///
    /// # Errors
    /// If it has none any more.
    pub fn open_namespace(&self, swarm: &Swarm) -> Result<File> {
        let (node, _) = self.place(swarm)?;
        node.open_namespace(&self.namespace(swarm)?)
    }

    /// What its node's dockerd says about its container.
    ///
    /// # Errors
    /// If it has none any more.
    pub fn inspect(&self, swarm: &Swarm) -> Result<Value> {
        let (node, container) = self.place(swarm)?;
        node.api(&format!("/containers/{container}/json"))
    }

    /// Path of its network namespace on its node.
    ///
    /// # Errors
    /// If it has none any more.
    pub fn namespace(&self, swarm: &Swarm) -> Result<String> {
        // The symbolic link /var/run would lead to this host's /run.
        let key = text(&self.inspect(swarm)?["NetworkSettings"]["SandboxKey"]);
        ensure!(!key.is_empty(), "task {} has no network namespace", self.name);
        Ok(key.strip_prefix("/var").unwrap_or(&key).to_owned())
    }

    /// Its address on its node's `docker_gwbridge`, where the node itself reaches it. Addresses of this kind repeat on
    /// every node.
    ///
    /// # Errors
    /// If it has none any more.
    pub fn gateway_address(&self, swarm: &Swarm) -> Result<Ipv4Addr> {
        let (node, container) = self.place(swarm)?;
        let bridge = node.api("/networks/docker_gwbridge")?;
        let address = text(&bridge["Containers"][container]["IPv4Address"]);
        let (address, _) = address
            .split_once('/')
            .with_context(|| format!("task {} is not on {bridge}", self.name))?;
        Ok(address.parse()?)
    }

    /// Kills its container, as a crash would.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, swarm: &Swarm) -> Result<()> {
        let (node, container) = self.place(swarm)?;
        node.docker(&["kill", container]).map(drop)
    }

    /// What its container wrote.
    ///
    /// # Errors
    /// If it is gone.
    pub fn log(&self, swarm: &Swarm) -> Result<String> {
        let (node, container) = self.place(swarm)?;
        node.docker(&["logs", container])
    }
}
