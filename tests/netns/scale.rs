//! Thousands of services, a thousand changes a second, tables without room: what is applied in the end is what is desired,
//! nothing starves, and the agent stays small.
//!
//! A thousand services in a usual run; `LB_SCALE=10000` with a release build (`LB_BIN_DIR`) for the figures.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lb_common::abi::{EndpointKey, Frontends, Services, Slots, TCP, Vip, VipKey, Vips, capacity};
use lb_common::address::Address;
use lb_tests::cluster::{Cluster, Family, Node};
use lb_tests::lbctl;
use lb_userspace::datapath::layout;
use lb_userspace::datapath::store::{Access, Store};
use lb_userspace::plan::store::{ReadTables as _, WriteTables as _};

use super::own;

pub(crate) const BACKENDS: u32 = 10;
const NODES: u32 = 10;
const NETWORK: u32 = 7;

/// How many services there shall be.
pub(crate) fn services() -> u32 {
    std::env::var("LB_SCALE")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000)
}

fn vip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a41_0000 + service)
}

/// The cluster file, and what of it changes.
pub(crate) struct File {
    head: String,
    services: Vec<String>,
}

impl File {
    pub(crate) fn new(cluster: &Cluster, count: u32) -> Self {
        let node = cluster.node(0);
        let mut head = format!(
            "[[node]]\nname = \"node1\"\naddresses = [\"{}\", \"{}\"]\n",
            node.address(Family::V4),
            node.address(Family::V6)
        );
        for other in 2..=NODES {
            let _ = write!(
                head,
                "[[node]]\nname = \"node{other}\"\naddresses = [\"10.80.1.{other}\"]\n"
            );
        }
        let _ = write!(
            head,
            "[[network]]\nname = \"scale\"\nid = {NETWORK}\nsubnets = [\"10.64.0.0/10\"]\n"
        );
        let services = (0..count).map(|service| block(service, 0)).collect();
        Self { head, services }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = self.head.clone();
        self.services.iter().for_each(|service| text.push_str(service));
        text
    }
}

/// A service, with so many of its backends draining.
fn block(service: u32, draining: u32) -> String {
    let mut text = format!(
        "\n[[service]]\nname = \"s{service}\"\nnetwork = \"scale\"\nvip = [\"{}\"]\nports = [{{ port = 80, target = 8080 }}]\n",
        vip(service)
    );
    for backend in 0..BACKENDS {
        let address = Ipv4Addr::from_bits(0x0a50_0000 + service * BACKENDS + backend);
        let node = backend % NODES + 1;
        let state = if backend < draining { "draining" } else { "ready" };
        let _ = write!(
            text,
            "\n[[service.backend]]\nname = \"s{service}.{backend}\"\nnode = \"node{node}\"\naddresses = [\"{address}\"]\nstate = \"{state}\"\n"
        );
    }
    text
}

/// The tables of a node, as its programs see them.
pub(crate) struct Tables(Store);

impl Tables {
    pub(crate) fn of(node: &Node) -> Self {
        Self(Store::open(&layout::versioned(node.bpffs()), Access::Read).expect("the pinned maps"))
    }

    pub(crate) fn id(&self, service: u32) -> Option<u32> {
        let key = EndpointKey {
            address: Address::from(IpAddr::from(vip(service))),
            network: NETWORK,
            port: 80,
            protocol: TCP,
            family: 4,
        };
        Some(self.0.get::<Frontends>(&key).unwrap()?.service)
    }

    /// Slots in force, and their generation.
    pub(crate) fn slots(&self, id: u32) -> (u32, u32) {
        let service = self.0.get::<Services>(&id).unwrap();
        service.map_or((0, 0), |service| (service.count, service.generation))
    }

    #[track_caller]
    pub(crate) fn wait(&self, what: &str, patience: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < patience, "{what}: not within {patience:?}");
            std::thread::sleep(Duration::from_micros(200));
        }
        start.elapsed()
    }
}

/// Memory of a process, MiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Processor time of a process.
pub(crate) fn busy(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let all: u64 = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(all)
}

/// Of durations in their order.
pub(crate) fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() * per_mille / 1000).min(sorted.len() - 1)]
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let [p50, p90, p99, worst] = [500, 900, 990, 1000].map(|share| percentile(&times, share));
    format!("p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, worst {worst:.1?}")
}

