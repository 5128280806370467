//! [`Container`]: one of a node's own, of no service.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::{IMAGE, Network, Node, text};

/// A container on an attachable overlay. Dropped, it is removed.
#[derive(Debug)]
pub struct Container<'a> {
    node: &'a Node,
    id: String,
    address: Ipv4Addr,
    namespace: String,
}

impl Node {
    /// `docker run` of [`IMAGE`] on `network`, which must be attachable.
    ///
    /// # Errors
    /// If dockerd refuses.
    pub fn container(&self, network: &Network<'_>) -> Result<Container<'_>> {
        let id = self.docker(&["run", "--detach", "--network", network.name(), IMAGE])?;
        let mut container = Container {
            node: self,
            id,
            address: Ipv4Addr::UNSPECIFIED,
            namespace: String::new(),
        };
        let settings = self.api(&format!("/containers/{}/json", container.id))?["NetworkSettings"].clone();
        let address = text(&settings["Networks"][network.name()]["IPAddress"]);
        container.address = address
            .parse()
            .with_context(|| format!("no address on {}: {settings}", network.name()))?;
        // The symbolic link /var/run would lead to this host's /run.
        let key = text(&settings["SandboxKey"]);
        container.namespace = key.strip_prefix("/var").unwrap_or(&key).to_owned();
        Ok(container)
    }
}

impl Container<'_> {
    /// Its id, 64 digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its address in the overlay.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Runs `lb-task` with these arguments in it; what it prints.
    ///
    /// # Errors
    /// If it ends with a code other than 0; the message holds its standard error.
    pub fn exec(&self, arguments: &[&str]) -> Result<String> {
        self.node
            .docker(&[&["exec", &self.id, "/bin/lb-task"], arguments].concat())
    }

    /// Runs `work` on a thread inside its network namespace.
    ///
    /// # Errors
    /// If it has none any more.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.node.within(&self.namespace, work)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.node.docker(&["rm", "--force", &self.id]) {
            eprintln!("note: {error:#}");
        }
    }
}
