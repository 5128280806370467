//! [`Scene`]: a cluster while one test uses it. If the test fails, packets, logs and cluster file are kept.

use std::fs;
use std::ops::Deref;
use std::sync::Arc;

use anyhow::Result;

use crate::agent::tail;
use crate::capture::Capture;
use crate::cluster::Cluster;
use crate::require;

/// A cluster, and captures in the namespaces of its nodes and clients.
#[derive(Debug)]
pub struct Scene {
    // First: it writes its files before the cluster may go.
    _captures: Vec<Capture>,
    cluster: Arc<Cluster>,
}

impl Scene {
    /// Starts watching `cluster` in the name of the calling test.
    ///
    /// # Errors
    /// If packet sockets are not to be had.
    pub fn new(cluster: Arc<Cluster>) -> Result<Self> {
        let nodes = cluster.nodes().iter().map(|node| node.netns());
        let clients = cluster.clients().iter().map(|host| host.netns());
        let captures = nodes.chain(clients).map(Capture::start).collect::<Result<_>>()?;
        Ok(Self {
            _captures: captures,
            cluster,
        })
    }
}

impl Deref for Scene {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let directory = require::artifacts();
        let _ = fs::create_dir_all(&directory);
        let _ = fs::copy(self.cluster.file(), directory.join("cluster.toml"));
        for node in self.cluster.nodes() {
            let log = node.agent().log();
            let trouble: Vec<_> = log
                .lines()
                .filter(|line| !line.contains(" INFO ") && !line.contains(" DEBUG "))
                .collect();
            if !trouble.is_empty() {
                eprintln!(
                    "--- {}: what its agent complains of:\n{}",
                    node.name(),
                    tail(&trouble.join("\n"), 10)
                );
            }
            let _ = fs::write(directory.join(format!("{}.log", node.name())), log);
        }
        eprintln!("--- logs, cluster file and packets are in {}", directory.display());
    }
}
