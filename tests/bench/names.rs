//! Questions a second that are answered, and how long one takes: this balancer's resolver, dnsmasq, unbound and dockerd's own
//! with the same names, each on one CPU, asked from a workload behind the node, dockerd's from inside its container.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::cleanup::{Guard, Resource};
use lb_tests::cluster::{Backend, Cluster, Family, Service};
use lb_tests::swarm::{IMAGE, Swarm};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::data::Data;
use crate::machine::pin;
use crate::plot::Plot;
use crate::report::{Bar, Chapter, Limit, cell, ratio};
use crate::traffic::load::percentiles;
use crate::{Effort, packages};

const OURS: &str = "this balancer";
const ENGINE: &str = "dockerd";
const PEERS: [&str; 3] = ["dnsmasq", "unbound", ENGINE];
/// Where a container asks dockerd.
const EMBEDDED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// Of the network whose names dockerd knows.
const NETWORK: &str = "names";
/// Names that are known.
const NAMES: u16 = 1000;
/// Questions that are open at once, where as many as possible are asked.
const OPEN: usize = 32;
const TURN: Duration = Duration::from_millis(1500);
const PATIENCE: u16 = 3000;
const SERVER_CPU: usize = 1;
const CLIENT_CPU: usize = 0;
const RATE: &str = "questions, 32 open at once";
const ALONE: &str = "time of a question, 1 open";
const LOADED: &str = "time of a question, 32 open at once";

struct Resolver {
    name: &'static str,
    place: Place,
}

enum Place {
    /// Listens on the node's address, asked from a workload.
    Node {
        cluster: Cluster,
        _process: Option<Process>,
    },
    /// Listens inside its containers' namespaces.
    Containers { swarm: Swarm, namespace: String },
}

impl Resolver {
    /// Asks from where its clients are, for so long, with so many questions open.
    fn ask(&self, asks: &[(Duration, usize)]) -> Result<Vec<(f64, [f64; 3])>> {
        let ask_all = |server: SocketAddr| -> Result<_> {
            pin(CLIENT_CPU)?;
            asks.iter().map(|(time, open)| ask(server, *time, *open)).collect()
        };
        match &self.place {
            Place::Node { cluster, .. } => {
                let server = cluster.node(0).dns(Family::V4);
                cluster.workload(0, "shop").netns().run(|| ask_all(server))
            }
            Place::Containers { swarm, namespace } => swarm.node(0).within(namespace, || ask_all(EMBEDDED))?,
        }
    }
}

/// Killed on drop.
struct Process {
    child: Child,
    guard: Option<Guard>,
    _directory: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(guard) = self.guard.take() {
            guard.release();
        }
    }
}

/// Measures the row.
///
/// # Errors
/// If a resolver cannot be started, or does not answer.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    data.note(packages::version("dnsmasq", "--version"));
    data.note(packages::version("unbound", "-V"));
    data.note(packages::version("dockerd", "--version"));
    data.note(
        "dockerd's own resolver listens inside its containers' namespaces and is asked there: no packet leaves the namespace.",
    );
    // What is started from here runs on one CPU, with all its threads.
    let built = std::thread::spawn(|| -> Result<Vec<Resolver>> {
        pin(SERVER_CPU)?;
        let others = PEERS.into_iter().filter(|name| *name != ENGINE);
        let mut resolvers: Vec<_> = [OURS].into_iter().chain(others).map(start).collect::<Result<_>>()?;
        resolvers.push(start_engine()?);
        Ok(resolvers)
    });
    let resolvers = built
        .join()
        .map_err(|_| anyhow::anyhow!("a resolver was not started"))??;
    let turn = if effort.quick { TURN / 3 } else { TURN };
    for round in 0..effort.rounds {
        println!("dns: round {}", round + 1);
        for resolver in &resolvers {
            let measured = resolver.ask(&[(turn, OPEN), (turn / 2, 1)]);
            let measured = measured.with_context(|| resolver.name.to_owned())?;
            let [(rate, loaded), (_, alone)] = measured[..] else {
                bail!("{}: {} results", resolver.name, measured.len());
            };
            data.add(RATE, resolver.name, "answers/s", rate);
            for (case, times) in [(ALONE, alone), (LOADED, loaded)] {
                for (detail, time) in [", p50", ", p99"].into_iter().zip(times) {
                    data.add(&format!("{case}{detail}"), resolver.name, "µs", time);
                }
            }
        }
    }
    Ok(())
}

