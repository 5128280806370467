//! What the types of the settings cannot say: ranges, and settings that contradict each other.

use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::Config;
use super::document::Problem;

/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last one zero.
const SOCKET_PATH_MAX: usize = 107;
/// The datapath's clock wraps after 52 days; idle times stay below half of that.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 86_400);
/// Tasks must be known to go before Swarm stops them, and the engine has other things to do.
const POLL: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
const FLOWS_MIN: u32 = 1_024;
const FLOWS_MAX: u32 = 1 << 26;
/// Each CPU keeps some free entries for itself: with fewer, flows would give way while there is room.
const OVERFLOW_MIN: u32 = 1_024;

/// Everything that is wrong with a configuration whose empty names and paths are filled in.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    names(config, &mut problems);
    paths(config, &mut problems);
    provider(config, &mut problems);
    datapath(config, &mut problems);
    stream(config, &mut problems);
    dns(config, &mut problems);
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        problems.add(
            "log.level",
            format!("`{}` is not a log level: {error}", config.log.level),
            "write \"info\", or by target \"info,lb::dns=debug\"",
        );
    }
    problems.0
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Problem {
            field: field.into(),
            message: message.into(),
            hint: Some(hint.into()),
        });
    }
}

fn names(config: &Config, problems: &mut Problems) {
    if config.node.name.is_empty() {
        problems.add(
            "node.name",
            "the host name is empty or not readable",
            "name this node as the cluster file does",
        );
    }
    for (index, workload) in config.workload.iter().enumerate() {
        if workload.network.is_empty() {
            problems.add(
                format!("workload[{index}].network"),
                "must not be empty",
                "name a network of the cluster state",
            );
        }
    }
}

fn paths(config: &Config, problems: &mut Problems) {
    let stream = &config.stream;
    let named: [(&str, &Path); 11] = [
        ("paths.bpffs", &config.paths.bpffs),
        ("paths.run", &config.paths.run),
        ("provider.path", &config.provider.path),
        ("provider.socket", &config.provider.socket),
        ("provider.exec_root", &config.provider.exec_root),
        ("admin.socket", &config.admin.socket),
        ("stream.secret_file", &stream.secret_file),
        ("stream.certificate", &stream.certificate),
        ("stream.key", &stream.key),
        ("stream.ca", &stream.ca),
        ("stream.state_file", &stream.state_file),
    ];
    for (field, path) in named {
        let follows = matches!(field, "admin.socket" | "stream.state_file") && path.starts_with(&config.paths.run);
        let unset = field.starts_with("stream.") && path.as_os_str().is_empty();
        if !follows && !unset && !path.is_absolute() {
            let message = format!("`{}` is not an absolute path", path.display());
            problems.add(field, message, "start the path with `/`");
        }
    }
    let length = config.admin.socket.as_os_str().as_bytes().len();
    if length > SOCKET_PATH_MAX {
        problems.add(
            "admin.socket",
            format!("the socket's path has {length} bytes; the kernel allows {SOCKET_PATH_MAX}"),
            "choose a shorter admin.socket or paths.run",
        );
    }
}

fn provider(config: &Config, problems: &mut Problems) {
    let poll = config.provider.poll;
    if !(POLL[0]..=POLL[1]).contains(&poll) {
        let message = format!("{} is out of range", humantime::format_duration(poll));
        problems.add("provider.poll", message, "choose 50ms to 1s");
    }
}

