//! Every setting of the agent, its meaning and its default. The doc comments are what `config default` prints.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::settings::{self, FileMode, InterfaceGlob, settings};

settings! {
    /// This machine.
    Node {
        /// Its name among the nodes of the cluster. Empty: the host name.
        name: String = String::new();
    }
}

settings! {
    /// Where the agent keeps what outlives it. Two agents on one machine need different directories.
    Paths {
        /// Directory on a BPF file system in which maps and links are pinned; a directory for the
        /// version of their layout is made below it.
        bpffs: PathBuf = "/sys/fs/bpf/lb".into();
        /// Directory of the admin socket and of the agent's state.
        run: PathBuf = "/run/lb".into();
    }
}

/// Where cluster state comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// One TOML document, watched.
    #[default]
    File,
    /// A Docker Swarm.
    Docker,
}

settings! {
    /// Where cluster state comes from.
    Provider {
        /// "file": one TOML document, the same on every node, watched for changes. "docker": the Swarm of
        /// this node's dockerd; agents on managers read it, and tell the others.
        kind: ProviderKind = ProviderKind::File;
        /// The cluster file; docs/cluster-file.md describes it.
        path: PathBuf = "/etc/lb/cluster.toml".into();
        /// dockerd's socket.
        socket: PathBuf = "/var/run/docker.sock".into();
        /// dockerd's exec root (`--exec-root`): the network namespaces of containers are in netns below it.
        exec_root: PathBuf = "/var/run/docker".into();
        /// How often a manager lists the Swarm's tasks; less often, down to once a second, where that takes long.
        /// Swarm stops a task 2s after it has withdrawn it.
        #[serde(with = "settings::duration")]
        poll: Duration = Duration::from_millis(500);
    }
}

/// How XDP is used on node interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native where the driver is known to work, else tc alone.
    #[default]
    Auto,
    /// In the driver, or fail.
    Native,
    /// In the kernel's generic hook: slower, for tests.
    Generic,
    /// tc alone.
    Off,
}

impl std::fmt::Display for XdpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        })
    }
}

/// What becomes of programs and tables when the agent stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// They keep forwarding.
    #[default]
    Keep,
    /// They are removed, as `lb-agent uninstall` does.
    Remove,
}

settings! {
    /// The programs in the kernel.
    Datapath {
        /// Node interfaces: names or patterns, as "eth0" or "en*". Empty: every interface that holds
        /// an address which the cluster state names as this node's.
        interfaces: Vec<InterfaceGlob> = Vec::new();
        /// XDP on node interfaces: "auto" uses it where the driver is known to work and leaves the rest
        /// to tc; "native" demands the driver's hook; "generic" uses the kernel's slow hook; "off" uses
        /// tc alone. `lbctl status` shows what is in use and why.
        xdp: XdpMode = XdpMode::Auto;
        /// UDP port of the tunnel between nodes, equal on every node. 4790 stands beside Swarm's own
        /// 4789; with 4789 no firewall rule of a Swarm has to change.
        tunnel_port: u16 = 4790;
        /// Where the node routes between workloads of a network, a VIP's packets are handed over at once, past the
        /// rules of the node's own netfilter. false: its stack carries them, and its rules see them.
        hand_over: bool = true;
        /// The bridge over which containers of any network reach the outside, of the same subnet on every
        /// node: published ports answer its containers too. Empty, or not there: nobody is behind it.
        gateway_bridge: String = "docker_gwbridge".into();
        /// Addresses that stand for clients behind that bridge, and the first for the node's own loopback
        /// address: every node has those, and a backend on another node could not tell whose they are.
        /// A range that nobody uses, equal on every node, at least as large as the bridge's subnet.
        #[serde(deserialize_with = "settings::subnet")]
        masquerade: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 16);
        /// Entries of each flow table. A change takes effect when the maps are made anew, after
        /// `lb-agent uninstall`.
        flows: u32 = lb_common::abi::capacity::FLOWS;
        /// Entries of each overflow table, where new flows go when a flow table is full until they prove to
        /// be real. The kernel takes their memory at once: 8 MiB for each 16384. A change takes effect as
        /// that of `flows` does.
        overflow: u32 = lb_common::abi::capacity::OVERFLOW;
        /// When the agent stops: "keep" leaves the datapath forwarding, "remove" takes it away as
        /// `lb-agent uninstall` does.
        on_exit: OnExit = OnExit::Keep;
        /// Idle times of flows.
        timeouts: Timeouts = Timeouts::default();
    }
}

