//! What one run of a program costs: `BPF_PROG_TEST_RUN` with repeat 1, the median of many runs, less what a program costs
//! that does nothing, measured in the same round.
//!
//! A repeat above 1 would give the same frame again, already rewritten, and tables that are warmer than any traffic
//! keeps them.

mod chapter;
pub(crate) mod count;
pub(crate) mod frames;
mod lanes;
mod memory;
pub(crate) mod stage;
pub(crate) mod template;

use anyhow::{Context as _, Result};
use aya::programs::{Program, TestRun as _, TestRunOptions};
use lb_common::testing::world::Case;
use lb_tests::{kernel, world};

use self::frames::{Hook, Packet, Path};
use self::lanes::{Lane, ours, services, steps, yardsticks};
use self::stage::Stage;
use crate::data::Data;
use crate::machine::pin;
use crate::yardstick::{self, Table};
use crate::{Effort, packages};

pub(crate) use self::chapter::{bars, chapter};
pub(crate) use self::lanes::{SERVICES, services_case, yardstick_case};

/// This balancer, as a subject.
pub(crate) const OURS: &str = "this balancer";
/// A program that returns at once.
pub(crate) const BARE: &str = "bare";
/// A program that does one thing alone.
pub(crate) const STEP: &str = "alone";
const UNIT: &str = "ns";
/// Counted runs of one turn.
const RUNS: usize = 20_000;
/// Runs before them, at most: so many flows are in the caches again.
const WARM: u32 = 60_000;

/// Flows that a case chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flows {
    /// No packet has a flow, and none gets one.
    None,
    /// So many, each packet of one at random.
    Known(u32),
    /// Each packet opens one.
    New,
}

impl Flows {
    pub(crate) const EACH: [Self; 4] = [Self::Known(1), Self::Known(60_000), Self::Known(1_000_000), Self::New];

    /// Order of the turns.
    const fn order(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Known(count) => count,
            Self::New => u32::MAX,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "no flow",
            Self::Known(1) => "1 flow",
            Self::Known(60_000) => "60 k flows",
            Self::Known(_) => "1 M flows",
            Self::New => "new flow per packet",
        }
    }
}

/// Name of a case; the yardstick's have neither family nor direction of their own.
pub(crate) fn case(hook: Hook, path: Path, v6: bool, flows: Flows) -> String {
    let family = if v6 { "IPv6" } else { "IPv4" };
    format!("{}, {family}, {}, {}", hook.name(), path.name(), flows.name())
}

/// Measures the row.
///
/// # Errors
/// If the kernel refuses something, or a packet does not go where it should.
pub(crate) fn measure(effort: Effort, data: &mut Data) -> Result<()> {
    data.note(packages::version("clang", "--version"));
    let object = yardstick::compile(Table::Hash)?;
    let netns = world::build()?;
    netns.run(|| {
        pin(0)?;
        let _scattered = memory::take_scattered(&object)?;
        let mut stages = Vec::new();
        let mut lanes = Vec::new();
        ours(&mut stages, &mut lanes, &Flows::EACH)?;
        services(&mut stages, &mut lanes)?;
        yardsticks(&mut stages, &mut lanes, &Flows::EACH)?;
        steps(&stages, &mut lanes)?;
        // What is compared is measured side by side.
        lanes.sort_by_key(|lane| (lane.hook as usize, lane.flows.order()));
        for round in 0..effort.rounds {
            println!("program: round {}", round + 1);
            one_round(data, &mut stages, &mut lanes, effort.share(RUNS), UNIT)?;
        }
        sizes(data, &stages)
    })
}

