//! Programs are attached, exchanged and removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lb_common::abi::InterfaceKey;
use lb_userspace::config::XdpMode;
use lb_userspace::datapath::attach::{
    Attacher, Attachment, Hook, Interfaces, Mode, NodeInterface, WorkloadInterface, choose_xdp, pinned_links,
};
use lb_userspace::datapath::probe::Features;
use lb_userspace::datapath::view::View;
use lb_userspace::datapath::{OBJECT, layout, load, remove};
use lb_userspace::net::netns::Namespace;
use lb_userspace::net::{Link, Netlink};

use crate::sandbox::{block_on, capacity, in_sandbox, ip};

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

fn start(bpffs: &Path, mode: XdpMode) -> (Attacher, Vec<Attachment>) {
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
    let view = View::open(&directory).expect("view");
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
