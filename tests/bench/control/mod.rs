//! From a change of the cluster file to packets that follow it; a whole cluster read anew; memory; rest.

mod rules;

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_tests::cluster::{Backend, Cluster, Document, Family, Machine, Node, Port, Published, Service};
use lb_tests::netns::Netns;
use serde_json::Value;

use self::rules::Peer;
use crate::Effort;
use crate::data::{Data, Spread};
use crate::machine::pin;
use crate::plot::short;
use crate::report::{Bar, Chapter, Limit, cell};
use crate::traffic::load::percentiles;
use crate::traffic::serve::Server;

const OURS: &str = "this balancer";
/// Services, and backends of each.
const SMALL: (u16, u8) = (10, 10);
const LARGE: (u16, u8) = (10_000, 10);
/// Changes in a round, of the small state and of the large one.
const CHANGES: [usize; 2] = [15, 5];
/// Rounds, at most: each reads the large state three times.
const ROUNDS: usize = 5;
/// After which an agent has nothing left to do.
const SETTLED: Duration = Duration::from_secs(3);
/// Datagrams that open a flow each, for the memory of flows.
const FLOWS: usize = 20_000;
const REST: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);
const PORTS: [u16; 2] = [7000, 7001];
const PUBLISHED: u16 = 8001;

const SYNC: &str = "whole state read anew";
const RESTART: &str = "agent restarted until ready";
const IDLE: &str = "CPU at rest";
const RESIDENT: &str = "agent's memory";

fn sized(what: &str, (services, backends): (u16, u8)) -> String {
    format!("{what}, {services} services x {backends} backends")
}

const CHANGE: &str = "change until new packets follow";

/// A cluster of one node, and what is written into its file.
struct Scene {
    cluster: Cluster,
    servers: [Server; 2],
    /// Text of the file up to the service under test.
    texts: [(String, (u16, u8)); 2],
}

/// Measures the row.
///
/// # Errors
/// If the agent does not follow.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    let scene = Scene::start()?;
    let [small, large] = &scene.texts;
    for round in 0..effort.rounds.min(ROUNDS) {
        println!("control: round {}", round + 1);
        for ((text, size), changes) in [small, large].into_iter().zip(CHANGES) {
            let took = scene.replace(text)?;
            data.add(&sized(SYNC, *size), OURS, "ms", milliseconds(took));
            for turn in 0..effort.share(changes) {
                let took = scene.change(text, (turn + 1) % 2)?;
                data.add(&sized(CHANGE, *size), OURS, "ms", milliseconds(took));
            }
            data.add(&sized(RESIDENT, *size), OURS, "B", resident(scene.agent()?)?);
        }
        let node = scene.cluster.node(0);
        node.agent().stop()?;
        let start = Instant::now();
        node.start_agent()?;
        data.add(&sized(RESTART, LARGE), OURS, "ms", milliseconds(start.elapsed()));
    }
    for (_, size) in &scene.texts {
        let case = sized(CHANGE, *size);
        let changes = data.values(&case, OURS).unwrap_or_default().to_vec();
        data.add(&format!("{case}: p99"), OURS, "ms", percentiles(changes)[1]);
    }
    peers(effort, data)?;
    memory(&scene, data)?;
    std::thread::sleep(SETTLED);
    let rest = if effort.quick { REST / 2 } else { REST };
    let before = used(scene.agent()?)?;
    std::thread::sleep(rest);
    let share = (used(scene.agent()?)? - before) / rest.as_secs_f64() * 100.0;
    data.add(&sized(IDLE, LARGE), OURS, "%", share);
    Ok(())
}