fn address(index: u16) -> IpAddr {
    let [high, low] = (index + 256).to_be_bytes();
    [10, 1, 128 + high, low].into()
}

fn start(name: &'static str) -> Result<Resolver> {
    println!("dns: building {name}");
    let ours = name == OURS;
    let cluster = Cluster::builder()
        .nodes(1)
        .clients(1)
        .agents(ours)
        .xdp("off")
        .log("warn")
        .start()?;
    let node = cluster.node(0);
    let listen = node.address(Family::V4);
    let mut process = None;
    if ours {
        cluster.edit(|document| {
            document
                .service
                .extend((0..NAMES).map(|index| service(&cluster, index)))
        })?;
    } else {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("resolver.conf");
        let mut command = Command::new(packages::find(name)?);
        let text = if name == PEERS[0] {
            command
                .arg("--keep-in-foreground")
                .arg(format!("--conf-file={}", config.display()));
            dnsmasq(listen)
        } else {
            command.args(["-d", "-c"]).arg(&config);
            unbound(listen)
        };
        std::fs::write(&config, text)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = node.netns().start(&mut command)?;
        let guard = Some(Guard::new(Resource::Process(child.id().cast_signed())));
        process = Some(Process {
            child,
            guard,
            _directory: directory,
        });
    }
    ready(Resolver {
        name,
        place: Place::Node {
            cluster,
            _process: process,
        },
    })
}

/// A dockerd with one container, which has all the names.
fn start_engine() -> Result<Resolver> {
    println!("dns: building {ENGINE}");
    let swarm = Swarm::builder().nodes(1).start()?;
    let node = swarm.node(0);
    node.docker(&["network", "create", NETWORK])?;
    let aliases: Vec<_> = (0..NAMES).map(|index| format!("--network-alias=svc{index}")).collect();
    let mut arguments = vec!["run", "--detach", "--network", NETWORK];
    arguments.extend(aliases.iter().map(String::as_str));
    arguments.push(IMAGE);
    let id = node.docker(&arguments)?;
    let settings = node.api(&format!("/containers/{id}/json"))?["NetworkSettings"].clone();
    let key = settings["SandboxKey"]
        .as_str()
        .context("a container without a namespace")?;
    // The symbolic link /var/run would lead to this host's /run.
    let namespace = key.strip_prefix("/var").unwrap_or(key).to_owned();
    ready(Resolver {
        name: ENGINE,
        place: Place::Containers { swarm, namespace },
    })
}

/// Waits until it answers.
fn ready(resolver: Resolver) -> Result<Resolver> {
    let begun = Instant::now();
    while let Err(error) = resolver.ask(&[(Duration::from_millis(20), 1)]) {
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "{} does not answer: {error:#}",
            resolver.name
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(resolver)
}

fn service(cluster: &Cluster, index: u16) -> Service {
    Service {
        name: format!("svc{index}"),
        network: "shop".to_owned(),
        mode: "vip",
        vip: vec![address(index)],
        ports: vec![lb_tests::cluster::Port {
            port: 80,
            target: 80,
            protocol: "tcp",
            published: None,
        }],
        backend: vec![Backend {
            name: format!("svc{index}.1"),
            node: cluster.node(0).name().to_owned(),
            addresses: vec![cluster.workload(0, "shop").address(Family::V4)],
            port: None,
            weight: 1,
            state: "ready",
        }],
        ..Service::default()
    }
}

fn dnsmasq(listen: IpAddr) -> String {
    let mut text = format!(
        "no-resolv\nno-hosts\nbind-interfaces\nlisten-address={listen}\nuser=root\npid-file=\ncache-size=10000\nlocal-ttl=5\n"
    );
    for index in 0..NAMES {
        let _ = writeln!(text, "host-record=svc{index},{}", address(index));
    }
    text
}

fn unbound(listen: IpAddr) -> String {
    let mut text = format!(
        "server:\n interface: {listen}\n access-control: 0.0.0.0/0 allow\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
         directory: \"/\"\n pidfile: \"\"\n use-syslog: no\n num-threads: 1\n module-config: \"iterator\"\n local-zone: \".\" static\n"
    );
    for index in 0..NAMES {
        let _ = writeln!(text, " local-data: \"svc{index}. 5 A {}\"", address(index));
    }
    text + "remote-control:\n control-enable: no\n"
}

/// A question for the A record of one of the names.
fn question(index: u16, id: u16) -> Vec<u8> {
    let name = format!("svc{index}");
    let mut out = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8]);
    out.extend(name.as_bytes());
    out.extend([0, 0, 1, 0, 1]);
    out
}

