//! The row `instructions`: what the row `program` times, counted, in a guest whose clock counts instructions. Nothing that the
//! machine does beside it changes a count; what waits for memory counts as what does not.

use std::fmt::Write as _;

use anyhow::Result;
use lb_tests::world;

use super::frames::{Hook, Path};
use super::lanes::{ours, yardsticks};
use super::{BARE, Flows, OURS, case, one_round, yardstick_case};
use crate::Effort;
use crate::data::Data;
use crate::plot::Plot;
use crate::report::{Chapter, cell, ratio};
use crate::yardstick::Table;

const UNIT: &str = "instructions";
/// How many flows there are changes a count by the other entries of a bucket alone.
const FLOWS: [Flows; 2] = [Flows::Known(1), Flows::New];
/// Counted runs of one turn: nearly all are the same.
const RUNS: usize = 200;

/// Measures the row.
///
/// # Errors
/// If the kernel refuses something, or a packet does not go where it should.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    world::build()?.run(|| {
        let (mut stages, mut lanes) = (Vec::new(), Vec::new());
        ours(&mut stages, &mut lanes, &FLOWS)?;
        yardsticks(&mut stages, &mut lanes, &FLOWS)?;
        for _ in 0..effort.rounds {
            one_round(data, &mut stages, &mut lanes, RUNS, UNIT)?;
        }
        Ok(())
    })
}

/// The row's table.
pub(crate) fn chapter(data: &Data) -> Chapter {
    let mut text = String::new();
    let [xdp, tc] = [Hook::Xdp, Hook::Tc].map(|hook| cell(data.spread(hook.name(), BARE)));
    let _ = writeln!(
        text,
        "A program that returns at once takes {xdp} at XDP and {tc} at tc, with what runs it; all that follows is net of it.\n\n\
         | packets | IPv4 | over the yardstick with as many flows | IPv6 |\n|---|---|---|---|"
    );
    let mut groups = Vec::new();
    for (hook, path, flows) in shown(data) {
        let [v4, v6] = [false, true].map(|v6| case(hook, path, v6, flows));
        let yardstick = yardstick_case(hook, flows);
        let over = data.ratio((&v4, OURS), (&yardstick, Table::Hash.name()));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            v4.replace(", IPv4", ""),
            cell(data.spread(&v4, OURS)),
            ratio(over),
            cell(data.spread(&v6, OURS))
        );
        if matches!(
            (hook, path),
            (Hook::Xdp, Path::ToNode) | (Hook::Tc, Path::ToLocal | Path::Vip)
        ) {
            groups.push((v4.replace(", IPv4", ""), vec![over]));
        }
    }
    let plot = Plot {
        title: "Instructions of one run of a program, over the yardstick's".to_owned(),
        unit: "of the yardstick's",
        groups,
        subjects: vec![OURS.to_owned()],
    };
    Chapter {
        text,
        plots: vec![("instructions".to_owned(), plot)],
    }
}

/// What was counted, in the order of the table.
fn shown(data: &Data) -> Vec<(Hook, Path, Flows)> {
    let mut all = Vec::new();
    for hook in [Hook::Xdp, Hook::Tc] {
        for flows in [Flows::None].into_iter().chain(FLOWS) {
            for path in Path::ALL {
                if data.spread(&case(hook, path, false, flows), OURS).is_some() {
                    all.push((hook, path, flows));
                }
            }
        }
    }
    all
}
