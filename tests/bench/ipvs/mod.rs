//! IPVS, and Swarm's chain around it, beside the others: instructions that a node runs for a packet, on a kernel that has
//! IPVS, in a machine whose clock counts them (`xtask/src/guest/bench.rs`).
//!
//! A packet begins in the driver of the node's port, where XDP runs, and ends at a far end that counts and drops it. What
//! making it costs, up to there, is measured with a program that drops it at once, and taken away from everybody.

mod chapter;
mod connection;
mod port;
mod programs;
mod rules;
mod scene;
mod swarm;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use self::scene::Scene;
use crate::Effort;
use crate::data::Data;
use crate::packages;
use crate::yardstick::{self, Table};

pub(crate) use self::chapter::{bars, chapter};

const UNIT: &str = "instructions";
/// Packets of one turn.
const PACKETS: u32 = 2000;
/// Number of the first client that opens one connection more; the one with number 0 has an established one.
const NEWCOMERS: u32 = 1000;
/// Packets before them.
const WARM: u32 = 100;
/// Where the kernel shows that it has IPVS.
const PRESENT: &str = "/proc/net/ip_vs";

/// Who carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nobody: they are dropped as they come.
    Generator,
    /// The kernel routes them to the backend.
    Plain,
    Iptables,
    Nftables,
    Ipvs,
    /// With entries of conntrack for its connections.
    IpvsConntrack,
    Swarm,
    /// A program at XDP that sends every packet on as it is.
    Forward,
    /// One that chooses by a hash, and knows no flows.
    Hash,
    /// This balancer at XDP, to a backend on another node.
    OursXdp,
    /// This balancer at tc, to a backend on another node.
    OursTc,
    /// This balancer at tc, to a backend on the node.
    OursTcHere,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Generator,
        Self::Plain,
        Self::Iptables,
        Self::Nftables,
        Self::Ipvs,
        Self::IpvsConntrack,
        Self::Swarm,
        Self::Forward,
        Self::Hash,
        Self::OursXdp,
        Self::OursTc,
        Self::OursTcHere,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Generator => "dropped in the driver",
            Self::Plain => "plain forwarding",
            Self::Iptables => "iptables DNAT",
            Self::Nftables => "nftables DNAT",
            Self::Ipvs => "IPVS",
            Self::IpvsConntrack => "IPVS with conntrack",
            Self::Swarm => "Swarm's chain",
            Self::Forward => "XDP alone: sent on as it is",
            Self::Hash => "XDP, stateless hash",
            Self::OursXdp => "this balancer (XDP), backend on another node",
            Self::OursTc => "this balancer (tc), backend on another node",
            Self::OursTcHere => "this balancer (tc), backend on the node",
        }
    }
}

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// All of one connection.
    Established,
    /// Each opens one.
    New,
}

impl Load {
    const ALL: [Self; 2] = [Self::Established, Self::New];

    const fn name(self) -> &'static str {
        match self {
            Self::Established => "established flow",
            Self::New => "new flow",
        }
    }
}

/// Measures the row.
///
/// # Errors
/// If the kernel has no IPVS or refuses something, or packets are lost.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    ensure!(
        Path::new(PRESENT).exists(),
        "this kernel has no IPVS ({PRESENT}); `cargo xtask bench ipvs` takes one that has"
    );
    for (program, argument) in [
        ("iptables-nft", "--version"),
        ("nft", "--version"),
        ("ipvsadm", "--version"),
    ] {
        data.note(packages::version(program, argument));
    }
    let yardstick = yardstick::compile(Table::Hash)?;
    let mut scenes = Vec::new();
    for kind in Kind::ALL {
        println!("ipvs: building {}", kind.name());
        let scene = Scene::build(kind, &yardstick).with_context(|| kind.name())?;
        scene.establish().with_context(|| kind.name())?;
        scenes.push(scene);
    }
    let count = effort.share(PACKETS as usize) as u32;
    for round in 0..effort.rounds {
        println!("ipvs: round {}", round + 1);
        let first = NEWCOMERS + round as u32 * (count + WARM);
        for load in Load::ALL {
            let mut generator = 0.0;
            for scene in &scenes {
                let each = turn(scene, load, first, count)
                    .with_context(|| format!("{}: {}", scene.kind.name(), load.name()))?;
                if scene.kind == Kind::Generator {
                    generator = each;
                }
                let own = if scene.kind == Kind::Generator {
                    each
                } else {
                    each - generator
                };
                data.add(load.name(), scene.kind.name(), UNIT, own);
            }
        }
    }
    println!("ipvs: up for {} s of the guest's", uptime()?);
    Ok(())
}

/// Instructions for a packet, with those that make it.
fn turn(scene: &Scene, load: Load, first: u32, count: u32) -> Result<f64> {
    let mut template = scene.template(load == Load::New);
    let mut send = |numbers: std::ops::Range<u32>| -> Result<()> {
        for number in numbers {
            let client = if load == Load::New { first + number } else { 0 };
            scene.receive(template.of(client))?;
        }
        Ok(())
    };
    send(0..WARM)?;
    let before = scene.arrived()?;
    // In this machine each instruction takes a nanosecond.
    let start = Instant::now();
    send(WARM..WARM + count)?;
    let elapsed = start.elapsed();
    let arrived = scene.arrived()? - before;
    ensure!(arrived == u64::from(count), "{arrived} of {count} packets arrived");
    Ok(elapsed.as_nanos() as f64 / f64::from(count))
}

fn uptime() -> Result<String> {
    let text = fs::read_to_string("/proc/uptime").context("/proc/uptime")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