#[test]
fn a_change_among_thousands_of_services() {
    let Some(cluster) = own(Cluster::builder().nodes(1).clients(0).log("info")) else {
        return;
    };
    let count = services();
    let node = cluster.node(0);
    let pid = node.agent().pid().unwrap();
    println!("small: {} MiB", resident(pid));
    let mut file = File::new(&cluster, count);
    let tables = Tables::of(node);
    let start = Instant::now();
    cluster.overwrite(&file.text()).unwrap();
    let written = start.elapsed();
    tables.wait("the first service", Duration::from_secs(120), |t| {
        t.id(count - 1).is_some()
    });
    tables.wait("the last slots", Duration::from_secs(120), |t| {
        t.id(count - 1).is_some_and(|id| t.slots(id).0 == BACKENDS)
    });
    println!(
        "full sync of {count} services: {:.0?} (writing the file {written:.0?})",
        start.elapsed()
    );
    std::thread::sleep(Duration::from_secs(3));
    println!("large: {} MiB", resident(pid));

    let (mut took, mut worked) = (Vec::new(), Vec::new());
    let (large, before) = (resident(pid), busy(pid));
    let rounds = if count >= 10_000 { 300 } else { 60 };
    for round in 0..rounds {
        let service = (round * 7919) % count;
        let id = tables.id(service).unwrap();
        let (_, generation) = tables.slots(id);
        let now = if file.services[service as usize].contains("draining") {
            0
        } else {
            1
        };
        file.services[service as usize] = block(service, now);
        let text = file.text();
        let new = cluster.file().with_extension("next");
        std::fs::write(&new, text).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        let (start, busy_before) = (Instant::now(), busy(pid));
        std::fs::rename(&new, cluster.file()).unwrap();
        tables.wait("a change", Duration::from_secs(20), |t| t.slots(id).1 != generation);
        took.push(start.elapsed());
        assert_eq!(tables.slots(id).0, BACKENDS - now);
        std::thread::sleep(Duration::from_millis(40));
        worked.push(busy(pid) - busy_before);
    }
    let cpu = (busy(pid) - before) / rounds;
    println!("a change: {}", spread(took));
    println!("its processor time: {}; {cpu:.1?} on average", spread(worked));
    let after = resident(pid);
    println!("after changes: {after} MiB");
    assert!(after < large + 16, "{large} MiB before the changes, {after} MiB after");
    // What grows with what there is, and not with what changes, takes far longer.
    assert!(
        cpu < Duration::from_millis(150),
        "{cpu:?} of processor time for one change"
    );
    assert!(!node.agent().log().contains(" ERROR "), "{}", node.agent().log());
}

