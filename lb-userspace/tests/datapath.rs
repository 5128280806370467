//! The datapath's life on the real kernel: load, attach, restart, remove, in a network namespace and on a BPF
//! file system of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_common::abi::{self, Backend, Backends, FlowKey4, Flows4, InterfaceKey, Replies4, Slots};
use lb_common::address::Address;
use lb_userspace::config::XdpMode;
use lb_userspace::datapath::attach::{
    Attacher, Hook, Interfaces, Mode, NodeInterface, WorkloadInterface, choose_xdp, pinned_links,
};
use lb_userspace::datapath::collect::Collector;
use lb_userspace::datapath::probe::Features;
use lb_userspace::datapath::store::{Access, Store};
use lb_userspace::datapath::{OBJECT, clock, layout, load, remove};
use lb_userspace::net::netns::Namespace;
use lb_userspace::net::{Link, Netlink};
use lb_userspace::plan::store::{ReadTables, WriteTables};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A private network and mount namespace with a BPF file system, on a thread of its own.
struct Sandbox {
    directory: PathBuf,
}

impl Sandbox {
    fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf/lb")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = umount2(&self.directory.join("bpf"), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Why BPF cannot be used here, if so.
/// Flow tables of so many entries.
fn capacity(flows: u32) -> load::Capacity {
    load::Capacity { flows, overflow: 1024 }
}

fn obstacle() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root");
    }
    OBJECT.is_empty().then_some("built without an eBPF object")
}

