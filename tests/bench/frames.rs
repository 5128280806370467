//! Frames a second through native XDP on one core: live frames of `BPF_PROG_TEST_RUN`, transmitted into a veth whose far
//! end counts and drops them. Generator, program, transmission and far end share the core.
//!
//! The kernel gives a frame to the program again as the program left it, so a small program writes each anew and jumps to
//! the one that is measured; the bare program, which reflects, is reached the same way.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::{Program, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use lb_common::abi::program::XDP_NODE;
use lb_common::testing::world::{Case, NODE_IF, Place};
use lb_tests::netns::Netns;
use lb_tests::{kernel, world};

use crate::Effort;
use crate::data::{Data, Spread};
use crate::machine::pin;
use crate::plot::{Plot, short};
use crate::program::frames::{self, Hook, Path};
use crate::program::stage::Stage;
use crate::program::{BARE, OURS};
use crate::report::{Bar, Chapter, Limit, cell, ratio};
use crate::yardstick::{self, Refill, Table, XDP_BARE, XDP_DNAT, XDP_REFILL, XDP_SINK};

const UNIT: &str = "frames/s";
/// Flows that frames belong to, one after the other.
const FLOWS: [(u32, &str); 3] = [(1, "1 flow"), (1000, "1 k flows"), (60_000, "60 k flows")];
/// Frames of one turn.
const FRAMES: usize = 2_000_000;
/// Handed to the interface at once, as a driver does it.
const BATCH: u32 = 64;
const SUBJECTS: [&str; 3] = [BARE, Table::Hash.name(), OURS];

/// A program under test, with the one that makes its frames.
struct Line {
    subject: &'static str,
    refill: Ebpf,
    /// Without somebody who holds it, the kernel empties it.
    _next: ProgramArray<MapData>,
    /// Keeps the program under test and its tables.
    _stage: Stage,
}

/// Measures the row.
///
/// # Errors
/// If the kernel refuses something, or frames are lost on the cable.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    let netns = world::build()?;
    // Native XDP wants frames that fit a page.
    netns.ip(&format!(
        "link set if{NODE_IF} mtu 1500\nlink set if{} mtu 1500",
        NODE_IF + 100
    ))?;
    netns.run(|| measure_inside(effort, data, &netns))
}

fn measure_inside(effort: Effort, data: &mut Data, netns: &Netns) -> Result<()> {
    pin(0)?;
    let object = yardstick::compile(Table::Hash)?;
    let mut sink = yardstick::load(&object)?;
    let far: &mut Xdp = sink.program_mut(XDP_SINK).context(XDP_SINK)?.try_into()?;
    far.attach(&format!("if{}", NODE_IF + 100), XdpMode::Driver)
        .with_context(|| format!("native XDP on a veth in {}", netns.name()))?;
    let mut lines: Vec<Line> = SUBJECTS
        .iter()
        .map(|subject| line(subject, &object))
        .collect::<Result<_>>()?;
    for round in 0..effort.rounds {
        println!("frames: round {}", round + 1);
        for (flows, case) in FLOWS {
            for line in &mut lines {
                let rate = turn(line, &sink, flows, effort.share(FRAMES))
                    .with_context(|| format!("{} with {case}", line.subject))?;
                data.add(case, line.subject, UNIT, rate);
            }
        }
    }
    Ok(())
}

fn line(subject: &'static str, object: &[u8]) -> Result<Line> {
    let case = Case::TCP[0];
    let most = FLOWS[FLOWS.len() - 1].0 + 1;
    let (stage, name) = match subject {
        OURS => (Stage::ours(Place::Node2, 0)?, XDP_NODE),
        BARE => (Stage::yardstick(object, 1)?, XDP_BARE),
        _ => (Stage::yardstick(object, 1)?, XDP_DNAT),
    };
    if subject != BARE {
        stage.establish(case, Path::ToNode, most)?;
    }
    let mut refill = yardstick::load(object)?;
    let mut next = ProgramArray::try_from(refill.take_map("next").context("next")?)?;
    let Program::Xdp(program) = stage.program(name)? else {
        anyhow::bail!("{name} is no XDP program");
    };
    next.set(0, program.fd()?, 0).context("the program to jump to")?;
    Ok(Line {
        subject,
        refill,
        _next: next,
        _stage: stage,
    })
}

