//! End to end: sockets to sockets over the same hops, through real agents and their peers, in turn.

mod chapter;
mod contender;
pub(crate) mod load;
mod plan;
mod proxy;
pub(crate) mod rules;
pub(crate) mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::contender::{Contender, Kind};
use self::plan::{Protocol, Way};
use crate::Effort;
use crate::awake::Awake;
use crate::data::Data;
use crate::machine::{busy, pin};

pub(crate) use self::chapter::{bars, chapter};

/// Subjects, by their names in the data.
pub(crate) const DIRECT: &str = "no balancer";
pub(crate) const DIRECT_BARE: &str = "no balancer, no offloads";
pub(crate) const DIRECT_PASS: &str = "no balancer, no offloads, XDP that passes";
pub(crate) const OURS: &str = "this balancer (tc)";
pub(crate) const OURS_XDP: &str = "this balancer (XDP), no offloads";
pub(crate) const PEERS: [&str; 4] = ["iptables", "nftables", "HAProxy", "nginx"];
/// Behind the name of a subject that has so many services.
pub(crate) const MANY: &str = ", 10,000 services";
const MANY_SERVICES: u16 = 10_000;
/// Ours and their peers' rules alone: a proxy has a socket for each service, whatever their number.
const WITH_MANY: [&str; 3] = [OURS, "iptables", "nftables"];

/// CPU time of all CPUs, by the request or by the gigabyte: details of cases.
pub(crate) const EACH: &str = ", CPU time each";
pub(crate) const EACH_GIGABYTE: &str = ", CPU time a gigabyte";

/// How long one subject is measured in one round.
const TURN: Duration = Duration::from_millis(320);
/// Where the clients run; the servers run on CPU 1, proxies and agents where they like.
const CLIENT_CPU: usize = 0;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Upload,
    Download,
    Requests,
    Connections,
    Latency,
    Datagrams,
}

impl Load {
    pub(crate) const ALL: [Self; 6] = [
        Self::Upload,
        Self::Download,
        Self::Requests,
        Self::Connections,
        Self::Latency,
        Self::Datagrams,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Upload => "TCP throughput up",
            Self::Download => "TCP throughput down",
            Self::Requests => "requests with keep-alive",
            Self::Connections => "new connections",
            Self::Latency => "latency",
            Self::Datagrams => "UDP packets",
        }
    }

    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Upload | Self::Download => "bit/s",
            Self::Requests => "requests/s",
            Self::Connections => "connections/s",
            Self::Latency => "µs",
            Self::Datagrams => "packets/s",
        }
    }
}

/// Name of a case; most loads have more than one number, told apart by `detail`.
pub(crate) fn case(way: &str, load: Load, detail: &str) -> String {
    format!("{way}: {}{detail}", load.name())
}

/// Names of the ways, in the order of the document.
pub(crate) fn ways() -> [&'static str; 4] {
    Way::ALL.map(Way::name)
}

/// Measures the row.
///
/// # Errors
/// If a contender cannot be built, or loses connections.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    contender::versions()?
        .into_iter()
        .for_each(|version| data.note(version));
    let mut contenders = Vec::new();
    let kinds = [
        (DIRECT, Kind::Direct),
        (OURS, Kind::OursTc),
        (PEERS[0], Kind::Iptables),
        (PEERS[1], Kind::Nftables),
        (PEERS[2], Kind::Haproxy),
        (PEERS[3], Kind::Nginx),
        (DIRECT_BARE, Kind::DirectBare),
        (DIRECT_PASS, Kind::DirectPass),
        (OURS_XDP, Kind::OursXdp),
    ];
    for (name, kind) in kinds {
        println!("traffic: building {name}");
        contenders.push(Contender::start(name, kind, 4).with_context(|| name.to_owned())?);
    }
    for name in WITH_MANY {
        println!("traffic: building {name}{MANY}");
        let kind = kinds
            .iter()
            .find(|(n, _)| *n == name)
            .map_or(Kind::OursTc, |(_, kind)| *kind);
        let name = format!("{name}{MANY}");
        contenders.push(Contender::start(&name, kind, MANY_SERVICES).with_context(|| name.clone())?);
    }
    offloads(&contenders, data)?;
    let turn = if effort.quick { TURN / 2 } else { TURN };
    let _awake = Awake::begin()?;
    for round in 0..effort.rounds {
        println!("traffic: round {}", round + 1);
        for way in Way::ALL {
            for load in Load::ALL {
                for contender in contenders.iter().filter(|contender| takes(contender, way, load)) {
                    one(contender, way, load, turn, data)
                        .with_context(|| format!("{}: {}", contender.name, case(way.name(), load, "")))?;
                }
            }
        }
    }
    Ok(())
}

/// Says which offloads were on, and for whom.
fn offloads(contenders: &[Contender], data: &mut Data) -> Result<()> {
    let mut all: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for contender in contenders {
        for way in Way::ALL.into_iter().filter(|way| contender.takes(*way, Protocol::Tcp)) {
            all.entry(contender.offloads(way)?).or_default().insert(&contender.name);
        }
    }
    for (state, names) in all {
        let names: Vec<_> = names.into_iter().collect();
        data.note(format!(
            "Interfaces of clients and backends: {state}: {}",
            names.join("; ")
        ));
    }
    Ok(())
}

/// Whether a contender takes part; with many services, only in what they could make slower.
fn takes(contender: &Contender, way: Way, load: Load) -> bool {
    let protocol = if load == Load::Datagrams {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    let many = contender.name.ends_with(MANY);
    let shown = matches!(load, Load::Requests | Load::Connections) && way == Way::PublishedHere;
    contender.takes(way, protocol) && (!many || shown)
}

fn one(contender: &Contender, way: Way, load: Load, turn: Duration, data: &mut Data) -> Result<()> {
    let mut add = |detail: &str, unit: &str, value: f64| {
        data.add(&case(way.name(), load, detail), &contender.name, unit, value);
    };
    let target = |protocol| contender.target(way, protocol);
    let tcp = target(Protocol::Tcp);
    contender.client(way).run(|| -> Result<()> {
        pin(CLIENT_CPU)?;
        match load {
            Load::Upload | Load::Download => {
                let before = busy()?;
                let (rate, bytes) = load::bulk(tcp, turn, load == Load::Upload)?;
                add("", load.unit(), rate);
                add(
                    EACH_GIGABYTE,
                    "ms",
                    (busy()? - before).as_secs_f64() * 1e12 / bytes as f64,
                );
            }
            Load::Requests => {
                let before = busy()?;
                let (rate, asked) = load::keep_alive(tcp, turn)?;
                add("", load.unit(), rate);
                add(EACH, "µs", (busy()? - before).as_secs_f64() * 1e6 / asked as f64);
            }
            Load::Connections => add("", load.unit(), load::connections(tcp, turn)?),
            Load::Latency => {
                let [half, most, nearly_all] = load::latency(tcp, turn)?;
                add(" p50", load.unit(), half);
                add(" p99", load.unit(), most);
                add(" p99.9", load.unit(), nearly_all);
            }
            Load::Datagrams => {
                let (rate, lost) = load::datagrams(target(Protocol::Udp), turn, &[contender.server(way)])?;
                add("", load.unit(), rate);
                add(", lost", "%", lost * 100.0);
            }
        }
        Ok(())
    })
}
