//! Every target over its seeds, over what was once found, and over damaged copies of both.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lb_common::testing::mutate::Random;
use lb_fuzz::damage::damage;
use lb_fuzz::{TARGETS, finds};

/// Damaged inputs that run, unless this variable says another number.
const CASES: &str = "LB_FUZZ_CASES";
const SEED: u64 = 0x6c62_5f66_757a_7a02;

fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "no seed");
    for bytes in &inputs {
        (target.run)(bytes);
    }
    for (path, bytes) in finds(name) {
        println!("{}", path.display());
        (target.run)(&bytes);
        inputs.push(bytes);
    }
    let cases = std::env::var(CASES).map_or(target.cases, |text| text.parse().expect("LB_FUZZ_CASES is a number"));
    let mut random = Random::new(SEED);
    for case in 0..cases {
        let (one, other) = (random.below(inputs.len()), random.below(inputs.len()));
        let bytes = damage(&inputs[one], &inputs[other], &mut random);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
            let path = std::env::temp_dir().join(format!("lb-fuzz-{name}-{case}"));
            std::fs::write(&path, &bytes).expect("a place for the input");
            panic!("case {case} breaks a promise; the input is {}", path.display());
        }
    }
}

#[test]
fn pipeline() {
    holds("pipeline");
}

#[test]
fn dns() {
    holds("dns");
}

#[test]
fn cluster() {
    holds("cluster");
}

#[test]
fn docker() {
    holds("docker");
}

#[test]
fn stream() {
    holds("stream");
}

#[test]
fn disk() {
    holds("disk");
}