fn datapath(config: &Config, problems: &mut Problems) {
    let datapath = &config.datapath;
    if datapath.tunnel_port == 0 {
        problems.add(
            "datapath.tunnel_port",
            "0 is not a port",
            "choose a UDP port from 1 to 65535",
        );
    }
    if !(FLOWS_MIN..=FLOWS_MAX).contains(&datapath.flows) {
        let message = format!("{} is out of range", datapath.flows);
        problems.add(
            "datapath.flows",
            message,
            format!("choose {FLOWS_MIN} to {FLOWS_MAX} entries"),
        );
    }
    if !(OVERFLOW_MIN..=FLOWS_MAX).contains(&datapath.overflow) {
        let message = format!("{} is out of range", datapath.overflow);
        problems.add(
            "datapath.overflow",
            message,
            format!("choose {OVERFLOW_MIN} to {FLOWS_MAX} entries"),
        );
    }
    let range = datapath.masquerade;
    if !(8..=30).contains(&range.prefix_len()) || range.addr() != range.network() || !is_usable(range.addr()) {
        problems.add(
            "datapath.masquerade",
            format!("{range} is not a range of addresses that nobody uses"),
            "write the first address of a range and a length of 8 to 30, as in \"198.18.0.0/16\"",
        );
    }
    let timeouts = &datapath.timeouts;
    let named = [
        ("tcp_syn", timeouts.tcp_syn),
        ("tcp_established", timeouts.tcp_established),
        ("tcp_closing", timeouts.tcp_closing),
        ("tcp_closed", timeouts.tcp_closed),
        ("udp_new", timeouts.udp_new),
        ("udp_established", timeouts.udp_established),
    ];
    for (name, value) in named {
        if value < Duration::from_secs(1) || value > TIMEOUT_MAX {
            let message = format!("{} is out of range", humantime::format_duration(value));
            problems.add(format!("datapath.timeouts.{name}"), message, "choose 1s to 24days");
        }
    }
}

/// Whether the kernel takes packets from such an address.
fn is_usable(first: Ipv4Addr) -> bool {
    let reserved = first.octets()[0] == 0 || first.octets()[0] >= 240;
    !(reserved || first.is_loopback() || first.is_multicast() || first.is_link_local())
}

fn stream(config: &Config, problems: &mut Problems) {
    let stream = &config.stream;
    let set = |path: &Path| !path.as_os_str().is_empty();
    let parts = [
        ("stream.certificate", set(&stream.certificate)),
        ("stream.key", set(&stream.key)),
        ("stream.ca", set(&stream.ca)),
    ];
    if set(&stream.secret_file) {
        for (field, _) in parts.iter().filter(|(_, set)| *set) {
            problems.add(
                *field,
                "there is a shared secret already",
                "remove stream.secret_file to use certificates, or this",
            );
        }
    } else if parts.iter().any(|(_, set)| *set) {
        for (field, _) in parts.iter().filter(|(_, set)| !*set) {
            problems.add(
                *field,
                "not set, and certificates need it",
                "set stream.certificate, stream.key and stream.ca together",
            );
        }
    }
    for (index, listen) in stream.listen.iter().enumerate() {
        if listen.port() == 0 {
            problems.add(
                format!("stream.listen[{index}]"),
                "0 is not a port that other nodes can find",
                "choose a TCP port from 1 to 65535",
            );
        }
    }
    if !(1..=65_536).contains(&stream.connections) {
        problems.add(
            "stream.connections",
            format!("{} is out of range", stream.connections),
            "choose 1 to 65536",
        );
    }
}

fn dns(config: &Config, problems: &mut Problems) {
    let dns = &config.dns;
    if dns.enabled && dns.listen.is_empty() {
        problems.add(
            "dns.listen",
            "DNS is enabled but has no address to listen on",
            "name an address, or set dns.enabled = false",
        );
    }
    for (index, upstream) in dns.upstreams.iter().enumerate() {
        if dns.enabled && dns.listen.contains(upstream) {
            problems.add(
                format!("dns.upstreams[{index}]"),
                format!("{upstream} is this agent itself: unknown names would go round in circles"),
                "name the servers that the host itself asks",
            );
        }
    }
    if dns.ttl > Duration::from_secs(86_400) || dns.ttl.subsec_nanos() != 0 {
        problems.add(
            "dns.ttl",
            format!("{} is not usable", humantime::format_duration(dns.ttl)),
            "choose whole seconds, at most 1day",
        );
    }
}