/// What it takes the programs that put rules in force: alone, without anybody who finds out what they should be.
fn peers(effort: Effort, data: &mut Data) -> Result<()> {
    let netns = Netns::new("rules")?;
    for peer in Peer::BOTH {
        println!("control: {}", peer.name());
        let all = peer.all(LARGE);
        for _ in 0..effort.rounds.min(3) {
            let took = peer.apply(&netns, &all, true)?;
            data.add(&sized(SYNC, LARGE), peer.name(), "ms", milliseconds(took));
        }
        for turn in 0..effort.share(CHANGES[0]) {
            let one = peer.one(LARGE.0 / 2, LARGE.1, (turn % 2 + 1) as u8);
            let took = peer.apply(&netns, &one, false)?;
            data.add(&sized(CHANGE, LARGE), peer.name(), "ms", milliseconds(took));
        }
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Scene {
    fn start() -> Result<Self> {
        println!("control: building");
        let cluster = Cluster::builder()
            .nodes(1)
            .clients(1)
            .xdp("off")
            .flows(1 << 20)
            .log("warn")
            .start()?;
        let workload = cluster.workload(0, "shop");
        let address = workload.address(Family::V4);
        let serve = |port| Server::start(workload.netns(), address, &[port], 1);
        let servers = [serve(PORTS[0])?, serve(PORTS[1])?];
        let base = cluster.document().clone();
        let texts = [SMALL, LARGE].map(|size| (fill(&base, size).text(), size));
        Ok(Self {
            cluster,
            servers,
            texts,
        })
    }

    fn agent(&self) -> Result<u32> {
        self.cluster.node(0).agent().pid().context("the agent does not run")
    }

    fn target(&self) -> SocketAddr {
        self.cluster.node(0).published(Family::V4, PUBLISHED)
    }

    /// Puts another state in force, without the service under test and then with it; how long the second took, which
    /// begins with the file in its place and ends with a datagram that arrives.
    fn replace(&self, text: &str) -> Result<Duration> {
        let nothing = self.texts[0].0.clone();
        self.put(&nothing)?;
        self.wait_applied()?;
        self.follow(&format!("{text}{}", under_test(&self.cluster, 0)), 0)
    }

    /// Gives the service under test another backend; how long it takes until a new flow goes there.
    fn change(&self, text: &str, backend: usize) -> Result<Duration> {
        self.follow(&format!("{text}{}", under_test(&self.cluster, backend)), backend)
    }

    fn follow(&self, text: &str, backend: usize) -> Result<Duration> {
        let before = self.servers[backend].received();
        self.cluster.client(0).netns().run(|| {
            pin(0)?;
            let start = self.put(text)?;
            loop {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(self.target())?;
                // Refused is as good as unheard: the service may not be there yet.
                drop(socket.send(b"who?"));
                std::thread::sleep(Duration::from_micros(200));
                if self.servers[backend].received() > before {
                    return Ok(start.elapsed());
                }
                ensure!(start.elapsed() < PATIENCE, "no packet follows after {PATIENCE:?}");
            }
        })
    }

    /// Writes the file; when it was in its place.
    fn put(&self, text: &str) -> Result<Instant> {
        let file = self.cluster.file();
        let temporary = file.with_extension("new");
        fs::write(&temporary, text)?;
        let start = Instant::now();
        fs::rename(&temporary, file)?;
        Ok(start)
    }

    fn wait_applied(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let status = self.cluster.node(0).admin("/v1/status")?;
            let provider = &status["items"][0]["provider"];
            let known = self.cluster.node(0).admin("/v1/services")?;
            let gone = known["items"]
                .as_array()
                .is_some_and(|all| all.iter().all(|item| item["name"] != "probe"));
            if provider["generation"] == provider["applied"] && gone {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "not applied after {PATIENCE:?}: {provider}");
        }
    }
}

/// The service whose backend changes, as text that goes behind the rest.
fn under_test(cluster: &Cluster, backend: usize) -> String {
    let workload = cluster.workload(0, "shop");
    let service = Service {
        name: "probe".to_owned(),
        network: "shop".to_owned(),
        mode: "vip",
        vip: vec![[10, 1, 0, 10].into()],
        ports: vec![Port {
            port: 80,
            target: PORTS[0],
            protocol: "udp",
            published: Some(Published::On(PUBLISHED)),
        }],
        backend: vec![Backend {
            name: format!("probe.{backend}"),
            node: cluster.node(0).name().to_owned(),
            addresses: vec![workload.address(Family::V4)],
            port: Some(PORTS[backend]),
            weight: 1,
            state: "ready",
        }],
        ..Service::default()
    };
    let alone = Document {
        service: vec![service],
        ..Document::default()
    };
    // The other two lists are empty, and stand before the first table.
    let text = alone.text();
    text.find("[[service]]")
        .map_or_else(String::new, |at| format!("\n{}", &text[at..]))
}

/// So many services on a node that is not there.
fn fill(base: &Document, (services, backends): (u16, u8)) -> Document {
    let mut document = base.clone();
    let far = "far";
    document.node.push(Machine {
        name: far.to_owned(),
        addresses: vec![Ipv4Addr::new(10, 80, 0, 50).into()],
    });
    for index in 0..services {
        let backend = (0..backends).map(|number| {
            let place = (u32::from(index) * u32::from(backends) + u32::from(number)) % 20_000;
            let [.., high, low] = place.to_be_bytes();
            Backend {
                name: format!("filler{index}.{number}"),
                node: far.to_owned(),
                addresses: vec![IpAddr::from([10, 1, 16 + high, low])],
                port: None,
                weight: 1,
                state: "ready",
            }
        });
        let [high, low] = index.to_be_bytes();
        document.service.push(Service {
            name: format!("filler{index}"),
            network: "shop".to_owned(),
            mode: "vip",
            vip: vec![[10, 1, 128 + high, low].into()],
            ports: vec![Port {
                port: 80,
                target: 10_000 + index,
                protocol: "tcp",
                published: Some(Published::On(12_000 + index)),
            }],
            backend: backend.collect(),
            ..Service::default()
        });
    }
    document
}

/// Memory of the maps, for each entry of those that grow.
fn memory(scene: &Scene, data: &mut Data) -> Result<()> {
    let node = scene.cluster.node(0);
    scene.replace(&scene.texts[0].0)?;
    let small = maps(node)?;
    scene.replace(&scene.texts[1].0)?;
    let large = maps(node)?;
    open_flows(scene)?;
    let busy = maps(node)?;
    let total = |maps: &[Map]| maps.iter().map(|map| map.bytes).sum::<f64>();
    data.add(&sized("all maps", SMALL), OURS, "B", total(&small));
    data.add(&sized("all maps", LARGE), OURS, "B", total(&large));
    let (services, backends) = (f64::from(LARGE.0 - SMALL.0), f64::from(LARGE.1));
    let grown = |names: &[&str]| {
        let of = |maps: &[Map]| {
            maps.iter()
                .filter(|map| names.contains(&map.name.as_str()))
                .map(|map| map.bytes)
                .sum::<f64>()
        };
        of(&large) - of(&small)
    };
    data.add(
        "maps for each service",
        OURS,
        "B",
        grown(&["services", "frontends", "vips"]) / services,
    );
    data.add(
        "maps for each backend of a service",
        OURS,
        "B",
        grown(&["slots", "local_backends"]) / (services * backends),
    );
    let flows = |maps: &[Map]| {
        let all = maps.iter().filter(|map| map.name == "flows4" || map.name == "replies4");
        all.fold((0.0, 0.0), |sum, map| {
            (
                sum.0 + map.bytes,
                sum.1 + if map.name == "flows4" { map.entries } else { 0.0 },
            )
        })
    };
    let (before, after) = (flows(&large), flows(&busy));
    ensure!(
        after.1 - before.1 > FLOWS as f64 / 2.0,
        "only {} flows were opened",
        after.1 - before.1
    );
    data.add(
        "maps for each flow and its reply, IPv4",
        OURS,
        "B",
        (after.0 - before.0) / (after.1 - before.1),
    );
    Ok(())
}

fn open_flows(scene: &Scene) -> Result<()> {
    scene.cluster.client(0).netns().run(|| {
        for _ in 0..FLOWS {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"who?", scene.target())?;
        }
        Ok(())
    })
}

