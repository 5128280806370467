//! Memory of maps and agent, and the agent's CPU time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use lb_tests::cluster::Node;
use serde_json::Value;

use super::scene::Scene;
use super::{LARGE, OURS, SMALL, sized};
use crate::data::Data;

/// Datagrams that open a flow each.
const FLOWS: u16 = 20_000;
/// From this port on: below those that the kernel gives to sockets that do not mind.
const FIRST_PORT: u16 = 10_000;

/// Memory of the maps, for each entry of those that grow.
pub(super) fn memory(scene: &Scene, data: &mut Data) -> Result<()> {
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
        after.1 - before.1 > f64::from(FLOWS) / 2.0,
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

pub(super) fn open_flows(scene: &Scene) -> Result<()> {
    scene.cluster.client(0).netns().run(|| {
        for port in FIRST_PORT..FIRST_PORT + FLOWS {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            socket.send_to(b"who?", scene.target())?;
        }
        Ok(())
    })
}

pub(super) struct Map {
    name: String,
    bytes: f64,
    entries: f64,
}

pub(super) fn maps(node: &Node) -> Result<Vec<Map>> {
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
pub(super) fn resident(pid: u32) -> Result<f64> {
    status(pid, "VmRSS:")
}

/// The most that was ever resident, in bytes.
pub(super) fn peak(pid: u32) -> Result<f64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &'static str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(Path::new(&path)).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
    let kibibytes: f64 = line.split_whitespace().next().context(name)?.parse()?;
    Ok(kibibytes * 1024.0)
}

/// CPU time of each thread of a process, in seconds. The file of the process is that of its first thread alone.
pub(super) fn used(pid: u32) -> Result<BTreeMap<OsString, f64>> {
    let path = format!("/proc/{pid}/task");
    let mut times = BTreeMap::new();
    for task in fs::read_dir(&path).context(path)? {
        let task = task?;
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let field = text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse::<f64>().ok());
        times.insert(task.file_name(), field.unwrap_or(0.0) / 1e9);
    }
    Ok(times)
}

/// CPU time that passed between two looks. A thread that has ended meanwhile, because nobody needed it, counts for nothing.
pub(super) fn between(before: &BTreeMap<OsString, f64>, after: &BTreeMap<OsString, f64>) -> f64 {
    let spent = after
        .iter()
        .map(|(thread, time)| time - before.get(thread).unwrap_or(&0.0));
    spent.sum()
}
