//! Damaged frames and tables in disorder: whatever comes in, and whatever the tables hold, the object does what the pure
//! pipeline does.

use lb_common::testing::disorder::disorder;
use lb_common::testing::fixture::{Entry, Fixture, Input};
use lb_common::testing::fixtures;
use lb_common::testing::mutate::{Random, mutate};
use lb_common::testing::tables::FLOWS;
use lb_tests::kernel::{Kernel, State, takes};
use lb_tests::netns::Netns;
use lb_tests::{evidence, world};
use lb_userspace::datapath::clock;

use crate::agree::{agree, compare};
use crate::with_kernel;

/// Frames that run, unless this variable says another number.
const CASES: &str = "LB_FUZZ_CASES";
/// Frames that run in one world before the next is taken.
const BATCH: usize = 100;
/// Frames may grow to this.
const LIMIT: usize = 3000;
const SEED: u64 = 0x6c62_5f66_757a_7a01;

#[test]
fn damaged_frames_agree() {
    let cases = std::env::var(CASES).map_or(20_000, |text| text.parse::<u64>().expect("LB_FUZZ_CASES is a number"));
    // Each lane has an object, a namespace and a seed of its own.
    let lanes = std::thread::available_parallelism().map_or(1, |lanes| lanes.get() as u64);
    let mut run = Run::default();
    std::thread::scope(|scope| {
        let lane = |lane| scope.spawn(move || agreed(SEED.wrapping_add(lane), cases.div_ceil(lanes)));
        for lane in (0..lanes).map(lane).collect::<Vec<_>>() {
            let part = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            run.done += part.done;
            run.disordered += part.disordered;
        }
    });
    if run.done > 0 {
        evidence::record(
            "hostile-input",
            "damaged frames on which kernel and pipeline agree",
            run.done,
        );
        evidence::record("hostile-input", "of these, over tables in disorder", run.disordered);
    }
}

/// Frames that ran.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    done: u64,
    /// Over tables in disorder.
    disordered: u64,
}

/// Runs `cases` frames and compares; none where there is no kernel for it.
fn agreed(seed: u64, cases: u64) -> Run {
    let mut run = Run::default();
    with_kernel(FLOWS as u32, |kernel, netns| {
        let mut random = Random::new(seed);
        let all: Vec<_> = fixtures().into_iter().filter(|f| !f.world.tables.no_overflow).collect();
        while run.done < cases {
            batch(
                kernel,
                netns,
                &all[random.below(all.len())],
                &mut random,
                seed,
                &mut run,
            );
        }
    });
    run
}

/// Runs frames in the world of one fixture, as it is or its tables in disorder.
fn batch(kernel: &mut Kernel, netns: &Netns, fixture: &Fixture, random: &mut Random, seed: u64, run: &mut Run) {
    let now = clock::now();
    let mut tables = fixture.world.clone().at(now).tables;
    let whole = random.below(2) == 0;
    if !whole {
        disorder(&mut tables, random, now);
    }
    let undo = world::adapt(netns, &tables).expect("routes");
    kernel.fill(&tables).expect("tables");
    for _ in 0..BATCH {
        let step = &fixture.steps[random.below(fixture.steps.len())];
        let entry = match random.below(8) {
            0 => Entry::ALL[random.below(Entry::ALL.len())],
            _ => step.input.entry,
        };
        let input = Input {
            entry,
            ifindex: step.input.ifindex,
            frame: mutate(&step.input.frame, random, LIMIT),
            segment: 0,
            namespace: 0,
            side_tag: false,
        };
        if !takes(&input) {
            continue;
        }
        run.done += 1;
        run.disordered += u64::from(!whole);
        if let Err(error) = agree(kernel, &mut tables, &input, false) {
            panic!(
                "case {} of seed {seed:#x}, from {}: {error:#}\n{tables:?}",
                run.done, fixture.name
            );
        }
    }
    let difference = compare(State::of(&tables), &kernel.state().expect("tables"), false);
    assert!(
        difference.is_empty(),
        "after a batch from {}: {difference}",
        fixture.name
    );
    if !undo.is_empty() {
        netns.ip(&undo).expect("routes");
    }
}