/// Each change is one write into the open file, as a program that rewrites a weight in place does it.
#[test]
fn a_thousand_changes_a_second() {
    const SERVICES: u32 = 200;
    let Some(cluster) = own(Cluster::builder().nodes(1).clients(0).log("info")) else {
        return;
    };
    let duration = Duration::from_secs(if services() >= 10_000 { 60 } else { 4 });
    let node = cluster.node(0);
    let pid = node.agent().pid().unwrap();
    let mut text = File::new(&cluster, SERVICES).text();
    text = text.replace("\nstate = \"ready\"\n", "\nweight = 1\n");
    cluster.overwrite(&text).unwrap();
    let tables = Tables::of(node);
    tables.wait("the last service", Duration::from_secs(60), |t| {
        t.id(SERVICES - 1).is_some_and(|id| t.slots(id).0 == BACKENDS)
    });
    let places: Vec<usize> = text
        .match_indices("weight = ")
        .map(|(at, word)| at + word.len())
        .collect();
    assert_eq!(places.len(), (SERVICES * BACKENDS) as usize);
    let before = resident(pid);
    let mut weights = vec![1u32; places.len()];
    let start = Instant::now();
    let (mut changes, mut applied, mut longest) = (0u32, Instant::now(), Duration::ZERO);
    let watched = tables.id(0).unwrap();
    let (mut generation, mut most) = (tables.slots(watched).1, before);
    while start.elapsed() < duration {
        // Of every service in turn one weight, and the first of the first again and again.
        let index = if changes % 50 == 0 {
            0
        } else {
            (changes as usize * 7919) % places.len()
        };
        weights[index] = 3 - weights[index];
        let file = std::fs::OpenOptions::new().write(true).open(cluster.file()).unwrap();
        let digit = [b'0' + weights[index] as u8];
        std::os::unix::fs::FileExt::write_all_at(&file, &digit, places[index] as u64).unwrap();
        drop(file);
        changes += 1;
        let now = tables.slots(watched).1;
        if now != generation {
            longest = longest.max(applied.elapsed());
            (generation, applied) = (now, Instant::now());
        }
        if changes % 1000 == 0 {
            most = most.max(resident(pid));
        }
        let next = start + Duration::from_millis(1) * changes;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    lb_tests::evidence::record(
        "control-load",
        "changes of the cluster file, a thousand a second, all applied",
        changes.into(),
    );
    let rate = f64::from(changes) / start.elapsed().as_secs_f64();
    let expected = |service: u32| -> u32 {
        let weights = &weights[(service * BACKENDS) as usize..][..BACKENDS as usize];
        let sum: u32 = weights.iter().sum();
        if weights.iter().all(|weight| *weight == 2) {
            BACKENDS
        } else {
            sum
        }
    };
    let took = tables.wait("the last state", Duration::from_secs(30), |t| {
        (0..SERVICES).all(|service| t.id(service).is_some_and(|id| t.slots(id).0 == expected(service)))
    });
    println!(
        "{changes} changes, {rate:.0} a second; all applied {took:.0?} after the last; a service waited at most {longest:.0?}"
    );
    println!(
        "{before} MiB before, at most {most} MiB during, {} MiB after",
        resident(pid)
    );
    assert!(
        longest < Duration::from_secs(5),
        "a service waited {longest:?} for its change"
    );
    assert!(most < before + 40, "{before} MiB before, {most} MiB during");
    // Nothing is left of all the generations.
    let slots: u32 = (0..SERVICES).map(expected).sum();
    tables.wait("old slots gone", Duration::from_secs(10), |t| {
        t.0.entries::<Slots>().unwrap().len() == slots as usize
    });
}

/// A table without room for everything: what has room is served, the rest is named, and comes as soon as there is room.
#[test]
fn a_full_table_is_reported_and_retried() {
    let Some(cluster) = own(Cluster::builder().nodes(1).clients(0).log("info")) else {
        return;
    };
    let node = cluster.node(0);
    let tables = Tables::of(node);
    let mut file = File::new(&cluster, 2);
    cluster.overwrite(&file.text()).unwrap();
    tables.wait("two services", Duration::from_secs(30), |t| {
        t.id(1).is_some_and(|id| t.slots(id).0 == BACKENDS)
    });
    // Somebody else takes all the room that `vips` has, again and again.
    let stranger = |n: u32| VipKey {
        address: Address::v4(n.to_be_bytes()),
        network: NETWORK + 1,
    };
    let directory = layout::versioned(node.bpffs());
    let occupied = Arc::new(AtomicBool::new(false));
    let full = Arc::new(AtomicBool::new(true));
    let thread = std::thread::spawn({
        let (occupied, full) = (Arc::clone(&occupied), Arc::clone(&full));
        move || {
            let mut store = Store::open(&directory, Access::Write).unwrap();
            while full.load(Ordering::Relaxed) {
                // To the last place; then there is none.
                let taken =
                    (0..capacity::VIPS).take_while(|n| store.set::<Vips>(&stranger(*n), &Vip { frontends: 1 }).is_ok());
                assert!(taken.count() < capacity::VIPS as usize, "there was room for all");
                occupied.store(true, Ordering::Relaxed);
            }
        }
    });
    while !occupied.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
    file.services.push(block(2, 0));
    cluster.overwrite(&file.text()).unwrap();
    let status = |word: &str| {
        let start = Instant::now();
        loop {
            let text = lbctl::text(node, &["status"]).unwrap();
            if text.contains(word) {
                return text;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no {word:?} in:\n{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let text = status("vips");
    assert!(text.contains("failed") && text.contains("map vips"), "{text}");
    let metrics = node.metrics("/metrics").unwrap();
    let partial = metrics
        .lines()
        .find(|line| line.starts_with("lb_sync_total{outcome=\"partial\"}"));
    assert!(partial.is_some_and(|line| !line.ends_with(" 0")), "{partial:?}");
    assert!(node.agent().log().contains("not everything is in force"));
    for service in 0..2 {
        assert_eq!(
            tables.slots(tables.id(service).unwrap()).0,
            BACKENDS,
            "what there was is served"
        );
    }
    // Its other rows have room: clients of a published port would be served already.
    assert!(tables.id(2).is_some());
    full.store(false, Ordering::Relaxed);
    thread.join().unwrap();
    tables.wait("the VIP", Duration::from_secs(70), |t| {
        let key = VipKey {
            address: Address::from(IpAddr::from(vip(2))),
            network: NETWORK,
        };
        t.0.get::<Vips>(&key).unwrap().is_some()
    });
    // What the stranger wrote is nobody's, and goes.
    tables.wait("the strangers gone", Duration::from_secs(70), |t| {
        t.0.entries::<Vips>().unwrap().len() == 3
    });
    status("connected");
    assert!(node.agent().log().contains("everything is in force again"));
}
