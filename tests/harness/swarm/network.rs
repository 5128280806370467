//! [`Network`]: an overlay that a test makes.

use anyhow::{Context as _, Result};

use super::{Swarm, text, wait_until};

/// An overlay network. Dropped, it is removed, as soon as nobody is on it.
#[derive(Debug)]
pub struct Network<'a> {
    swarm: &'a Swarm,
    name: String,
    id: String,
}

impl Swarm {
    /// Makes an overlay whose name begins with `name`; `arguments` as `docker network create` takes them.
    ///
    /// # Errors
    /// If the manager refuses.
    pub fn network(&self, name: &str, arguments: &[&str]) -> Result<Network<'_>> {
        let name = format!("{name}-{}", self.number());
        let mut command = vec!["network", "create", "--driver", "overlay"];
        command.extend(arguments);
        command.push(&name);
        let id = self.manager().docker(&command)?;
        Ok(Network { swarm: self, name, id })
    }
}

impl Network<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its VXLAN network identifier.
    ///
    /// # Errors
    /// If the manager does not know it.
    pub fn vni(&self) -> Result<u32> {
        let network = self.swarm.manager().api(&format!("/networks/{}", self.id))?;
        let list = text(&network["Options"]["com.docker.network.driver.overlay.vxlanid_list"]);
        list.parse()
            .with_context(|| format!("{}: not one VNI: {list:?}", self.name))
    }

    /// Path of its namespace on every node that has a container on it: there `br0`, `vxlan0` and `vethN` are.
    pub fn namespace(&self) -> String {
        format!("{}/netns/1-{}", super::EXEC_ROOT, &self.id[..10])
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // Tasks of a removed service hold it for as long as they take to stop.
        let removed = wait_until(&format!("network {} is removed", self.name), || {
            let result = self.swarm.manager().docker(&["network", "rm", &self.id]);
            Ok(result.map(drop).map_err(|error| format!("{error:#}")))
        });
        if let Err(error) = removed {
            eprintln!("note: {error:#}");
        }
    }
}