settings! {
    /// After how much idle time a flow is forgotten. A service may set its own for established flows.
    Timeouts {
        /// TCP, only the SYN was seen. A SYN that is sent again later starts a new flow.
        #[serde(with = "settings::duration")]
        tcp_syn: Duration = Duration::from_secs(30);
        /// TCP, established. Longer than the two hours after which kernels send their first keepalive
        /// (RFC 5382, 5).
        #[serde(with = "settings::duration")]
        tcp_established: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
        /// TCP, one side has sent FIN; the other may still send for long (RFC 5382, 5).
        #[serde(with = "settings::duration")]
        tcp_closing: Duration = Duration::from_secs(4 * 60);
        /// TCP, closed by both sides or reset: long enough for retransmissions of the last segments.
        #[serde(with = "settings::duration")]
        tcp_closed: Duration = Duration::from_secs(10);
        /// UDP without an answer.
        #[serde(with = "settings::duration")]
        udp_new: Duration = Duration::from_secs(30);
        /// UDP with an answer (RFC 4787, 4.3 recommends five minutes, and IPVS has them).
        #[serde(with = "settings::duration")]
        udp_established: Duration = Duration::from_secs(5 * 60);
    }
}

/// Interfaces of this node that lead to workloads of one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Host side of the workload interfaces.
    pub interface: InterfaceGlob,
    /// Name of the network in which the workloads are.
    pub network: String,
}

settings! {
    /// The stream of cluster state from agents on managers to all others, TCP with TLS 1.3 on both ends. Off unless
    /// a secret or certificates are set. Needed where only some nodes can read the cluster state.
    Stream {
        /// Addresses with port on which an agent on a manager listens; the others find it at the port of
        /// the first. Empty: it does not listen.
        #[serde(deserialize_with = "settings::listen")]
        listen: Vec<SocketAddr> = vec![SocketAddr::from(([0, 0, 0, 0], 4790))];
        /// File with a secret that all nodes share, at least 32 bytes, as `openssl rand -hex 32` makes it,
        /// readable by nobody else. Whoever has it can act as any node. To change it, add the new one
        /// as a second line everywhere, then make it the first, then remove the old one.
        secret_file: PathBuf = PathBuf::new();
        /// Instead of a secret: this node's certificate with its chain, PEM. Peers are believed for being
        /// signed by stream.ca, whatever their names; managers' need the usage serverAuth, all need
        /// clientAuth.
        certificate: PathBuf = PathBuf::new();
        /// The private key of the certificate, PEM.
        key: PathBuf = PathBuf::new();
        /// Certificates of the authority that signs the nodes' certificates, PEM.
        ca: PathBuf = PathBuf::new();
        /// Most connections that an agent on a manager serves: one from each other node.
        connections: u32 = 1024;
        /// File in which the last state is kept, so that a node can start while no manager answers. What nodes report is
        /// kept in a second one beside it, with `.reports` behind the name.
        /// Empty: snapshot in the run directory, which a reboot may clear.
        state_file: PathBuf = PathBuf::new();
    }
}

impl Stream {
    /// Whether the configuration names a secret or certificates.
    pub fn enabled(&self) -> bool {
        [&self.secret_file, &self.certificate, &self.key, &self.ca]
            .iter()
            .any(|path| !path.as_os_str().is_empty())
    }

    /// The TCP port at which the agents of the cluster's managers are found.
    pub fn port(&self) -> Option<u16> {
        self.listen.first().map(SocketAddr::port)
    }
}

settings! {
    /// Answers service names and forwards the rest.
    Dns {
        /// Whether the agent answers DNS.
        enabled: bool = false;
        /// Addresses with port to listen on, UDP and TCP. Only workloads should reach them.
        #[serde(deserialize_with = "settings::listen")]
        listen: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 53))];
        /// Servers that are asked for unknown names, in this order; the port is 53 unless given.
        /// Empty: they are answered with SERVFAIL.
        #[serde(deserialize_with = "settings::upstreams")]
        upstreams: Vec<SocketAddr> = Vec::new();
        /// How long clients may keep an answer.
        #[serde(with = "settings::duration")]
        ttl: Duration = Duration::from_secs(5);
    }
}

settings! {
    /// Prometheus metrics at /metrics, health at /livez and /readyz.
    Metrics {
        /// Address with port to listen on, or a list of them. Empty: off.
        #[serde(deserialize_with = "settings::listen")]
        listen: Vec<SocketAddr> = vec![SocketAddr::from(([127, 0, 0, 1], 9464))];
    }
}

settings! {
    /// The API that lbctl speaks, on a Unix socket only.
    Admin {
        /// Path of the socket. Empty: admin.sock in the run directory.
        socket: PathBuf = PathBuf::new();
        /// Permission bits of the socket, octal.
        mode: FileMode = FileMode(0o660);
        /// Group that owns the socket. Empty: the agent's own.
        group: String = String::new();
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

settings! {
    /// Logs, on standard error.
    Log {
        /// "error", "warn", "info", "debug" or "trace", also by target: "info,lb::dns=debug".
        level: String = "info".into();
        /// "text" for people, "json" for machines.
        format: LogFormat = LogFormat::Text;
    }
}