/// Frames a second that arrived at the far end.
fn turn(line: &mut Line, sink: &Ebpf, flows: u32, count: usize) -> Result<f64> {
    let mut packet = frames::data(Case::TCP[0], Path::ToNode, Hook::Xdp);
    let context = kernel::context(&packet.input());
    let first = packet.template.of(0).to_vec();
    let mut fill = [0; size_of::<Refill>()];
    fill[..64].copy_from_slice(&first);
    fill[64..68].copy_from_slice(&flows.to_ne_bytes());
    let mut frame = Array::<_, Refill>::try_from(line.refill.map_mut("frame").context("frame")?)?;
    frame.set(0, fill, 0)?;
    let Program::Xdp(program) = line.refill.program(XDP_REFILL).context(XDP_REFILL)? else {
        anyhow::bail!("{XDP_REFILL} is no XDP program");
    };
    let run = |repeat: usize| {
        let options = TestRunOptions {
            data_in: Some(&first),
            ctx_in: Some(&context),
            repeat: repeat as u32,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        program.test_run(options)
    };
    run(count / 20)?;
    let before = arrived(sink)?;
    let start = Instant::now();
    run(count)?;
    let elapsed = start.elapsed();
    let arrived = arrived(sink)? - before;
    // The last batch may still be on its way.
    ensure!(
        arrived as usize + 4 * BATCH as usize >= count,
        "only {arrived} of {count} frames came through"
    );
    Ok(arrived as f64 / elapsed.as_secs_f64())
}

/// How many frames the sinks of an object have taken.
///
/// # Errors
/// If the map cannot be read.
pub(crate) fn arrived(sink: &Ebpf) -> Result<u64> {
    let counts = PerCpuArray::<_, u64>::try_from(sink.map("arrived").context("arrived")?)?;
    Ok(counts.get(&0, 0)?.iter().sum())
}

/// What the row has to reach.
pub(crate) fn bars(data: Option<&Data>) -> Vec<Bar> {
    let case = FLOWS[1].1;
    vec![
        Bar {
            what: format!("{case}, with encapsulation: rate over that of bare reflection"),
            limit: Limit::AtLeast(0.65),
            measured: data.and_then(|data| data.ratio((case, OURS), (case, BARE))),
        },
        Bar {
            what: format!("{case}, with encapsulation: million frames a second"),
            limit: Limit::AtLeast(4.0),
            measured: data.and_then(|data| data.spread(case, OURS)).map(|s| Spread {
                median: s.median / 1e6,
                min: s.min / 1e6,
                max: s.max / 1e6,
            }),
        },
    ]
}

/// The row's tables.
pub(crate) fn chapter(data: &Data) -> Chapter {
    let mut text = String::from(
        "| frames of | reflected, frames/s | yardstick, no encapsulation | over reflection | this balancer, encapsulated | over reflection | ns more a frame |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let mut groups = Vec::new();
    for (_, case) in FLOWS {
        let spreads = SUBJECTS.map(|subject| data.spread(case, subject));
        let over = |subject| ratio(data.ratio((case, subject), (case, BARE)));
        let more = match (spreads[0], spreads[2]) {
            (Some(bare), Some(ours)) => short(1e9 / ours.median - 1e9 / bare.median),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {case} | {} | {} | {} | {} | {} | {more} |",
            cell(spreads[0]),
            cell(spreads[1]),
            over(SUBJECTS[1]),
            cell(spreads[2]),
            over(OURS),
        );
        groups.push((case.to_owned(), vec![spreads[2], spreads[0], spreads[1]]));
    }
    let plot = Plot {
        title: "Frames a second through native XDP, one core".to_owned(),
        unit: UNIT,
        subjects: vec![
            OURS.to_owned(),
            "bare reflection".to_owned(),
            "yardstick (no encapsulation)".to_owned(),
        ],
        groups,
    };
    Chapter {
        text,
        plots: vec![("frames".to_owned(), plot)],
    }
}
