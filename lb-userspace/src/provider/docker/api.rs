//! The fields that are needed of what the Engine API answers; all others are ignored.
//!
//! Any field may be missing or `null`, and any entry of a list may be `null`: dockerd writes absent lists as `null`,
//! and leaves out what is empty. Addresses stay text here, since `""` and `"<nil>"` stand for "none".

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// An answer that is not what the Engine API documents. Nothing of it is used.
#[derive(Debug, thiserror::Error)]
#[error("the engine's answer to GET {path} is not understood: {source}")]
pub struct ApiError {
    /// What was asked for, such as `/tasks`.
    pub path: &'static str,
    /// What is wrong, and where in the answer.
    pub source: serde_json::Error,
}

/// A kind of object that the engine lists.
pub trait Listed: DeserializeOwned {
    /// Where it is listed.
    const PATH: &'static str;
}

/// Reads the answer to `GET` of [`Listed::PATH`]; `null` is an empty list.
///
/// # Errors
/// It is not JSON, not a list, or a field has another type than documented.
pub fn list<T: Listed>(answer: &[u8]) -> Result<Vec<T>, ApiError> {
    let list: Option<Vec<Option<T>>> =
        serde_json::from_slice(answer).map_err(|source| ApiError { path: T::PATH, source })?;
    Ok(list.into_iter().flatten().flatten().collect())
}

/// Reads the answer to `GET` of an object.
///
/// # Errors
/// It is not JSON, not an object, or a field has another type than documented.
pub fn object<T: Object>(answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|source| ApiError { path: T::PATH, source })
}

/// The engine's own words in an answer that is a refusal.
pub fn message(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(answer) {
        Ok(refusal) => refusal.message.trim().replace('\n', " "),
        Err(_) => String::from_utf8_lossy(answer).trim().chars().take(200).collect(),
    }
}

/// A kind of object that the engine shows by itself.
pub trait Object: DeserializeOwned {
    /// Where it is shown; what stands in braces differs from object to object.
    const PATH: &'static str;
}

impl Object for Network {
    const PATH: &'static str = "/networks/{id}";
}

impl Object for Info {
    const PATH: &'static str = "/info";
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

fn entries<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Vec<T>, D::Error> {
    let list: Option<Vec<Option<T>>> = Option::deserialize(value)?;
    Ok(list.into_iter().flatten().flatten().collect())
}

/// As [`or_default`], for maps with values of any kind; a value that is `null` is its default.
fn map<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<BTreeMap<String, T>, D::Error> {
    let map: Option<BTreeMap<String, Option<T>>> = Option::deserialize(value)?;
    Ok(map
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

/// Structs whose every field may be missing or `null`.
macro_rules! answers {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $key:literal $field:ident: $type:ty = $read:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$doc])* #[serde(rename = $key, deserialize_with = $read)] pub $field: $type,)*
        }
    )*};
}

pub mod node;

