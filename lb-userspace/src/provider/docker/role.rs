//! [`Role`]: what part this node has in a Swarm, from the engine's own words.

use std::net::{IpAddr, SocketAddr};

use super::api::Info;
use super::translate::address;

/// A node's part in a Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Which part it has.
    pub part: Part,
    /// The node's id in the Swarm; empty if it is in none.
    pub node: String,
    /// The engine's host name.
    pub name: String,
    /// The node's address for other nodes.
    pub address: Option<IpAddr>,
    /// Managers by the addresses of their control planes, sorted. A manager names itself too.
    pub managers: Vec<SocketAddr>,
}

/// Which part a node has in a Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The engine has not answered yet.
    #[default]
    Unknown,
    /// It may ask for services and tasks.
    Manager,
    /// It runs tasks.
    Worker,
    /// None, for this reason.
    None(String),
}

impl Role {
    /// From what the engine says about itself.
    pub fn of(info: &Info) -> Self {
        let swarm = &info.swarm;
        let part = match swarm.state.as_str() {
            _ if swarm.manager => Part::Manager,
            "active" => Part::Worker,
            "locked" => Part::None("its Swarm is locked; `docker swarm unlock` opens it".into()),
            "" | "inactive" => {
                Part::None("it is in no Swarm; `docker swarm init` or `docker swarm join` change that".into())
            }
            state if swarm.error.is_empty() => Part::None(format!("its Swarm is in state {state:?}")),
            state => Part::None(format!("its Swarm is in state {state:?}: {}", swarm.error)),
        };
        let managers = swarm.managers.iter();
        let mut managers: Vec<SocketAddr> = managers.filter_map(|manager| manager.address.parse().ok()).collect();
        managers.sort_unstable();
        managers.dedup();
        Self {
            part,
            node: swarm.node.clone(),
            name: info.name.clone(),
            address: address(&swarm.address),
            managers,
        }
    }
}
