//! [`Spec`]: what a service is to be, and how a running cluster takes it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::document::{Port, Published, Service};
use super::{Cluster, Deployed, Node, inside};

/// An agent that has not applied the cluster file after so long never will, also in a guest that is emulated on a busy host.
/// How soon it must is what tests measure themselves.
pub(super) const SETTLED: Duration = Duration::from_secs(30);

/// What a service is to be: TCP, in `shop`, with a VIP, not published, without backends, unless said otherwise.
#[derive(Clone, Debug)]
pub struct Spec {
    name: Option<String>,
    network: &'static str,
    protocol: &'static str,
    mode: &'static str,
    published: bool,
    aliases: Vec<String>,
    /// Node index and weight of each.
    backends: Vec<(usize, u16)>,
}

impl Spec {
    /// A TCP service.
    pub fn tcp() -> Self {
        Self {
            name: None,
            network: "shop",
            protocol: "tcp",
            mode: "vip",
            published: false,
            aliases: Vec::new(),
            backends: Vec::new(),
        }
    }

    /// A UDP service.
    pub fn udp() -> Self {
        Self {
            protocol: "udp",
            ..Self::tcp()
        }
    }

    /// Its name, instead of a new one.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Its network.
    #[must_use]
    pub fn network(mut self, network: &'static str) -> Self {
        self.network = network;
        self
    }

    /// Answered by name alone.
    #[must_use]
    pub fn dnsrr(mut self) -> Self {
        self.mode = "dnsrr";
        self
    }

    /// On a port of every node.
    #[must_use]
    pub fn published(mut self) -> Self {
        self.published = true;
        self
    }

    /// A further name.
    #[must_use]
    pub fn alias(mut self, alias: &str) -> Self {
        self.aliases.push(alias.to_owned());
        self
    }

    /// Backends on these nodes, of weight 1.
    #[must_use]
    pub fn on(mut self, nodes: &[usize]) -> Self {
        self.backends.extend(nodes.iter().map(|node| (*node, 1)));
        self
    }

    /// A backend on this node, of this weight.
    #[must_use]
    pub fn weighted(mut self, node: usize, weight: u16) -> Self {
        self.backends.push((node, weight));
        self
    }
}

impl Cluster {
    /// Starts the backends, writes the service into the cluster file, and waits until every node has it.
    ///
    /// # Errors
    /// If a server cannot be started, or a node does not take the change.
    pub fn deploy(&self, spec: Spec) -> Result<Deployed<'_>> {
        let number = self.number();
        ensure!(number < 190, "more services than one cluster's address plan holds");
        let octet = if spec.network == "shop" { 1 } else { 2 };
        let vips = if spec.mode == "vip" {
            inside(octet, 0, 10 + number as u8).to_vec()
        } else {
            Vec::new()
        };
        let deployed = Deployed {
            cluster: self,
            name: spec.name.unwrap_or_else(|| format!("web{number}")),
            network: spec.network,
            vips,
            port: 80,
            target: 2000 + number,
            published: spec.published.then_some(8000 + number),
            servers: Mutex::default(),
        };
        let backends = spec
            .backends
            .iter()
            .map(|(node, weight)| deployed.serve(*node, *weight));
        let backend = backends.collect::<Result<_>>()?;
        let service = Service {
            name: deployed.name.clone(),
            network: spec.network.to_owned(),
            mode: spec.mode,
            vip: deployed.vips.clone(),
            aliases: spec.aliases,
            ports: vec![Port {
                port: deployed.port,
                target: deployed.target,
                protocol: spec.protocol,
                published: deployed.published.map(Published::On),
            }],
            backend,
            ..Service::default()
        };
        self.edit(|document| document.service.push(service))?;
        self.settle()?;
        Ok(deployed)
    }

    /// Waits until every running agent has applied the cluster file as it is now.
    ///
    /// # Errors
    /// If one has not within [`SETTLED`].
    pub fn settle(&self) -> Result<()> {
        let running = self.nodes.iter().filter(|node| node.agent().pid().is_some());
        std::thread::scope(|scope| {
            let waits: Vec<_> = running.map(|node| scope.spawn(|| self.settle_node(node))).collect();
            waits
                .into_iter()
                .try_for_each(|wait| wait.join().expect("a waiting thread"))
        })
    }

    fn settle_node(&self, node: &Node) -> Result<()> {
        let start = Instant::now();
        while let Some(lag) = self.lag(node)? {
            let patient = start.elapsed() < SETTLED;
            ensure!(patient, "{} does not take the cluster file: {lag}", node.name());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
