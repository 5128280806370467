//! [`Contender`]: two nodes, a client, backends; and on the nodes whoever carries the packets. All contenders' namespaces
//! exist at once, so that they can be measured in turn.
//!
//! A packet takes the same hops with each of them: client, node 1, (node 2,) backend, and back the same way. Where no agent
//! carries it, node 2 has a route that leads replies back to node 1.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::cleanup::{Guard, Resource};
use lb_tests::cluster::{Backend, Cluster, Document, Family, Port, Published, Service, Workload};
use lb_tests::netns::Netns;

use super::serve::Server;
use crate::packages;

/// Ports of the two backends of each service.
const BACKENDS: [u16; 2] = [7000, 7001];
/// First published port of services that only fill the tables.
const FILLERS: u16 = 12_000;
/// How long a contender may take until it answers.
const READY: Duration = Duration::from_secs(60);

/// Who carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody: the client speaks to the backend, the nodes route.
    Direct,
    /// As `Direct`, without offloads.
    DirectBare,
    /// This balancer at tc.
    OursTc,
    /// This balancer at XDP, without offloads.
    OursXdp,
    /// iptables.
    Iptables,
    /// nftables.
    Nftables,
    /// HAProxy, TCP mode.
    Haproxy,
    /// nginx, module stream.
    Nginx,
}

impl Kind {
    /// Whether clients and backends leave segmentation and checksums to their interfaces.
    const fn offload(self) -> bool {
        !matches!(self, Self::DirectBare | Self::OursXdp)
    }

    const fn ours(self) -> bool {
        matches!(self, Self::OursTc | Self::OursXdp)
    }

    const fn direct(self) -> bool {
        matches!(self, Self::Direct | Self::DirectBare)
    }

    const fn proxy(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx)
    }
}

