//! Answers service names from the desired state and forwards the rest.
//!
//! | file | holds |
//! |---|---|
//! | [`zone`] | the pure table: which addresses a name has, and for whom |
//! | `names`, `shards` | the names of one network; a table whose copies share what is the same |
//! | [`explain`] | the same, with reasons, for `lbctl dns query` |
//! | `message` | questions and answers as bytes; what an upstream's answer is worth |
//! | `quick` | the short way of usual questions, without a message in between |
//! | `server` | from a client's bytes to the answer's |
//! | `listen`, `udp`, `tcp` | the sockets |
//! | `upstream` | forwarding |
//! | [`counters`], `limits` | what is counted, and how much clients can make the server hold |
//!
//! The rules for users are in `docs/dns.md`.

pub mod counters;
pub mod explain;
#[doc(hidden)]
pub mod fuzz;
mod listen;
mod message;
mod names;
mod quick;
mod server;
mod shards;
mod tcp;
mod udp;
mod upstream;
pub mod zone;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::net::limits::{self, Limit};

pub use counters::DnsCounters;
pub use zone::Zone;

/// Tasks that receive on each UDP socket.
const UDP_WORKERS: usize = 2;

/// How the DNS server is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsSettings {
    /// Addresses that are served by UDP and TCP. Port 0 takes any free port, the same for both.
    pub listen: Vec<SocketAddr>,
    /// Servers that unknown names are forwarded to, in this order. None: such names are answered with SERVFAIL.
    pub upstreams: Vec<SocketAddr>,
    /// How long clients may keep an answer; sent in whole seconds.
    pub ttl: Duration,
    /// How long one upstream may take before the next is asked.
    pub upstream_timeout: Duration,
    /// Who may have names forwarded, beside the cluster's own nodes and workloads; all others are refused.
    pub forward_for: Vec<IpNet>,
    /// Questions being forwarded at a time; one client may have a quarter of them.
    pub max_forwards: usize,
    /// TCP connections at a time; one client may have a quarter of them.
    pub max_connections: usize,
    /// A TCP connection without a whole question for so long is closed.
    pub tcp_idle: Duration,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            upstreams: Vec::new(),
            ttl: Duration::from_secs(5),
            upstream_timeout: Duration::from_secs(2),
            forward_for: private_ranges(),
            max_forwards: 1024,
            max_connections: 256,
            tcp_idle: Duration::from_secs(10),
        }
    }
}

/// Loopback, private, shared and link-local ranges of both families.
pub fn private_ranges() -> Vec<IpNet> {
    let ranges = [
        (IpAddr::from([127, 0, 0, 0]), 8),
        (IpAddr::from([10, 0, 0, 0]), 8),
        (IpAddr::from([172, 16, 0, 0]), 12),
        (IpAddr::from([192, 168, 0, 0]), 16),
        (IpAddr::from([100, 64, 0, 0]), 10),
        (IpAddr::from([169, 254, 0, 0]), 16),
        (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16]), 128),
        (IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7),
        (IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
    ];
    ranges
        .into_iter()
        .map(|(address, length)| IpNet::new_assert(address, length))
        .collect()
}

/// Why the DNS server did not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A listen address cannot be had.
    #[error("cannot listen for DNS on {address} ({transport}): {source}; {hint}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// An upstream is this very server.
    #[error("DNS upstream {0} is this agent's own listen address; name the servers that know the outside world")]
    Loop(SocketAddr),
}

/// A running DNS server. Dropping it leaves it running until the token is cancelled.
#[derive(Debug)]
pub struct DnsHandle {
    addresses: Vec<SocketAddr>,
    server: Arc<server::Server>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl DnsHandle {
    /// The addresses served, with the ports that were taken for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Questions waiting for an upstream right now.
    pub fn forwarding(&self) -> usize {
        self.server.forwards.held()
    }

    /// TCP connections open right now.
    pub fn connections(&self) -> usize {
        self.server.connections.held()
    }

    /// Stops and waits until all sockets are closed.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Starts serving on all addresses of `settings`, or on none.
///
/// Start it when the first snapshot is in: until a name is known, it is forwarded. A new zone is stored into `zone`
/// and answers from the next question on. The server ends when `stop` is cancelled.
///
/// # Errors
/// If an address cannot be bound, or an upstream is one of the listen addresses.
pub async fn start(
    settings: DnsSettings,
    zone: Arc<ArcSwap<Zone>>,
    counters: Arc<DnsCounters>,
    stop: CancellationToken,
) -> Result<DnsHandle, DnsError> {
    for &upstream in &settings.upstreams {
        if settings
            .listen
            .iter()
            .any(|&listen| listen::is_same_server(listen, upstream))
        {
            return Err(DnsError::Loop(upstream));
        }
    }
    let mut listeners = Vec::new();
    for &address in &settings.listen {
        listeners.push(listen::bind(address)?);
    }
    let (max_forwards, max_connections) = within_open_files(&settings);
    let loops = settings
        .upstreams
        .iter()
        .map(SocketAddr::ip)
        .filter(|&ip| !listen::is_local(ip))
        .collect();
    let server = Arc::new(server::Server {
        zone,
        counters,
        upstreams: upstream::Upstreams::new(settings.upstreams, settings.upstream_timeout),
        ttl: u32::try_from(settings.ttl.as_secs()).unwrap_or(u32::MAX),
        forward_for: settings.forward_for,
        loops,
        forwards: Limit::new(max_forwards, max_forwards.div_ceil(4)),
        connections: Limit::new(max_connections, max_connections.div_ceil(4)),
    });
    let (tasks, stop) = (TaskTracker::new(), stop.child_token());
    let mut addresses = Vec::new();
    for (address, udp, tcp) in listeners {
        addresses.push(address);
        let udp = Arc::new(udp);
        for _ in 0..UDP_WORKERS {
            tasks.spawn(udp::serve(udp.clone(), server.clone(), tasks.clone(), stop.clone()));
        }
        tasks.spawn(tcp::serve(
            tcp,
            server.clone(),
            settings.tcp_idle,
            tasks.clone(),
            stop.clone(),
        ));
    }
    tasks.close();
    tracing::info!(target: "lb::dns", addresses = ?addresses, "DNS serves");
    Ok(DnsHandle {
        addresses,
        server,
        tasks,
        stop,
    })
}

/// The limits on forwards and connections, low enough to leave half of the process's open files to all else: each
/// takes one file, and clients must not be able to take those that the agent needs for its own work.
fn within_open_files(settings: &DnsSettings) -> (usize, usize) {
    let (forwards, connections) = (settings.max_forwards, settings.max_connections);
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let room = limits::open_files(&text).unwrap_or(usize::MAX) / 2;
    if forwards.saturating_add(connections) <= room {
        return (forwards, connections);
    }
    let reduced = (forwards.min(room / 4 * 3).max(1), connections.min(room / 4).max(1));
    tracing::warn!(
        target: "lb::dns",
        forwards = reduced.0,
        connections = reduced.1,
        "fewer forwards and connections than set: raise the limit of open files (LimitNOFILE=)"
    );
    reduced
}