/// Runs `test` in a sandbox, or says why not.
fn in_sandbox(name: &str, test: impl FnOnce(&Sandbox) + Send + 'static) {
    if let Some(why) = obstacle() {
        assert!(
            std::env::var_os("LB_TEST_STRICT").is_none_or(|v| v != "1"),
            "{name} {why}"
        );
        eprintln!("skipped {name}: {why}");
        return;
    }
    let name = name.to_owned();
    // Namespaces belong to threads, and end with them.
    std::thread::spawn(move || {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("lb-{name}-{}-{unique}", std::process::id()));
        fs::create_dir_all(directory.join("bpf")).expect("directory");
        let sandbox = Sandbox { directory };
        mount(
            Some("bpf"),
            &sandbox.directory.join("bpf"),
            Some("bpf"),
            MsFlags::empty(),
            nothing,
        )
        .expect("bpffs");
        ip("link set lo up");
        test(&sandbox);
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {arguments}");
}

/// Runs in the calling thread, and with it in its network namespace.
fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

fn links() -> BTreeMap<String, Link> {
    let links = block_on(async { Netlink::connect().expect("netlink").links().await.expect("links") });
    links.into_iter().map(|link| (link.name.clone(), link)).collect()
}

fn interfaces(mode: XdpMode) -> Interfaces {
    let links = links();
    let node = links["node0"].clone();
    Interfaces {
        nodes: vec![NodeInterface {
            xdp: choose_xdp(mode, &node),
            link: node,
        }],
        workloads: vec![WorkloadInterface {
            namespace: Namespace::NODE,
            link: links["work0"].clone(),
            network: "app".into(),
        }],
        host: Some(links["lo"].clone()),
    }
}

fn start(bpffs: &Path, mode: XdpMode) -> (Attacher, Vec<lb_userspace::datapath::attach::Attachment>) {
    let loaded = load::load(OBJECT, bpffs, capacity(4096)).expect("load");
    let mut attacher = Attacher::new(
        loaded.ebpf,
        loaded.directory,
        Features::probe().tcx,
        loaded.carried.directories,
    );
    let report = attacher.reconcile(&interfaces(mode).wanted());
    (attacher, report)
}

/// Program id behind every pinned link.
fn programs_of_links(bpffs: &Path) -> BTreeMap<String, u32> {
    let directory = layout::versioned(bpffs);
    let view = lb_userspace::datapath::view::View::open(&directory).expect("view");
    view.programs()
        .expect("programs")
        .into_iter()
        .filter(|p| p.ifindex.is_some())
        .map(|p| (p.pin, p.id.unwrap_or_default()))
        .collect()
}

fn pins(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            found.extend(pins(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn attaches_restarts_and_leaves_nothing() {
    in_sandbox("life", |sandbox| {
        ip("link add node0 type veth peer name node1");
        ip("link add work0 type veth peer name work1");
        let bpffs = sandbox.bpffs();
        let (attacher, report) = start(&bpffs, XdpMode::Native);
        assert_eq!(
            report.iter().filter_map(|a| a.error.clone()).collect::<Vec<_>>(),
            Vec::<String>::new()
        );
        let modes: Vec<(Hook, Mode)> = report.iter().map(|a| (a.hook, a.mode)).collect();
        // Filters of a clsact qdisc are no links.
        let (tc, links_on_node, links_on_workload) = if Features::probe().tcx {
            (Mode::Tcx, 2, 2)
        } else {
            (Mode::Clsact, 0, 0)
        };
        assert_eq!(
            modes,
            [
                (Hook::TcNode, tc),
                (Hook::XdpNative, Mode::Native),
                (Hook::ToWorkload, tc),
                (Hook::FromWorkload, tc),
                (Hook::FromHost, tc)
            ]
        );
        let before = programs_of_links(&bpffs);
        assert_eq!(before.len(), links_on_node + links_on_workload + 1, "{before:?}");

        // The agent stops: everything stays.
        drop(attacher);
        assert_eq!(programs_of_links(&bpffs), before);

        // It starts again: the same links carry its own programs.
        let linked = pinned_links(&layout::versioned(&bpffs));
        let (mut attacher, report) = start(&bpffs, XdpMode::Native);
        assert!(report.iter().all(|a| a.error.is_none()), "{report:?}");
        let after = programs_of_links(&bpffs);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert!(
            after.iter().all(|(link, program)| before[link] != *program),
            "{before:?} {after:?}"
        );
        assert_eq!(sorted(pinned_links(&layout::versioned(&bpffs))), sorted(linked));

        // Nothing changes when nothing is to be done.
        attacher.reconcile(&interfaces(XdpMode::Native).wanted());
        assert_eq!(programs_of_links(&bpffs), after);

        // XDP is switched off: its link goes, tc stays.
        attacher.reconcile(&interfaces(XdpMode::Auto).wanted());
        assert_eq!(programs_of_links(&bpffs).len(), links_on_node + links_on_workload);

        // An interface vanishes: so do its pins.
        let mut left = interfaces(XdpMode::Auto);
        ip("link del work0");
        left.workloads.clear();
        attacher.reconcile(&left.wanted());
        assert_eq!(pinned_links(&layout::versioned(&bpffs)).len(), links_on_node);
        drop(attacher);

        let removed = remove::remove(&bpffs, &[]);
        assert!(removed.errors.is_empty(), "{:?}", removed.errors);
        assert_eq!((removed.links, removed.programs), (links_on_node, load::PROGRAMS.len()));
        assert!(!bpffs.exists(), "{:?}", pins(&bpffs));
        let again = remove::remove(&bpffs, &[]);
        assert!(again.errors.is_empty() && again.maps == 0, "{again:?}");
    });
}

fn sorted(mut links: Vec<(String, InterfaceKey)>) -> Vec<(String, InterfaceKey)> {
    links.sort();
    links
}

#[test]
fn without_tcx_filters_are_replaced_and_removed() {
    in_sandbox("clsact", |sandbox| {
        ip("link add node0 type veth peer name node1");
        ip("link add work0 type veth peer name work1");
        let bpffs = sandbox.bpffs();
        let filters = |interface: &str, direction: &str| {
            let output = Command::new("tc")
                .args(["filter", "show", "dev", interface, direction])
                .output()
                .expect("tc");
            String::from_utf8(output.stdout)
                .expect("text")
                .matches("direct-action")
                .count()
        };
        for _ in 0..2 {
            let loaded = load::load(OBJECT, &bpffs, capacity(4096)).expect("load");
            let mut attacher = Attacher::new(loaded.ebpf, loaded.directory, false, loaded.carried.directories);
            for _ in 0..2 {
                let report = attacher.reconcile(&interfaces(XdpMode::Off).wanted());
                assert!(
                    report.iter().all(|a| a.error.is_none() && a.mode == Mode::Clsact),
                    "{report:?}"
                );
                assert_eq!(
                    [
                        filters("node0", "ingress"),
                        filters("work0", "ingress"),
                        filters("work0", "egress")
                    ],
                    [1, 1, 1]
                );
            }
        }
        let names: Vec<String> = links().into_keys().collect();
        let removed = remove::remove(&bpffs, &names);
        assert!(removed.errors.is_empty(), "{:?}", removed.errors);
        assert_eq!(
            [
                filters("node0", "ingress"),
                filters("work0", "ingress"),
                filters("work0", "egress")
            ],
            [0, 0, 0]
        );
    });
}

#[test]
fn a_map_of_another_layout_stops_the_start_and_is_left_alone() {
    in_sandbox("layout", |sandbox| {
        let bpffs = sandbox.bpffs();
        drop(load::load(OBJECT, &bpffs, capacity(4096)).expect("load"));
        let directory = layout::versioned(&bpffs);
        // The flow table takes the place of another table.
        fs::remove_file(directory.join("vips")).expect("unpin");
        fs::rename(directory.join("nodes"), directory.join("vips")).expect("rename");
        let error = load::load(OBJECT, &bpffs, capacity(4096))
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains("vips") && error.contains("type") && error.contains("uninstall"),
            "{error}"
        );
        assert!(directory.join("vips").exists());
    });
}

#[test]
fn the_capacity_of_adopted_flow_tables_stays() {
    in_sandbox("capacity", |sandbox| {
        let bpffs = sandbox.bpffs();
        assert_eq!(
            load::load(OBJECT, &bpffs, capacity(4096)).expect("load").capacity,
            capacity(4096)
        );
        let second = load::load(OBJECT, &bpffs, capacity(8192)).expect("load again");
        assert!(second.adopted);
        assert_eq!(second.capacity.flows, 4096);
        let store = Store::open(&second.directory, Access::Read).expect("store");
        assert_eq!(store.capacity::<Replies4>(), 4096);
    });
}

#[test]
fn tables_read_back_what_was_written() {
    in_sandbox("tables", |sandbox| {
        let loaded = load::load(OBJECT, &sandbox.bpffs(), capacity(4096)).expect("load");
        let mut store = Store::open(&loaded.directory, Access::Write).expect("store");
        assert!(store.entries::<Backends>().expect("read").is_empty());
        let backend = |i: u32| Backend {
            address: Address::v4(i.to_be_bytes()),
            port: 80,
            generation: i,
            ..Backend::default()
        };
        let mut expected = BTreeMap::new();
        for i in [0, 1, 7, 5000, 262_143] {
            store.set::<Backends>(&i, &backend(i)).expect("write");
            if backend(i) != Backend::default() {
                expected.insert(i, backend(i));
            }
        }
        assert_eq!(store.entries::<Backends>().expect("read"), expected);
        store.delete::<Backends>(&262_143).expect("delete");
        expected.remove(&262_143);
        assert_eq!(store.entries::<Backends>().expect("read"), expected);

        // A hundred thousand entries, each in the same time: if each took longer than the one before, hours would not do.
        let slot = |index| abi::SlotKey {
            service: 1,
            generation: 1,
            index,
        };
        let start = std::time::Instant::now();
        for index in 0..100_000 {
            store.set::<Slots>(&slot(index), &index).expect("write");
        }
        let slots = store.entries::<Slots>().expect("read");
        assert_eq!(slots.len(), 100_000);
        assert!(slots.iter().all(|(key, value)| key.index == *value));
        assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
        assert_eq!(store.get::<Slots>(&slot(5)).expect("get"), Some(5));
        store.delete::<Slots>(&slot(5)).expect("delete");
        store.delete::<Slots>(&slot(5)).expect("delete again");
        assert_eq!(store.get::<Slots>(&slot(5)).expect("get"), None);
    });
}

#[test]
fn only_dead_flows_and_lost_replies_are_collected() {
    in_sandbox("collect", |sandbox| {
        let loaded = load::load(OBJECT, &sandbox.bpffs(), capacity(65_536)).expect("load");
        let mut store = Store::open(&loaded.directory, Access::Write).expect("store");
        let now = clock::now();
        let backend = Backend {
            address: Address::v4([10, 0, 0, 2]),
            delivery: Address::v4([10, 0, 0, 2]),
            port: 80,
            generation: 1,
            state: abi::BACKEND_READY,
            ..Backend::default()
        };
        store.set::<Backends>(&3, &backend).expect("backend");
        let key = |port| FlowKey4 {
            source: [192, 0, 2, 1],
            destination: [203, 0, 113, 1],
            source_port: port,
            destination_port: 8080,
            network_protocol: u32::from(abi::TCP),
        };
        let flow = |port, last_seen| abi::Flow {
            backend: 3,
            generation: 1,
            service: 9,
            last_seen,
            // Those that are to live do so however long the tables take to fill.
            timeout: abi::ticks(3_600_000),
            source_port: port,
            ..abi::Flow::default()
        };
        let reply_key = |port| FlowKey4 {
            source: [10, 0, 0, 2],
            destination: [192, 0, 2, 1],
            source_port: 80,
            destination_port: port,
            network_protocol: u32::from(abi::TCP),
        };
        let reply = |port| abi::Reply {
            frontend: Address::v4([203, 0, 113, 1]),
            client: Address::v4([192, 0, 2, 1]),
            frontend_port: 8080,
            client_port: port,
            network: 0,
            kind: abi::REPLY_PUBLISHED,
            bound: 0,
        };
        for port in 1..=10_000 {
            let last_seen = if port <= 4000 {
                now.wrapping_sub(abi::ticks(7_200_000))
            } else {
                now
            };
            store.set::<Flows4>(&key(port), &flow(port, last_seen)).expect("flow");
            store.set::<Replies4>(&reply_key(port), &reply(port)).expect("reply");
        }
        let collector = Collector::new(Store::open(&loaded.directory, Access::Write).expect("store"));
        let first = collector.walk().expect("walk");
        assert_eq!((first.flows4, first.expired, first.orphans), (6000, 4000, 4000));
        let second = collector.walk().expect("walk");
        assert_eq!((second.flows4, second.expired, second.orphans), (6000, 0, 0));
        assert_eq!(store.entries::<Flows4>().expect("flows").len(), 6000);
        assert_eq!(store.entries::<Replies4>().expect("replies").len(), 6000);
    });
}

#[test]
fn elements_that_are_gone_are_looked_for_when_new_ones_become_scarce() {
    in_sandbox("gone", |sandbox| {
        let loaded = load::load(OBJECT, &sandbox.bpffs(), capacity(1024)).expect("load");
        let mut store = Store::open(&loaded.directory, Access::Write).expect("store");
        let backend = |state| Backend {
            address: Address::v4([10, 0, 0, 2]),
            generation: 7,
            state,
            ..Backend::default()
        };
        let gone = backend(abi::BACKEND_GONE);
        for id in [3, 4] {
            store.set::<Backends>(&id, &gone).expect("backend");
        }
        let flow = abi::Flow {
            backend: 4,
            generation: 7,
            last_seen: clock::now(),
            timeout: abi::ticks(3_600_000),
            ..abi::Flow::default()
        };
        store.set::<Flows4>(&FlowKey4::default(), &flow).expect("flow");
        let collector = Collector::new(Store::open(&loaded.directory, Access::Write).expect("store"));
        let unused = || collector.walk().expect("walk").reusable.backends;
        assert_eq!(unused(), BTreeMap::new());
        let ready = backend(abi::BACKEND_READY);
        for id in 5..abi::capacity::BACKENDS / 4 * 3 + 1 {
            store.set::<Backends>(&id, &ready).expect("backend");
        }
        assert_eq!(unused(), BTreeMap::from([(3, 7)]), "a flow refers to the other");
    });
}

#[test]
fn finds_workloads_behind_veths_and_bridge_ports() {
    in_sandbox("places", |_| {
        ip("link add work0 type veth peer name work1");
        ip("link add br0 type bridge");
        ip("link add port0 type veth peer name port1");
        ip("link set port0 master br0");
        for link in ["work0", "work1", "br0", "port0", "port1"] {
            ip(&format!("link set {link} up"));
        }
        ip("addr add 10.9.0.1/24 dev work0");
        ip("addr add 10.8.0.1/24 dev br0");
        ip("neigh add 10.9.0.2 lladdr 02:00:00:00:09:02 nud permanent dev work0");
        ip("neigh add 10.8.0.2 lladdr 02:00:00:00:08:02 nud permanent dev br0");
        let status = Command::new("bridge")
            .args(["fdb", "add", "02:00:00:00:08:02", "dev", "port0", "master", "static"])
            .status()
            .expect("bridge");
        assert!(status.success());
        let wanted = ["10.9.0.2", "10.8.0.2", "10.9.0.3", "10.9.0.1", "192.0.2.77"];
        let (links, found) = block_on(async {
            let netlink = Netlink::connect().expect("netlink");
            let links = netlink.links().await.expect("links");
            let found = netlink
                .places(
                    &links,
                    wanted.map(|a| a.parse().expect("address")),
                    &mut Default::default(),
                )
                .await
                .expect("places");
            (links, found)
        });
        let index = |name: &str| links.iter().find(|l| l.name == name).expect("link").ifindex;
        let place = |a: &str| {
            found
                .places
                .get(&a.parse().expect("address"))
                .map(|p| (p.ifindex, p.mac))
        };
        assert_eq!(place("10.9.0.2"), Some((index("work0"), [2, 0, 0, 0, 9, 2])));
        assert_eq!(place("10.8.0.2"), Some((index("port0"), [2, 0, 0, 0, 8, 2])));
        assert_eq!(place("10.9.0.1"), None, "its own address");
        assert_eq!(place("192.0.2.77"), None, "no route");
        assert_eq!(
            found.pending,
            ["10.9.0.3".parse::<std::net::IpAddr>().expect("address")]
        );
    });
}
