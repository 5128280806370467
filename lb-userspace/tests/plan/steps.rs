//! Random snapshots, one after the other, also interrupted, and onto damaged tables.

use lb_common::abi;
use lb_userspace::plan::store::WriteTables;
use lb_userspace::plan::{Actual, apply, diff};
use proptest::prelude::*;

use crate::checked::Checked;
use crate::holds::{assert_holds, assert_same, numbers};
use crate::snapshots::{compile, snapshot};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_step_is_valid_and_nothing_is_left(snapshots in prop::collection::vec(snapshot(), 1..5)) {
        let mut tables = Checked::new();
        for snapshot in &snapshots {
            let desired = compile(snapshot);
            tables.expect(&desired);
            let before = tables.actual();
            let plan = diff(&desired, &before);
            prop_assert!(plan.problems.is_empty());
            prop_assert_eq!(plan.ops.is_empty(), plan.changes.is_empty());
            prop_assert!(plan.ops.is_sorted_by_key(|op| op.phase));
            let report = apply(&plan, &mut tables);
            prop_assert!(report.is_complete());
            prop_assert_eq!(report.done, plan.ops.len());
            let after = tables.actual();
            let again = diff(&desired, &after);
            prop_assert!(again.is_empty(), "{again}\n{:?}", again.ops);
            assert_holds(&after, &desired);
            // The next plan starts from the tables alone, as a restarted agent does.
            let (before, after) = (numbers(&before), numbers(&after));
            assert_same(&before.0, &after.0);
            assert_same(&before.1, &after.1);
        }
    }

    #[test]
    fn failed_writes_leave_lookups_valid_and_are_made_up_for(
        snapshots in prop::collection::vec(snapshot(), 1..5),
        seed in any::<u64>(),
    ) {
        let mut tables = Checked::new();
        for snapshot in &snapshots {
            let desired = compile(snapshot);
            tables.expect(&desired);
            let mut random = seed | 1;
            tables.fails = Box::new(move |_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % 5 == 0
            });
            for _ in 0..3 {
                let plan = diff(&desired, &tables.actual());
                let report = apply(&plan, &mut tables);
                prop_assert_eq!(report.done + report.failed.len() + report.skipped, plan.ops.len());
                prop_assert!(report.skipped == 0 || !report.failed.is_empty());
            }
            tables.fails = Box::new(|_| false);
            prop_assert!(apply(&diff(&desired, &tables.actual()), &mut tables).is_complete());
            prop_assert!(diff(&desired, &tables.actual()).is_empty());
            assert_holds(&tables.actual(), &desired);
        }
    }

    #[test]
    fn an_interrupted_apply_is_finished_by_the_next(
        first in snapshot(), second in snapshot(), third in snapshot(), stop in 0.0..1.0_f64,
    ) {
        let mut tables = Checked::new();
        let (first, second, third) = (compile(&first), compile(&second), compile(&third));
        apply(&diff(&first, &Actual::default()), &mut tables);
        tables.expect(&second);
        let mut plan = diff(&second, &tables.actual());
        plan.ops.truncate((plan.ops.len() as f64 * stop) as usize);
        apply(&plan, &mut tables);
        tables.expect(&third);
        apply(&diff(&third, &tables.actual()), &mut tables);
        prop_assert!(diff(&third, &tables.actual()).is_empty());
        assert_holds(&tables.actual(), &third);
    }

    #[test]
    fn the_order_of_the_snapshot_does_not_matter(snapshot in snapshot()) {
        let mut reversed = snapshot.clone();
        reversed.nodes.reverse();
        reversed.networks.reverse();
        reversed.services = reversed.services.iter().rev().cloned().collect();
        prop_assert_eq!(compile(&snapshot), compile(&reversed));
    }

    /// Whatever the tables hold, even rows that no plan has written, one plan mends them.
    #[test]
    fn damaged_tables_are_mended(snapshot in snapshot(), other in snapshot(), damage in any::<u64>()) {
        let (desired, other) = (compile(&snapshot), compile(&other));
        let mut tables = Checked::new();
        apply(&diff(&other, &Actual::default()), &mut tables);
        let damaged = |i: usize| damage.rotate_right(i as u32) & 3 == 3;
        let actual = tables.actual();
        for (i, key) in actual.slots.keys().enumerate().filter(|(i, _)| damaged(*i)) {
            if i % 2 == 0 {
                tables.delete::<abi::Slots>(key).unwrap();
            } else {
                tables.set::<abi::Slots>(key, &(i as u32)).unwrap();
            }
        }
        for (i, (id, service)) in actual.services.iter().enumerate().filter(|(i, _)| damaged(i + 7)) {
            let twin = id + 100 * (i as u32 % 2);
            tables.set::<abi::Services>(&twin, &abi::Service { generation: 9, ..*service }).unwrap();
        }
        for (i, (id, backend)) in actual.backends.iter().enumerate().filter(|(i, _)| damaged(i + 13)) {
            let twin = id + 100 * (i as u32 % 2);
            tables.set::<abi::Backends>(&twin, &abi::Backend { generation: 5, ..*backend }).unwrap();
        }
        for (i, key) in actual.frontends.keys().enumerate().filter(|(i, _)| damaged(i + 29)) {
            tables.set::<abi::Frontends>(key, &abi::Frontend { service: i as u32, flags: 0 }).unwrap();
        }
        prop_assert!(apply(&diff(&desired, &tables.actual()), &mut tables).is_complete());
        let again = diff(&desired, &tables.actual());
        prop_assert!(again.is_empty(), "{again}\n{:?}", again.ops);
        assert_holds(&tables.actual(), &desired);
    }
}