answers! {
    /// When an object of the Swarm was last changed.
    Version {
        /// Place in the Swarm's log: of two states of the Swarm, the later one has an object with the higher index,
        /// unless the change was a removal.
        "Index" index: u64 = "or_default",
    }
    /// A service, of `GET /services`.
    Service {
        /// Unique in the Swarm.
        "ID" id: String = "or_default",
        /// Its last change.
        "Version" version: Version = "or_default",
        /// What is wanted now. The spec before it, which tasks may still run, is not needed.
        "Spec" spec: ServiceSpec = "or_default",
        /// What has been allocated for it. Without VIPs and ports for `dnsrr`, and until Swarm has allocated them.
        "Endpoint" endpoint: Endpoint = "or_default",
    }
    /// What a service is to be.
    ServiceSpec {
        /// Unique in the Swarm.
        "Name" name: String = "or_default",
        /// Labels of the service itself, not of its containers.
        "Labels" labels: BTreeMap<String, String> = "map",
        /// How its name is answered.
        "EndpointSpec" endpoint_spec: EndpointSpec = "or_default",
        /// What its tasks are to be.
        "TaskTemplate" task_template: TaskTemplate = "or_default",
        /// Its networks as old clients wrote them; [`TaskTemplate::networks`] replaces it.
        "Networks" networks: Vec<NetworkTarget> = "entries",
    }
    /// How a service is reached.
    EndpointSpec {
        /// `vip`, `dnsrr`, or empty for the default, `vip`.
        "Mode" mode: String = "or_default",
    }
    /// What tasks are to be.
    TaskTemplate {
        /// Networks to attach to.
        "Networks" networks: Vec<NetworkTarget> = "entries",
    }
    /// A network of a service.
    NetworkTarget {
        /// The network's id; old clients wrote its name.
        "Target" target: String = "or_default",
        /// Further names of the service there. `docker stack deploy` puts the name within the stack here.
        "Aliases" aliases: Vec<String> = "entries",
    }
    /// What Swarm has allocated for a service.
    Endpoint {
        /// The spec for which it was allocated.
        "Spec" spec: EndpointSpec = "or_default",
        /// Published ports, automatic ones included.
        "Ports" ports: Vec<PortConfig> = "entries",
        /// One for each network, also for `ingress` if a port is published there.
        "VirtualIPs" virtual_ips: Vec<VirtualIp> = "entries",
    }
    /// A published port.
    PortConfig {
        /// `tcp`, `udp` or `sctp`; empty for the default, `tcp`.
        "Protocol" protocol: String = "or_default",
        /// In the container.
        "TargetPort" target: i64 = "or_default",
        /// On the nodes; 0 until it is chosen.
        "PublishedPort" published: i64 = "or_default",
        /// `ingress`, `host`, or empty for the default, `ingress`.
        "PublishMode" mode: String = "or_default",
    }
    /// The VIP of a service in one network.
    VirtualIp {
        /// The network's id.
        "NetworkID" network: String = "or_default",
        /// Address with prefix length; may be empty or `<nil>`.
        "Addr" address: String = "or_default",
    }
    /// A task, of `GET /tasks`.
    Task {
        /// Unique in the Swarm.
        "ID" id: String = "or_default",
        /// Its last change.
        "Version" version: Version = "or_default",
        /// Empty for tasks that only attach a plain container to a network.
        "ServiceID" service: String = "or_default",
        /// Which of the replicas it is, from 1; 0 in global services.
        "Slot" slot: i64 = "or_default",
        /// Empty until it is assigned.
        "NodeID" node: String = "or_default",
        /// What it was to be.
        "Spec" spec: TaskSpec = "or_default",
        /// What is.
        "Status" status: TaskStatus = "or_default",
        /// What is wanted.
        "DesiredState" desired: String = "or_default",
        /// Its addresses.
        "NetworksAttachments" attachments: Vec<Attachment> = "entries",
    }
    /// What a task does.
    TaskStatus {
        /// `running` once it is healthy, if it has a health check.
        "State" state: String = "or_default",
        /// Its container, once there is one.
        "ContainerStatus" container: ContainerStatus = "or_default",
    }
    /// What a task was to be.
    TaskSpec {
        /// Of the container.
        "ContainerSpec" container: ContainerSpec = "or_default",
    }
    /// What a task's container was to be.
    ContainerSpec {
        /// If one was wished for; may hold placeholders.
        "Hostname" hostname: String = "or_default",
    }
    /// A task's container.
    ContainerStatus {
        /// 64 digits.
        "ContainerID" id: String = "or_default",
    }
    /// A task's place in a network.
    Attachment {
        /// The network, as it was when the task was made.
        "Network" network: AttachedNetwork = "or_default",
        /// With prefix lengths.
        "Addresses" addresses: Vec<String> = "entries",
    }
    /// The network of an attachment.
    AttachedNetwork {
        /// The network's id.
        "ID" id: String = "or_default",
    }
    /// A node, of `GET /nodes`.
    Node {
        /// Unique in the Swarm.
        "ID" id: String = "or_default",
        /// Its last change.
        "Version" version: Version = "or_default",
        /// What the node says about itself.
        "Description" description: NodeDescription = "or_default",
        /// What the managers know of it.
        "Status" status: NodeStatus = "or_default",
        /// Of managers only.
        "ManagerStatus" manager: ManagerStatus = "or_default",
    }
    /// What a node says about itself.
    NodeDescription {
        /// Need not be unique.
        "Hostname" hostname: String = "or_default",
    }
    /// What the managers know of a node.
    NodeStatus {
        /// `ready`, `down`, `unknown` or `disconnected`.
        "State" state: String = "or_default",
        /// Where it was seen; an address without use to others on some managers.
        "Addr" address: String = "or_default",
    }
    /// A manager's part in the control of the Swarm.
    ManagerStatus {
        /// Address and port for other managers.
        "Addr" address: String = "or_default",
    }
    /// A network, of `GET /networks` and `GET /networks/{id}`.
    Network {
        /// Unique.
        "Id" id: String = "or_default",
        /// Unique among networks of the Swarm.
        "Name" name: String = "or_default",
        /// `swarm`, or `local` for networks of the asked node alone.
        "Scope" scope: String = "or_default",
        /// `overlay` for those that are balanced.
        "Driver" driver: String = "or_default",
        /// Whether it carries published ports.
        "Ingress" ingress: bool = "or_default",
        /// Its address ranges.
        "IPAM" ipam: Ipam = "or_default",
        /// The driver's options: the network's number, `encrypted`, and more.
        "Options" options: BTreeMap<String, String> = "map",
        /// Nodes that have an endpoint in it; not in lists.
        "Peers" peers: Vec<node::Peer> = "entries",
        /// Endpoints on the asked node, by container; the engine's own have a name instead of an id. Not in lists.
        "Containers" endpoints: BTreeMap<String, node::LocalEndpoint> = "map",
    }
    /// Address ranges of a network.
    Ipam {
        /// One for each range.
        "Config" config: Vec<IpamConfig> = "entries",
    }
    /// One address range.
    IpamConfig {
        /// With prefix length.
        "Subnet" subnet: String = "or_default",
    }
    /// The asked engine, of `GET /info`.
    Info {
        /// The engine's host name.
        "Name" name: String = "or_default",
        /// Its part in a Swarm.
        "Swarm" swarm: SwarmInfo = "or_default",
    }
    /// An engine's part in a Swarm.
    SwarmInfo {
        /// Why it is in no working Swarm, if the engine says so.
        "Error" error: String = "or_default",
        /// Its id in `GET /nodes`; empty if it is in no Swarm.
        "NodeID" node: String = "or_default",
        /// Its own address for other nodes.
        "NodeAddr" address: String = "or_default",
        /// `active` if it is in a Swarm.
        "LocalNodeState" state: String = "or_default",
        /// Whether it is a manager, and so answers about services.
        "ControlAvailable" manager: bool = "or_default",
        /// Managers that it knows.
        "RemoteManagers" managers: Vec<RemoteManager> = "entries",
    }
    /// A manager, as another node knows it.
    RemoteManager {
        /// Its id.
        "NodeID" node: String = "or_default",
        /// Address and port of its control plane.
        "Addr" address: String = "or_default",
    }
}

impl Listed for Service {
    const PATH: &'static str = "/services";
}

impl Listed for Task {
    const PATH: &'static str = "/tasks";
}

impl Listed for Node {
    const PATH: &'static str = "/nodes";
}

impl Listed for Network {
    const PATH: &'static str = "/networks";
}
