//! What an engine answers about its own node: its version, its containers, its networks in full, its events.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Listed, Network, Object, entries, map, or_default};

answers! {
    /// The engine's version, of `GET /version`.
    EngineVersion {
        /// Of the engine, such as `20.10.24`.
        "Version" version: String = "or_default",
        /// The newest API that it speaks.
        "ApiVersion" newest: String = "or_default",
        /// The oldest API that it speaks.
        "MinAPIVersion" oldest: String = "or_default",
    }
    /// A running container, of `GET /containers/json`.
    Container {
        /// 64 digits.
        "Id" id: String = "or_default",
        /// Each with a `/` before it.
        "Names" names: Vec<String> = "entries",
        /// Those of Swarm's tasks name the task.
        "Labels" labels: BTreeMap<String, String> = "map",
        /// Where it is attached.
        "NetworkSettings" settings: ContainerNetworks = "or_default",
    }
    /// Networks of a listed container.
    ContainerNetworks {
        /// By the networks' names.
        "Networks" networks: BTreeMap<String, ContainerEndpoint> = "map",
    }
    /// A container's place in a network.
    ContainerEndpoint {
        /// The network's id.
        "NetworkID" network: String = "or_default",
        /// Another one whenever the container is attached again, and so whenever it is started again.
        "EndpointID" id: String = "or_default",
        /// Without prefix length; empty for none.
        "IPAddress" ipv4: String = "or_default",
        /// Without prefix length; empty for none.
        "GlobalIPv6Address" ipv6: String = "or_default",
        /// With colons.
        "MacAddress" mac: String = "or_default",
    }
    /// A container in full, of `GET /containers/{id}/json`.
    ContainerDetail {
        /// Where it is attached.
        "NetworkSettings" settings: ContainerSandbox = "or_default",
    }
    /// The network namespace of a container.
    ContainerSandbox {
        /// 64 digits; empty if it has none of its own. The namespace's file has the first 12 as its name.
        "SandboxID" id: String = "or_default",
    }
    /// A node that has an endpoint in a network.
    Peer {
        /// Its address for the network's packets.
        "IP" address: String = "or_default",
    }
    /// An endpoint on the asked node.
    LocalEndpoint {
        /// The container's; `gateway_` and the sandbox on the gateway bridge.
        "Name" name: String = "or_default",
        /// Unique.
        "EndpointID" id: String = "or_default",
        /// With colons.
        "MacAddress" mac: String = "or_default",
        /// With prefix length; empty for none.
        "IPv4Address" ipv4: String = "or_default",
        /// With prefix length; empty for none.
        "IPv6Address" ipv6: String = "or_default",
    }
    /// What the nodes tell each other about a service in one network, of `GET /networks/{id}?verbose=true`.
    Gossip {
        /// Without prefix length; missing, empty or `<nil>` for none.
        "VIP" vip: String = "or_default",
        /// On the ingress network only: `Target: 80, Publish: 8080`, without protocol.
        "Ports" ports: Vec<String> = "entries",
        /// Its tasks on all nodes.
        "Tasks" tasks: Vec<GossipTask> = "entries",
    }
    /// One line of `GET /events`. That it came is what counts, but for the end of a container.
    Event {
        /// `container`, `network`, `service`, `node`.
        "Type" kind: String = "or_default",
        /// `start`, `die`, `connect`, ...
        "Action" action: String = "or_default",
        /// What it happened to.
        "Actor" actor: Actor = "or_default",
    }
    /// What an event happened to.
    Actor {
        /// Of a container: its labels, name and image, and what the event is about.
        "Attributes" attributes: BTreeMap<String, String> = "map",
    }
    /// What the nodes tell each other about a task.
    GossipTask {
        /// Of the container.
        "Name" name: String = "or_default",
        /// Unique.
        "EndpointID" endpoint: String = "or_default",
        /// Without prefix length; empty or `<nil>` for none.
        "EndpointIP" address: String = "or_default",
        /// `Host IP`: the address of its node; empty while that is not known.
        "Info" info: BTreeMap<String, String> = "map",
    }
}

/// A network in full, with what the nodes tell each other about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct GossipedNetwork {
    /// The network.
    #[serde(flatten)]
    pub network: Network,
    /// Services by name, plain containers under the empty name. `None` if nothing can be said: the network has no
    /// endpoint on the asked node.
    #[serde(rename = "Services", default)]
    pub services: Option<BTreeMap<String, Option<Gossip>>>,
}

impl Listed for Container {
    const PATH: &'static str = "/containers/json";
}

impl Object for EngineVersion {
    const PATH: &'static str = "/version";
}

impl Object for ContainerDetail {
    const PATH: &'static str = "/containers/{id}/json";
}

impl Object for GossipedNetwork {
    const PATH: &'static str = "/networks/{id}?verbose=true";
}
