//! Every fixture that the kernel can be given: equal to the pure run in verdict, frame, tables and counters.

use anyhow::Context as _;
use lb_common::testing::fixture::Fixture;
use lb_common::testing::fixtures;
use lb_common::testing::tables::{FLOWS, MemoryTables};
use lb_common::verdict::Reason;
use lb_userspace::datapath::clock;

use lb_tests::evidence;
use lb_tests::kernel::{Kernel, takes};
use lb_tests::world;

use crate::{agree::agree, with_kernel};
use lb_tests::netns::Netns;

#[test]
fn every_fixture_agrees() {
    with_kernel(FLOWS as u32, |kernel, netns| {
        let (mut run, mut failed) = (0_u64, Vec::new());
        let all = fixtures();
        for fixture in &all {
            // The kernel has no way in for some: those run on the pure pipeline alone.
            if fixture.world.tables.no_overflow || !fixture.steps.iter().all(|step| takes(&step.input)) {
                continue;
            }
            run += 1;
            if let Err(error) = one(kernel, netns, fixture) {
                failed.push(format!("{} ({}): {error:#}", fixture.name, fixture.why));
            }
        }
        assert!(
            failed.is_empty(),
            "{} of {run} failed:\n{}",
            failed.len(),
            failed.join("\n")
        );
        assert!(
            run * 10 > all.len() as u64 * 9,
            "only {run} of {} can be given to the kernel",
            all.len()
        );
        let draining = all.iter().filter(|fixture| fixture.name.starts_with("drain_")).count();
        evidence::record("drain", "fixtures in which kernel and pipeline agree", draining as u64);
        evidence::record("hostile-input", "fixtures in which kernel and pipeline agree", run);
    });
}

fn one(kernel: &mut Kernel, netns: &Netns, fixture: &Fixture) -> anyhow::Result<()> {
    let mut tables = fixture.world.clone().at(clock::now()).tables;
    let undo = world::adapt(netns, &tables)?;
    kernel.fill(&tables)?;
    let mut result = steps(kernel, &mut tables, fixture);
    // Once more where routes and ways are kept.
    if matches!(result, Ok(tunnelled) if tunnelled > 0) {
        tables = fixture.world.clone().at(clock::now()).tables;
        kernel.refill(&tables)?;
        result = steps(kernel, &mut tables, fixture).context("on kept ways");
    }
    if !undo.is_empty() {
        netns.ip(&undo)?;
    }
    result.map(drop)
}

/// Number of packets that went into the tunnel.
fn steps(kernel: &mut Kernel, tables: &mut MemoryTables, fixture: &Fixture) -> anyhow::Result<usize> {
    let mut tunnelled = 0;
    for (index, step) in fixture.steps.iter().enumerate() {
        let agreed = agree(kernel, tables, &step.input, true);
        let output = agreed.with_context(|| format!("step {}", index + 1))?;
        tunnelled += usize::from(output.verdict.reason == Reason::ForwardTunnel);
    }
    Ok(tunnelled)
}
