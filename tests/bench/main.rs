//! `lb-bench`: measures this balancer and its peers side by side, and writes what came out. Run by `cargo xtask bench`.
//!
//! | row | module | what |
//! |---|---|---|
//! | `program` | [`program`] | one run of a program, against a minimal program in C |
//! | `instructions` | [`program::count`] | the same, counted; in a guest |
//! | `frames` | [`frames`] | frames a second through XDP on one core |
//! | `traffic` | [`traffic`] | sockets to sockets, against no balancer, iptables, nftables, HAProxy, nginx |
//! | `ipvs` | [`ipvs`] | instructions of a packet, against plain forwarding, IPVS and Swarm's chain; in a guest |
//! | `control` | [`control`] | from a change of the cluster file to packets that follow it; memory; idle |
//! | `dns` | [`names`] | questions a second, against dnsmasq, unbound and dockerd's own resolver |
//!
//! Every row measures all its subjects in turn, round after round, and keeps what each round gave
//! (`docs/benchmarks/<row>.json`). `docs/benchmarks.md` and the plots are made from these files alone, so rows can be
//! measured one by one.

mod awake;
mod control;
mod data;
mod frames;
mod ipvs;
mod machine;
mod names;
mod packages;
mod plot;
mod program;
mod report;
mod traffic;
mod yardstick;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::{Parser, ValueEnum};
use lb_tests::require;

use crate::data::Data;

/// Measures the load balancer and its peers side by side.
#[derive(Parser)]
#[command(name = "lb-bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; all of it by default.
    rows: Vec<Row>,
    /// Rounds, in each of which every subject has its turn.
    #[arg(long)]
    rounds: Option<usize>,
    /// A few minutes for everything: fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Measure nothing: write the document and the plots from the data that is there.
    #[arg(long, conflicts_with_all = ["rounds", "quick"])]
    report: bool,
    /// Directory of benchmarks.md and benchmarks/.
    #[arg(long, default_value = "docs")]
    output: PathBuf,
    /// This machine's clock counts instructions: here are the rows measured that are counts, and no other.
    #[arg(long, hide = true)]
    counted: bool,
    /// The sources that are measured, for the document.
    #[arg(long, hide = true, default_value = "unknown")]
    commit: String,
}

/// A row of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Row {
    /// Cost of a program.
    Program,
    /// Cost of a program in instructions.
    Instructions,
    /// Frames a second.
    Frames,
    /// Sockets to sockets.
    Traffic,
    /// Instructions of a packet, on a kernel with IPVS.
    Ipvs,
    /// Names.
    Dns,
    /// Changes of the cluster.
    Control,
}

impl Row {
    /// Its name, and that of its files.
    const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Instructions => "instructions",
            Self::Frames => "frames",
            Self::Traffic => "traffic",
            Self::Ipvs => "ipvs",
            Self::Dns => "dns",
            Self::Control => "control",
        }
    }

    /// Whether it is measured where the clock counts instructions, and nowhere else.
    const fn is_counted(self) -> bool {
        matches!(self, Self::Instructions | Self::Ipvs)
    }

    /// What it has to reach, and whether it does, as far as it was measured.
    fn bars(self, data: Option<&Data>) -> Vec<report::Bar> {
        match self {
            Self::Program => program::bars(data),
            Self::Instructions => Vec::new(),
            Self::Frames => frames::bars(data),
            Self::Traffic => traffic::bars(data),
            Self::Ipvs => ipvs::bars(data),
            Self::Dns => names::bars(data),
            Self::Control => control::bars(data),
        }
    }

    /// Its part of the document.
    fn chapter(self, data: &Data) -> report::Chapter {
        match self {
            Self::Program => program::chapter(data),
            Self::Instructions => program::count::chapter(data),
            Self::Frames => frames::chapter(data),
            Self::Traffic => traffic::chapter(data),
            Self::Ipvs => ipvs::chapter(data),
            Self::Dns => names::chapter(data),
            Self::Control => control::chapter(data),
        }
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    quick: bool,
}

impl Effort {
    /// `full` of something, or a fifth of it where little time is to be spent.
    fn share(self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut failed = Vec::new();
    if !arguments.report {
        if let Some(reason) = require::datapath_reason() {
            bail!("{reason}");
        }
        let effort = Effort {
            rounds: arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 7 }).max(1),
            quick: arguments.quick,
        };
        let mut rows = arguments.rows.clone();
        if rows.is_empty() {
            rows = Row::value_variants().to_vec();
            rows.retain(|row| row.is_counted() == arguments.counted);
        }
        rows.sort();
        rows.dedup();
        for row in rows {
            // What one row lacks must not cost the others.
            if let Err(error) = one_row(row, effort, arguments) {
                eprintln!("error: row {}: {error:#}", row.name());
                failed.push(row.name());
            }
        }
    }
    report::write(&arguments.output)?;
    println!("{}", arguments.output.join("benchmarks.md").display());
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// Measures a row, and writes its data and the document.
fn one_row(row: Row, effort: Effort, arguments: &Arguments) -> Result<()> {
    println!("{}: {} rounds", row.name(), effort.rounds);
    ensure!(
        row.is_counted() == arguments.counted,
        "`cargo xtask bench {}` runs it where it is measured",
        row.name()
    );
    let start = Instant::now();
    let mut data = Data::new(effort, &arguments.commit)?;
    match row {
        Row::Program => program::measure(effort, &mut data),
        Row::Instructions => program::count::measure(effort, &mut data),
        Row::Frames => frames::measure(effort, &mut data),
        Row::Traffic => traffic::measure(effort, &mut data),
        Row::Ipvs => ipvs::measure(effort, &mut data),
        Row::Dns => names::measure(effort, &mut data),
        Row::Control => control::measure(effort, &mut data),
    }?;
    data.save(&arguments.output, row.name())?;
    report::write(&arguments.output)?;
    println!("{}: {} s", row.name(), start.elapsed().as_secs());
    Ok(())
}