struct Map {
    name: String,
    bytes: f64,
    entries: f64,
}

fn maps(node: &Node) -> Result<Vec<Map>> {
    let status = node.admin("/v1/status")?;
    let items = status["items"][0]["maps"].as_array().context("maps in /v1/status")?;
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let read = |item: &Value| Map {
        name: item["name"].as_str().unwrap_or_default().to_owned(),
        bytes: number(&item["memory_bytes"]),
        entries: number(&item["entries"]),
    };
    Ok(items.iter().map(read).collect())
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(Path::new(&path)).context(path)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    let kibibytes: f64 = line.split_whitespace().next().context("VmRSS")?.parse()?;
    Ok(kibibytes * 1024.0)
}

/// CPU time of a process, in seconds.
fn used(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/schedstat");
    // Of every thread: the file of the process is that of its first thread alone.
    let mut sum = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context(path)? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0);
    }
    Ok(sum / 1e9)
}

/// What the row has to reach.
pub(crate) fn bars(data: Option<&Data>) -> Vec<Bar> {
    let bar = |case: String, limit: f64, scale: f64, unit: &str| Bar {
        what: format!("{case}, {unit}"),
        limit: Limit::AtMost(limit),
        measured: data.and_then(|data| data.spread(&case, OURS)).map(|s| Spread {
            median: s.median / scale,
            min: s.min / scale,
            max: s.max / scale,
        }),
    };
    vec![
        bar(format!("{}: p99", sized(CHANGE, LARGE)), 20.0, 1.0, "ms"),
        bar(sized(SYNC, LARGE), 2.0, 1000.0, "s"),
        bar(sized(RESIDENT, LARGE), 120.0, 1e6, "MB"),
        bar(sized(RESIDENT, SMALL), 25.0, 1e6, "MB"),
        bar(sized(IDLE, LARGE), 0.1, 1.0, "%"),
    ]
}

/// The row's tables.
pub(crate) fn chapter(data: &Data) -> Chapter {
    let mut text = String::from(
        "The peers' columns are what their programs take to put ready rules in force in a namespace of their own; nobody watches \
         a cluster there, and no packet is waited for.\n\n| | this balancer | iptables-restore | nft -f |\n|---|---|---|---|\n",
    );
    for case in data.cases() {
        let unit = data
            .series
            .iter()
            .find(|series| series.case == case)
            .map_or("", |series| &series.unit);
        let _ = write!(text, "| {case}, {unit} |");
        for subject in [OURS, Peer::Iptables.name(), Peer::Nftables.name()] {
            let shown = match data.values(case, subject) {
                Some([one]) => short(*one),
                _ => cell(data.spread(case, subject)),
            };
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    Chapter {
        text,
        plots: Vec::new(),
    }
}