/// Answers a second, and the percentiles of their times in µs.
fn ask(server: SocketAddr, time: Duration, open: usize) -> Result<(f64, [f64; 3])> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let mut random = 0x2545_f491u32;
    let mut sockets = Vec::new();
    for index in 0..open {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        socket.send(&question(index as u16, 0))?;
        sockets.push((socket, Instant::now(), 0u16));
    }
    let mut buffer = [0; 1500];
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let mut events = [EpollEvent::empty(); OPEN];
        let count = epoll.wait(&mut events, EpollTimeout::from(PATIENCE))?;
        ensure!(count > 0, "no answer");
        for event in &events[..count] {
            let (socket, asked, id) = &mut sockets[event.data() as usize];
            let length = socket.recv(&mut buffer)?;
            let answer = &buffer[..length];
            let right = length > 12 && answer[..2] == id.to_be_bytes() && answer[3] & 15 == 0 && answer[7] == 1;
            ensure!(right, "not an answer: {:?}", &answer[..length.min(12)]);
            times.push(asked.elapsed().as_nanos() as f64 / 1000.0);
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *id = id.wrapping_add(1);
            *asked = Instant::now();
            socket.send(&question((random >> 16) as u16 % NAMES, *id))?;
        }
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    Ok((rate, percentiles(times)))
}

/// What the row has to reach.
pub(crate) fn bars(data: Option<&Data>) -> Vec<Bar> {
    let against = |case: &str, limit: Limit, peer: &str| Bar {
        what: format!("{case}: over {peer}'s"),
        limit,
        measured: data.and_then(|data| data.ratio((case, OURS), (case, peer))),
    };
    let p99 = format!("{LOADED}, p99");
    PEERS
        .iter()
        .flat_map(|peer| {
            [
                against(RATE, Limit::AtLeast(1.0), peer),
                against(&p99, Limit::AtMost(1.0), peer),
            ]
        })
        .collect()
}

/// The row's tables.
pub(crate) fn chapter(data: &Data) -> Chapter {
    let mut text =
        format!("{NAMES} names; each resolver with all its threads on one CPU, the client on the other.\n\n");
    let _ = write!(text, "| | {OURS} |");
    for peer in PEERS {
        let _ = write!(text, " {peer} | over {peer} |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|---|".repeat(PEERS.len()));
    for case in data.cases() {
        let unit = data
            .series
            .iter()
            .find(|series| series.case == case)
            .map_or("", |series| &series.unit);
        let _ = write!(text, "| {case}, {unit} | {} |", cell(data.spread(case, OURS)));
        for peer in PEERS {
            let over = ratio(data.ratio((case, OURS), (case, peer)));
            let _ = write!(text, " {} | {over} |", cell(data.spread(case, peer)));
        }
        text.push('\n');
    }
    let subjects: Vec<_> = [OURS].into_iter().chain(PEERS).collect();
    let plot = Plot {
        title: "DNS questions answered a second, one CPU".to_owned(),
        unit: "answers/s",
        subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
        groups: vec![(
            RATE.to_owned(),
            subjects.iter().map(|subject| data.spread(RATE, subject)).collect(),
        )],
    };
    Chapter {
        text,
        plots: vec![("dns".to_owned(), plot)],
    }
}
