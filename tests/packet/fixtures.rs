//! Every fixture that the kernel can be given: equal to the pure run in verdict, frame, tables and counters.

use lb_common::testing::fixtures;
use lb_common::testing::tables::FLOWS;
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

fn one(kernel: &mut Kernel, netns: &Netns, fixture: &lb_common::testing::fixture::Fixture) -> anyhow::Result<()> {
    let mut tables = fixture.world.clone().at(clock::now()).tables;
    let undo = world::adapt(netns, &tables)?;
    kernel.fill(&tables)?;
    let mut result = Ok(());
    for (index, step) in fixture.steps.iter().enumerate() {
        let agreed = agree(kernel, &mut tables, &step.input, true);
        result = agreed
            .map(drop)
            .map_err(|error| error.context(format!("step {}", index + 1)));
        if result.is_err() {
            break;
        }
    }
    if !undo.is_empty() {
        netns.ip(&undo)?;
    }
    result
}
