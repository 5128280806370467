//! Every fixture on the pure pipeline. The same ones run through the real object in the packet tests.

use std::collections::BTreeSet;

use lb_common::abi::NETWORK_NODE;
use lb_common::testing::fixture::{Entry, Step, run};
use lb_common::testing::fixtures;
use lb_common::testing::world::{CLIENT_IF, Case, NETWORK, NOW, Place, World};
use lb_common::verdict::Reason;

#[test]
fn every_fixture_holds() {
    let mut failed = Vec::new();
    let all = fixtures();
    for fixture in &all {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fixture.run())).is_err() {
            failed.push(fixture.name.clone());
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} failed: {failed:#?}",
        failed.len(),
        all.len()
    );
}

#[test]
fn names_are_unique() {
    let mut names = BTreeSet::new();
    for fixture in fixtures() {
        assert!(names.insert(fixture.name.clone()), "{} twice", fixture.name);
        assert!(!fixture.steps.is_empty(), "{} has no packet", fixture.name);
    }
}

/// A reason that no fixture brings about is untested, or cannot happen.
#[test]
fn every_reason_comes_about() {
    // The kernel refuses no change of these frames, no slot leads beyond the table of backends, and a collision twice over depends on the time: see the next test.
    let elsewhere = [Reason::DropRewrite, Reason::DropBackendGone, Reason::DropPortCollision];
    let mut seen = BTreeSet::new();
    for fixture in fixtures() {
        let world = fixture.world.clone();
        for step in &fixture.steps {
            seen.insert(run(&world.tables, &step.input, NOW).verdict.reason.code());
        }
        // Some are told of packets that came before.
        seen.extend(world.tables.counters().into_keys());
    }
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !seen.contains(&reason.code()) && !elsewhere.contains(reason))
        .collect();
    assert!(missing.is_empty(), "no fixture shows {missing:?}");
}

/// Where the port chosen in place of the client's is taken too, the packet is dropped; a tick later another port is tried.
#[test]
fn a_second_collision_is_dropped_until_the_next_tick() {
    for case in Case::ALL {
        let published = case.tuple(case.inside(), case.published(1), NETWORK_NODE);
        let tuple = case.tuple(case.inside(), case.vip(), NETWORK);
        let step = Step::new(Entry::FromWorkload, CLIENT_IF, case.vip_opening().build());
        let world = World::new().flow(case, published, Place::Here, None);

        let first = world.clone();
        assert_eq!(
            run(&first.tables, &step.input, NOW).verdict.reason,
            Reason::ForwardNetwork
        );
        let taken = (case.inside().ip(), first.tables.flows()[&tuple].source_port).into();

        let third = case.tuple(taken, case.published(1), NETWORK_NODE);
        let world = world.flow(case, third, Place::Here, None);
        assert_eq!(
            run(&world.tables, &step.input, NOW).verdict.reason,
            Reason::DropPortCollision
        );
        assert!(!world.tables.flows().contains_key(&tuple));
        assert_eq!(
            run(&world.tables, &step.input, NOW + 1).verdict.reason,
            Reason::ForwardNetwork
        );
    }
}
