//! Every fixture on the pure pipeline. The same ones run through the real object in the packet tests.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::NETWORK_NODE;
use lb_common::route::FRESH;
use lb_common::testing::fixture::{Entry, Step, run};
use lb_common::testing::fixtures;
use lb_common::testing::world::{CLIENT_IF, Case, NETWORK, NODE_IF, NOW, Place, SECOND_IF, World};
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

/// A way that is kept leads where one leads that is worked out anew.
#[test]
fn every_fixture_holds_on_ways_that_are_kept() {
    let mut kept = 0;
    for fixture in fixtures() {
        let first = fixture.world.clone();
        first.tables.ways.replace(Some(BTreeMap::new()));
        fixture.run_in(&first);
        let second = fixture.world.clone();
        kept += usize::from(first.tables.ways.borrow().as_ref().is_some_and(|ways| !ways.is_empty()));
        second.tables.ways.replace(first.tables.ways.take());
        fixture.run_in(&second);
    }
    assert!(kept >= 20, "only {kept} fixtures take a way that may be kept");
}

/// For fifty milliseconds a way is followed as it was; no other packet takes it.
#[test]
fn a_kept_way_is_followed_until_it_is_old() {
    for case in Case::ALL {
        let mut world = World::new().serve(case, &[Place::Node2]);
        let step = Step::new(Entry::XdpNode, NODE_IF, case.opening().build());
        world.tables.ways.replace(Some(BTreeMap::new()));
        let sent = |world: &World, step: &Step, now: u32| {
            let output = run(&world.tables, &step.input, now);
            assert_eq!(output.verdict.reason, Reason::ForwardTunnel);
            output.frame[..6].to_vec()
        };
        let before = sent(&world, &step, NOW);
        for path in &mut world.tables.paths {
            path.route.destination = [7; 6];
        }
        assert_eq!(sent(&world, &step, NOW + FRESH), before);
        // Another interface, and another of the node's addresses, have ways of their own.
        let elsewhere = Step::new(Entry::TcNode, SECOND_IF, case.opening().build());
        assert_eq!(sent(&world, &elsewhere, NOW), [7; 6]);
        for path in &mut world.tables.paths {
            (path.route.destination, path.route.asked) = ([8; 6], NOW + 1);
        }
        assert_eq!(sent(&world, &elsewhere, NOW + FRESH + 1), [8; 6], "too old");
    }
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