fn one_round(data: &mut Data, stages: &mut [Stage], lanes: &mut [Lane], runs: usize, unit: &str) -> Result<()> {
    let bare_stage = stages.len() - 1;
    let mut bare = [0.0; 2];
    for (hook, bare) in [Hook::Xdp, Hook::Tc].into_iter().zip(&mut bare) {
        let mut packet = frames::data(Case::TCP[0], Path::NotService, hook).into_bare();
        *bare = sample(&stages[bare_stage], &mut packet, Flows::None, runs)?;
        data.add(hook.name(), BARE, unit, *bare);
    }
    for lane in lanes {
        let full = sample(&stages[lane.stage], &mut lane.packet, lane.flows, runs)
            .with_context(|| format!("{} in {}", lane.subject, lane.case))?;
        data.add(&lane.case, lane.subject, unit, full - bare[lane.hook as usize]);
        if lane.flows == Flows::New {
            stages[lane.stage].forget_flows()?;
        }
    }
    Ok(())
}

/// The median duration of a program's runs, in ns.
fn sample(stage: &Stage, packet: &mut Packet, flows: Flows, runs: usize) -> Result<f64> {
    let runs = u32::try_from(runs)?;
    let program = stage.program(packet.program)?;
    let context = kernel::context(&packet.input());
    let mut out = vec![0; 4096];
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let warm = match flows {
        Flows::None | Flows::Known(1) => 1000,
        Flows::Known(count) => count.min(WARM),
        Flows::New => 0,
    };
    let mut times = Vec::with_capacity(runs as usize);
    for turn in 0..warm + runs {
        // xorshift: no order that a prefetcher could know.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let client = match flows {
            Flows::None | Flows::Known(1) => 0,
            Flows::Known(count) => (random >> 16) as u32 % count,
            Flows::New => turn,
        };
        let time = time(program, packet.template.of(client), &context, &mut out)?;
        if turn >= warm {
            times.push(time);
        }
    }
    Ok(middle(&mut times))
}

fn time(program: &Program, frame: &[u8], context: &[u8], out: &mut [u8]) -> Result<u32> {
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(out),
        ctx_in: Some(context),
        ..TestRunOptions::default()
    };
    let result = match program {
        Program::Xdp(program) => program.test_run(options)?,
        Program::SchedClassifier(program) => program.test_run(options)?,
        other => anyhow::bail!("{:?} is not run", other.prog_type()),
    };
    Ok(result.duration.as_nanos() as u32)
}

/// The median, between whole nanoseconds: by how many runs lie on either side of the middle one's.
fn middle(times: &mut [u32]) -> f64 {
    times.sort_unstable();
    let median = times[times.len() / 2];
    let below = times.partition_point(|time| *time < median);
    let up_to = times.partition_point(|time| *time <= median);
    let share = (times.len() as f64 / 2.0 - below as f64) / (up_to - below) as f64;
    f64::from(median) - 0.5 + share
}

/// What the kernel says about each program: verified instructions, bytes of machine code.
fn sizes(data: &mut Data, stages: &[Stage]) -> Result<()> {
    let (Some(Stage::Ours(kernel)), Some(Stage::Yardstick(ebpf))) = (stages.first(), stages.last()) else {
        return Ok(());
    };
    for (subject, ebpf) in [(OURS, &kernel.ebpf), (Table::Hash.name(), &**ebpf)] {
        for (name, program) in ebpf.programs() {
            let info = match program {
                Program::Xdp(program) => program.info()?,
                Program::SchedClassifier(program) => program.info()?,
                _ => continue,
            };
            let verified = info.verified_instruction_count().unwrap_or(0);
            data.add(
                &format!("{name}: verified instructions"),
                subject,
                "",
                f64::from(verified),
            );
            data.add(
                &format!("{name}: machine code"),
                subject,
                "B",
                f64::from(info.size_jitted()),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_lies_between_nanoseconds() {
        assert!((middle(&mut [5, 5, 5, 5]) - 5.0).abs() < 1e-9);
        // A quarter below, three quarters at 5: the middle is a third of the way through them.
        let third = 4.5 + 1.0 / 3.0;
        assert!((middle(&mut [4, 5, 5, 5]) - third).abs() < 1e-9);
    }
}