/// Where a client is, and what it speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A published port whose backends are on the node.
    PublishedHere,
    /// A published port whose backends are on the other node.
    PublishedThere,
    /// A VIP whose backends are on the client's node.
    VipHere,
    /// A VIP whose backends are on the other node.
    VipThere,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::PublishedHere, Self::PublishedThere, Self::VipHere, Self::VipThere];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PublishedHere => "published port, backend on the node",
            Self::PublishedThere => "published port, backend on another node",
            Self::VipHere => "VIP, backend on the node",
            Self::VipThere => "VIP, backend on another node",
        }
    }

    const fn published(self) -> bool {
        matches!(self, Self::PublishedHere | Self::PublishedThere)
    }

    const fn here(self) -> bool {
        matches!(self, Self::PublishedHere | Self::VipHere)
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One way to carry packets, ready.
pub(crate) struct Contender {
    /// As a subject of measurements.
    pub(crate) name: String,
    kind: Kind,
    cluster: Cluster,
    here: Server,
    there: Server,
    proxy: Option<Proxy>,
}

impl Contender {
    /// Builds it, with as many services in all as wanted, and waits until it answers.
    ///
    /// # Errors
    /// If something is not to be had, or it does not answer.
    pub(crate) fn start(name: &str, kind: Kind, services: u16) -> Result<Self> {
        let builder = Cluster::builder()
            .nodes(2)
            .clients(1)
            .agents(kind.ours())
            .flows(1 << 20)
            .log("warn");
        let xdp = if kind == Kind::OursXdp { "native" } else { "off" };
        let cluster = builder.xdp(xdp).offload(kind.offload()).start()?;
        let serve = |workload: &Workload| Server::start(workload.netns(), v4(workload), &BACKENDS, 1);
        let (here, there) = (serve(backend(&cluster, true))?, serve(backend(&cluster, false))?);
        let fillers = services.saturating_sub(4);
        if !kind.ours() {
            lead_back(&cluster)?;
        }
        let mut proxy = None;
        match kind {
            Kind::Direct | Kind::DirectBare => {}
            Kind::OursTc | Kind::OursXdp => cluster.edit(|document| describe(document, &cluster, fillers))?,
            Kind::Iptables => {
                let rules = iptables(&cluster, fillers);
                feed(
                    node(&cluster),
                    Command::new(packages::find("iptables-restore")?).arg("--noflush"),
                    &rules,
                )?;
            }
            Kind::Nftables => {
                let rules = nftables(&cluster, fillers);
                feed(
                    node(&cluster),
                    Command::new(packages::find("nft")?).args(["-f", "-"]),
                    &rules,
                )?;
            }
            Kind::Haproxy | Kind::Nginx => proxy = Some(Proxy::start(&cluster, kind)?),
        }
        let contender = Self {
            name: name.to_owned(),
            kind,
            cluster,
            here,
            there,
            proxy,
        };
        contender.wait_ready()?;
        Ok(contender)
    }

    /// Whether it takes part.
    pub(crate) fn takes(&self, way: Way, protocol: Protocol) -> bool {
        let plain = !self.kind.proxy() && self.kind.offload();
        (way.published() || plain) && (protocol == Protocol::Tcp || self.kind != Kind::Haproxy)
    }

    /// What its client speaks to.
    pub(crate) fn target(&self, way: Way, protocol: Protocol) -> SocketAddr {
        if self.kind.direct() {
            return (v4(backend(&self.cluster, way.here())), BACKENDS[0]).into();
        }
        if way.published() {
            (
                self.cluster.node(0).address(Family::V4),
                published(way.here(), protocol),
            )
                .into()
        } else {
            (vip(way.here(), protocol), 80).into()
        }
    }

    /// Where its client is.
    pub(crate) fn client(&self, way: Way) -> &Netns {
        if way.published() {
            self.cluster.client(0).netns()
        } else {
            self.cluster.workload(0, "shop").netns()
        }
    }

    /// Who gets datagrams.
    pub(crate) fn server(&self, way: Way) -> &Server {
        if way.here() { &self.here } else { &self.there }
    }

    /// What the client's interface leaves to be done by others.
    pub(crate) fn offloads(&self, way: Way) -> Result<String> {
        let text = self.client(way).output("ethtool", &["-k", "eth0"])?;
        let wanted = [
            ("tx-checksumming", "tx checksum"),
            ("tcp-segmentation-offload", "TSO"),
            ("generic-receive-offload", "GRO"),
        ];
        let state = wanted.map(|(name, short)| {
            let on = text.lines().any(|line| line.trim().starts_with(&format!("{name}: on")));
            format!("{short} {}", if on { "on" } else { "off" })
        });
        Ok(state.join(", "))
    }

    /// What its proxy has written, for messages.
    fn said(&self) -> String {
        let log = self.proxy.as_ref().map(|proxy| proxy.directory.path().join("log"));
        log.and_then(|log| std::fs::read_to_string(log).ok())
            .map_or_else(String::new, |text| format!("\n{text}"))
    }

    fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        for way in Way::ALL.into_iter().filter(|way| self.takes(*way, Protocol::Tcp)) {
            let target = self.target(way, Protocol::Tcp);
            let ask = || super::load::latency(target, Duration::from_millis(1));
            while let Err(error) = self.client(way).run(ask) {
                ensure!(start.elapsed() < READY, "{}: {error:#}{}", way.name(), self.said());
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}

fn v4(workload: &Workload) -> IpAddr {
    workload.address(Family::V4)
}

/// Where the backends of services that are `here`, or not, run.
fn backend(cluster: &Cluster, here: bool) -> &Workload {
    if here {
        cluster.workloads(0, "shop")[1]
    } else {
        cluster.workload(1, "shop")
    }
}

fn node(cluster: &Cluster) -> &Netns {
    cluster.node(0).netns()
}

fn number(here: bool, protocol: Protocol) -> u8 {
    1 + 2 * u8::from(!here) + u8::from(protocol == Protocol::Udp)
}

fn published(here: bool, protocol: Protocol) -> u16 {
    8000 + u16::from(number(here, protocol))
}

fn vip(here: bool, protocol: Protocol) -> IpAddr {
    [10, 1, 0, 10 + number(here, protocol)].into()
}

/// The services, of the client's side and the backend's: every combination.
fn services() -> impl Iterator<Item = (bool, Protocol)> {
    [true, false]
        .into_iter()
        .flat_map(|here| Protocol::BOTH.map(|protocol| (here, protocol)))
}

/// Frontends of a service that only fills the tables.
fn filler(index: u16) -> (IpAddr, u16) {
    let [high, low] = (index + 256).to_be_bytes();
    ([10, 1, 128 + high, low].into(), FILLERS + index)
}

/// Without an agent: the client knows the backends, VIPs are behind the gateway, and replies go back through node 1.
fn lead_back(cluster: &Cluster) -> Result<()> {
    let [node1, node2] = [0, 1].map(|index| cluster.node(index).address(Family::V4));
    let client = cluster.client(0);
    client.netns().ip(&format!("route add 10.1.0.0/16 via {node1}"))?;
    client.netns().sysctl("ipv4.conf.all.accept_redirects", "0")?;
    client.netns().sysctl("ipv4.conf.eth0.accept_redirects", "0")?;
    for index in [0, 1] {
        for interface in ["all", "eth0"] {
            let node = cluster.node(index).netns();
            node.sysctl(&format!("ipv4.conf.{interface}.send_redirects"), "0")?;
            node.sysctl(&format!("ipv4.conf.{interface}.accept_redirects"), "0")?;
        }
    }
    debug_assert_ne!(node1, node2);
    let back = format!("route add {}/32 via {node1}", client.address(Family::V4));
    cluster.node(1).netns().ip(&back)?;
    let inside = cluster.workload(0, "shop");
    inside.netns().ip("route del 10.1.0.0/24 dev eth0")
}

/// This balancer's cluster file.
fn describe(document: &mut Document, cluster: &Cluster, fillers: u16) {
    for (here, protocol) in services() {
        let workload = backend(cluster, here);
        let name = format!("{}-{}", if here { "here" } else { "there" }, protocol.name());
        let backends = BACKENDS.map(|port| Backend {
            name: format!("{name}.{port}"),
            node: cluster.node(workload.node()).name().to_owned(),
            addresses: vec![v4(workload)],
            port: Some(port),
            weight: 1,
            state: "ready",
        });
        document.service.push(Service {
            network: "shop".to_owned(),
            mode: "vip",
            vip: vec![vip(here, protocol)],
            ports: vec![Port {
                port: 80,
                target: BACKENDS[0],
                protocol: protocol.name(),
                published: Some(Published::On(published(here, protocol))),
            }],
            backend: backends.into(),
            name,
            ..Service::default()
        });
    }
    for index in 0..fillers {
        let (vip, port) = filler(index);
        document.service.push(Service {
            name: format!("filler{index}"),
            network: "shop".to_owned(),
            mode: "vip",
            vip: vec![vip],
            ports: vec![Port {
                port: 80,
                target: BACKENDS[0],
                protocol: "tcp",
                published: Some(Published::On(port)),
            }],
            backend: vec![Backend {
                name: format!("filler{index}.1"),
                node: cluster.node(1).name().to_owned(),
                addresses: vec![v4(backend(cluster, false))],
                port: None,
                weight: 1,
                state: "ready",
            }],
            ..Service::default()
        });
    }
}

/// Frontends of a service: its published port and its VIP.
fn frontends(cluster: &Cluster, here: bool, protocol: Protocol) -> [(IpAddr, u16); 2] {
    let node = cluster.node(0).address(Family::V4);
    [(node, published(here, protocol)), (vip(here, protocol), 80)]
}

/// A chain for each service, as kube-proxy has them; the services under test are in the middle of the list.
fn iptables(cluster: &Cluster, fillers: u16) -> String {
    let node = cluster.node(0).address(Family::V4);
    let (mut chains, mut first, mut own, mut rest, mut targets) = (
        "*nat\n".to_owned(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    );
    for (here, protocol) in services() {
        let chain = format!("SVC-{}", number(here, protocol));
        let p = protocol.name();
        let _ = writeln!(chains, ":{chain} - [0:0]");
        for (address, port) in frontends(cluster, here, protocol) {
            let _ = writeln!(
                own,
                "-A PREROUTING -d {address}/32 -p {p} -m {p} --dport {port} -j {chain}"
            );
        }
        let to = v4(backend(cluster, here));
        let [a, b] = BACKENDS;
        let _ = writeln!(
            targets,
            "-A {chain} -p {p} -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination {to}:{a}\n\
             -A {chain} -p {p} -j DNAT --to-destination {to}:{b}"
        );
    }
    for index in 0..fillers {
        let (vip, port) = filler(index);
        let list = if index < fillers / 2 { &mut first } else { &mut rest };
        let _ = writeln!(chains, ":SVC-F{index} - [0:0]");
        for (address, port) in [(node, port), (vip, 80)] {
            let _ = writeln!(
                list,
                "-A PREROUTING -d {address}/32 -p tcp -m tcp --dport {port} -j SVC-F{index}"
            );
        }
        let to = v4(backend(cluster, false));
        let _ = writeln!(
            targets,
            "-A SVC-F{index} -p tcp -j DNAT --to-destination {to}:{}",
            BACKENDS[0]
        );
    }
    chains + &first + &own + &rest + &targets + "COMMIT\n"
}

/// One map from frontend to chain: the way nftables is meant to be used.
fn nftables(cluster: &Cluster, fillers: u16) -> String {
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for (here, protocol) in services() {
        let (number, p, to) = (number(here, protocol), protocol.name(), v4(backend(cluster, here)));
        let [a, b] = BACKENDS;
        let _ = writeln!(
            chains,
            "chain svc{number} {{ meta l4proto {p} dnat ip to numgen inc mod 2 map {{ 0 : {to} . {a}, 1 : {to} . {b} }}; }}"
        );
        for (address, port) in frontends(cluster, here, protocol) {
            elements.push(format!("{address} . {p} . {port} : goto svc{number}"));
        }
    }
    let node = cluster.node(0).address(Family::V4);
    for index in 0..fillers {
        let (vip, port) = filler(index);
        let to = v4(backend(cluster, false));
        let _ = writeln!(
            chains,
            "chain filler{index} {{ meta l4proto tcp dnat ip to {to}:{}; }}",
            BACKENDS[0]
        );
        elements.push(format!("{node} . tcp . {port} : goto filler{index}"));
        elements.push(format!("{vip} . tcp . 80 : goto filler{index}"));
    }
    format!(
        "table ip balance {{\n{chains}\
         map services {{ type ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {} }} }}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;\n\
         ip daddr . meta l4proto . th dport vmap @services; }}\n}}\n",
        elements.join(",\n")
    )
}

/// Runs a program in a namespace with this input.
fn feed(netns: &Netns, command: &mut Command, input: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut file, input.as_bytes())?;
    command.stdin(Stdio::from(file.reopen()?));
    let output = netns.run(|| command.output())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        error.lines().take(5).collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

/// A proxy's process. Killed on drop.
struct Proxy {
    child: Child,
    guard: Option<Guard>,
    directory: tempfile::TempDir,
}

impl Proxy {
    fn start(cluster: &Cluster, kind: Kind) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("proxy.conf");
        let (text, mut command) = if kind == Kind::Haproxy {
            let mut command = Command::new(packages::find("haproxy")?);
            command.arg("-db").arg("-f").arg(&config);
            (haproxy(cluster), command)
        } else {
            let mut command = Command::new(packages::find("nginx")?);
            command.arg("-p").arg(directory.path()).arg("-c").arg(&config);
            (nginx(cluster, directory.path()), command)
        };
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(directory.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = node(cluster).start(&mut command)?;
        let guard = Some(Guard::new(Resource::Process(child.id().cast_signed())));
        Ok(Self {
            child,
            guard,
            directory,
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's master ends its workers only when it is asked to.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(guard) = self.guard.take() {
            guard.release();
        }
    }
}

fn haproxy(cluster: &Cluster) -> String {
    let mut text =
        "global\n maxconn 4000\n nbthread 2\ndefaults\n mode tcp\n balance roundrobin\n timeout connect 5s\n \
                    timeout client 60s\n timeout server 60s\n"
            .to_owned();
    for here in [true, false] {
        let (address, port) = frontends(cluster, here, Protocol::Tcp)[0];
        let to = v4(backend(cluster, here));
        let [a, b] = BACKENDS;
        let _ = writeln!(
            text,
            "listen s{port}\n bind {address}:{port}\n server a {to}:{a}\n server b {to}:{b}"
        );
    }
    text
}

fn nginx(cluster: &Cluster, directory: &Path) -> String {
    let directory = directory.display();
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nuser root;\nworker_processes 2;\n\
         worker_rlimit_nofile 20000;\npid {directory}/pid;\nerror_log {directory}/error.log;\n\
         events {{ worker_connections 8192; }}\nstream {{\n"
    );
    for here in [true, false] {
        let to = v4(backend(cluster, here));
        let [a, b] = BACKENDS;
        let _ = writeln!(text, "upstream u{here} {{ server {to}:{a}; server {to}:{b}; }}");
        let [(address, tcp), (_, udp)] = Protocol::BOTH.map(|protocol| frontends(cluster, here, protocol)[0]);
        let _ = writeln!(
            text,
            "server {{ listen {address}:{tcp} backlog=4096; proxy_pass u{here}; }}\n\
             server {{ listen {address}:{udp} udp reuseport; proxy_pass u{here}; proxy_responses 0; proxy_timeout 2s; }}"
        );
    }
    text + "}\n"
}

/// How many services' worth of rules somebody holds, for notes.
pub(crate) fn versions() -> Result<Vec<String>> {
    let line = |name: &str, argument: &str| packages::version(name, argument);
    let all = [
        ("iptables", "--version"),
        ("nft", "--version"),
        ("haproxy", "-v"),
        ("nginx", "-v"),
    ];
    let all = all.map(|(name, argument)| line(name, argument));
    all.iter().try_for_each(|text| {
        ensure!(
            !text.ends_with("not installed"),
            "{text}: `cargo xtask bench` installs it"
        );
        Ok(())
    })?;
    Ok(all.into())
}
