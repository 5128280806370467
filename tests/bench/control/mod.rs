//! From a change of the cluster file to packets that follow it; a whole cluster read anew; memory; rest.

mod memory;
mod rules;
mod scene;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use lb_tests::netns::Netns;

use self::memory::{between, memory, peak, resident, used};
use self::rules::Peer;
use self::scene::Scene;
use crate::Effort;
use crate::data::{Data, Spread};
use crate::plot::short;
use crate::report::{Bar, Chapter, Limit, cell};
use crate::traffic::load::percentiles;

const OURS: &str = "this balancer";
/// Services, and backends of each.
const SMALL: (u16, u8) = (10, 10);
const LARGE: (u16, u8) = (10_000, 10);
/// Changes in a round, of either state.
const CHANGES: usize = 50;
const PEER_CHANGES: usize = 15;
/// Rounds, at most: each reads the large state three times.
const ROUNDS: usize = 5;
/// After which an agent has nothing left to do.
const SETTLED: Duration = Duration::from_secs(3);
/// Longer than what is done now and then is apart.
const REST: Duration = Duration::from_secs(60);

const SYNC: &str = "whole state read anew";
const BEHIND: &str = "change right behind a whole state";
const RESTART: &str = "agent restarted until ready";
const IDLE: &str = "CPU at rest";
/// Of an agent that began with this state, or went on to a larger one,
const RESIDENT: &str = "agent's memory";
/// that had a larger one before,
const SHRUNK: &str = "agent's memory after a large state";
/// and at any moment until then.
const PEAK: &str = "agent's memory at most";

fn sized(what: &str, (services, backends): (u16, u8)) -> String {
    format!("{what}, {services} services x {backends} backends")
}

const CHANGE: &str = "change until new packets follow";

/// Measures the row.
///
/// # Errors
/// If the agent does not follow.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    let scene = Scene::start()?;
    let [small, large] = &scene.texts;
    for round in 0..effort.rounds.min(ROUNDS) {
        println!("control: round {}", round + 1);
        for (text, size) in [small, large] {
            if size == &SMALL && round > 0 {
                scene.replace(text)?;
                std::thread::sleep(SETTLED);
                data.add(&sized(SHRUNK, SMALL), OURS, "B", resident(scene.agent()?)?);
                scene.restart()?;
            }
            let took = scene.replace(text)?;
            data.add(&sized(SYNC, *size), OURS, "ms", milliseconds(took));
            // The agent is not done with the whole state when packets follow it: this one waits for the rest.
            let took = scene.change(text, 1)?;
            data.add(&sized(BEHIND, *size), OURS, "ms", milliseconds(took));
            std::thread::sleep(SETTLED);
            for turn in 0..effort.share(CHANGES) {
                let took = scene.change(text, turn % 2)?;
                data.add(&sized(CHANGE, *size), OURS, "ms", milliseconds(took));
            }
            std::thread::sleep(SETTLED);
            let agent = scene.agent()?;
            data.add(&sized(RESIDENT, *size), OURS, "B", resident(agent)?);
            data.add(&sized(PEAK, *size), OURS, "B", peak(agent)?);
        }
        data.add(&sized(RESTART, LARGE), OURS, "ms", milliseconds(scene.restart()?));
    }
    for (_, size) in &scene.texts {
        let case = sized(CHANGE, *size);
        let changes = data.values(&case, OURS).unwrap_or_default().to_vec();
        data.add(&format!("{case}: p99"), OURS, "ms", percentiles(changes)[1]);
    }
    // Of an agent without flows: what they cost, they cost while they come and go.
    std::thread::sleep(SETTLED);
    let rest = if effort.quick { REST / 2 } else { REST };
    let before = used(scene.agent()?)?;
    std::thread::sleep(rest);
    let share = between(&before, &used(scene.agent()?)?) / rest.as_secs_f64() * 100.0;
    data.add(&sized(IDLE, LARGE), OURS, "%", share);
    peers(effort, data)?;
    memory(&scene, data)
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
        for turn in 0..effort.share(PEER_CHANGES) {
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
