//! One packet through the real object and through the pure pipeline.

use anyhow::{Context as _, Result, bail};
use lb_common::testing::fixture::{Entry, Input, Output, hex, run};
use lb_common::testing::tables::MemoryTables;
use lb_common::verdict::{Action, Verdict};
use lb_userspace::datapath::clock;

use lb_tests::kernel::{Kernel, State};
use lb_tests::stamps::{aligned, lag};

/// What the kernel is told: it does not say where a redirect leads.
fn returned(entry: Entry, verdict: &Verdict) -> u32 {
    let (pass, drop, transmit, redirect) = (2, 1, 3, 4); // XDP_*
    let (next, shot, elsewhere) = (u32::MAX, 2, 7); // TCX_NEXT, TC_ACT_SHOT, TC_ACT_REDIRECT
    match (entry, verdict.action) {
        (Entry::XdpNode, Action::Pass | Action::Continue) => pass,
        (Entry::XdpNode, Action::Drop) => drop,
        (Entry::XdpNode, Action::Transmit) => transmit,
        (Entry::XdpNode, _) => redirect,
        (_, Action::Pass | Action::Continue) => next,
        (_, Action::Drop) => shot,
        (_, _) => elsewhere,
    }
}

/// Runs one packet on both sides. `Ok` if verdict and frame are equal; then `tables` are as the pure pipeline left them.
///
/// The programs read the clock themselves: the pure pipeline runs at every tick that they can have seen, and one must agree.
/// `whole`: so must everything that the programs write, to the tick.
pub(crate) fn agree(kernel: &mut Kernel, tables: &mut MemoryTables, input: &Input, whole: bool) -> Result<Output> {
    let before = clock::now();
    let (code, frame) = kernel.run(input).context("BPF_PROG_TEST_RUN")?;
    let after = clock::now();
    // Where the clock ticked meanwhile, only the tables say which tick it was.
    let mut state = None;
    if whole || before != after {
        state = Some(kernel.state()?);
    }
    let mut first = None;
    // Seldom an older one: see `stamps`.
    let older = (1..=lag()).map(|ticks| before.wrapping_sub(ticks));
    for now in (before..=after).chain(older) {
        if first.is_some() && state.is_none() {
            state = Some(kernel.state()?);
        }
        let pure = tables.clone();
        let output = run(&pure, input, now);
        let mut difference = differ(&output, input, code, &frame);
        if let (true, Some(state)) = (difference.is_empty(), &state) {
            difference = compare(State::of(&pure), state, whole);
        }
        if difference.is_empty() {
            *tables = pure;
            return Ok(output);
        }
        first.get_or_insert(difference);
    }
    bail!(
        "{}\n    counters {:?}\n    before   {:?}\n    in {:?} {}",
        first.unwrap_or_default(),
        kernel.state()?.counters,
        State::of(tables).counters,
        input.entry,
        hex(&input.frame)
    );
}

fn differ(output: &Output, input: &Input, code: u32, frame: &[u8]) -> String {
    let expected = returned(input.entry, &output.verdict);
    if expected != code {
        return format!("pure {:?} ({expected}), kernel {code}", output.verdict);
    }
    // Of what is dropped nothing remains to compare.
    if output.verdict.action != Action::Drop && output.frame != frame {
        return format!(
            "{:?}\n  pure {}\nkernel {}",
            output.verdict,
            hex(&output.frame),
            hex(frame)
        );
    }
    String::new()
}

/// Why the tables differ; of times only if they are `exact` or more than the programs' clock may be behind.
pub(crate) fn compare(pure: State, kernel: &State, exact: bool) -> String {
    let pure = if exact { pure } else { aligned(pure, kernel, lag()) };
    if pure == *kernel {
        return String::new();
    }
    format!("tables\n  pure {pure:?}\nkernel {kernel:?}")
}
