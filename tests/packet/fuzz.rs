//! Damaged frames and tables in disorder: whatever comes in, and whatever the tables hold, the object does what the pure
//! pipeline does.

use lb_common::testing::disorder::disorder;
use lb_common::testing::fixture::{Entry, Input};
use lb_common::testing::fixtures;
use lb_common::testing::mutate::{Random, mutate};
use lb_common::testing::tables::FLOWS;
use lb_tests::evidence;
use lb_userspace::datapath::clock;

use crate::agree::agree;
use lb_tests::kernel::takes;
use lb_tests::world;

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
    let cases = std::env::var(CASES).map_or(20_000, |text| text.parse().expect("LB_FUZZ_CASES is a number"));
    with_kernel(FLOWS as u32, |kernel, netns| {
        let mut random = Random::new(SEED);
        let all: Vec<_> = fixtures().into_iter().filter(|f| !f.world.tables.no_overflow).collect();
        let (mut done, mut disordered) = (0_u64, 0_u64);
        while done < cases {
            let fixture = &all[random.below(all.len())];
            let now = clock::now();
            let mut tables = fixture.world.clone().at(now).tables;
            let whole = random.below(2) == 0;
            if !whole {
                disorder(&mut tables, &mut random, now);
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
                    frame: mutate(&step.input.frame, &mut random, LIMIT),
                    segment: 0,
                    namespace: 0,
                    side_tag: false,
                };
                if !takes(&input) {
                    continue;
                }
                done += 1;
                disordered += u64::from(!whole);
                if let Err(error) = agree(kernel, &mut tables, &input, false) {
                    panic!(
                        "case {done} of seed {SEED:#x}, from {}: {error:#}\n{tables:?}",
                        fixture.name
                    );
                }
            }
            assert_eq!(
                lb_tests::kernel::State::of(&tables),
                kernel.state().expect("tables"),
                "tables after a batch from {}",
                fixture.name
            );
            if !undo.is_empty() {
                netns.ip(&undo).expect("routes");
            }
        }
        evidence::record(
            "hostile-input",
            "damaged frames on which kernel and pipeline agree",
            done,
        );
        evidence::record("hostile-input", "of these, over tables in disorder", disordered);
    });
}
