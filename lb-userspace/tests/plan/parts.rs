//! A few changed services, planned from their own rows alone.

use lb_userspace::model::desired::Desired;
use lb_userspace::model::snapshot::{BackendState, Service, Snapshot};
use lb_userspace::plan::mirror::{Mirror, Part};
use lb_userspace::plan::{Action, Actual, Phase, Plan, Rest, Reusable, Row, apply, begin, diff, remove};
use proptest::prelude::*;

use crate::checked::Checked;
use crate::holds::assert_holds;
use crate::snapshots::{compile, snapshot, two_services, v4, v6};

/// What of `now` differs from `before`, each compiled from its services alone.
fn parts(before: &Snapshot, now: &Snapshot) -> [Desired; 2] {
    let changes = now.services.changes(&before.services);
    let part = |services: &[std::sync::Arc<Service>]| {
        compile(&Snapshot {
            services: services.iter().cloned().collect(),
            ..now.clone()
        })
    };
    [part(&changes.gone), part(&changes.come)]
}

/// Puts `now` in force from what differs alone, but for what has to be removed in the end. False: that was not possible, and
/// nothing was done.
fn follow(mirror: &mut Mirror, rest: &mut Rest, tables: &mut Checked, before: &Snapshot, now: &Snapshot) -> bool {
    let [had, wanted] = parts(before, now);
    let part = Part {
        had: &had,
        wanted: &wanted,
        rest,
    };
    let Some(plan) = mirror.plan(part, &Reusable::default(), true) else {
        return false;
    };
    assert_leaves_alone(&plan, &tables.actual(), mirror);
    tables.expect(&compile(now));
    let report = begin(&plan, tables);
    assert!(report.is_complete(), "{report}");
    plan.ops[..report.done].iter().for_each(|op| mirror.note(op));
    assert_eq!(mirror.rows(), &tables.actual());
    rest.follow(plan, had);
    true
}

/// What programs may still be reading keeps its meaning: no row of a generation of slots is written over, and no service's
/// number given away, while the tables hold such rows.
fn assert_leaves_alone(plan: &Plan, actual: &Actual, mirror: &Mirror) {
    for op in plan.ops.iter().filter(|op| op.phase < Phase::Break) {
        match op.row {
            Row::Slot(key, _) => assert!(!actual.slots.contains_key(&key), "{op}"),
            Row::Service(id, service) if op.action != Action::Remove => match mirror.rows().services.get(&id) {
                Some(there) => assert_eq!(there.identity, service.identity, "{op}"),
                None => assert!(actual.slots.keys().all(|key| key.service != id), "{op}"),
            },
            _ => {}
        }
    }
}

/// The programs that were running when they were last waited for have ended.
fn settle(mirror: &mut Mirror, rest: &mut Rest, tables: &mut Checked) {
    let ops = rest.settled();
    remove(&ops, tables).unwrap();
    ops.iter().for_each(|op| mirror.note(op));
    assert_eq!(mirror.rows(), &tables.actual());
    rest.settle();
}

#[test]
fn few_changed_services_are_planned_from_their_own_rows() {
    let mut before = two_services([1, 2]);
    let mut tables = Checked::new();
    assert!(apply(&diff(&compile(&before), &Actual::default()), &mut tables).is_complete());
    let (mut mirror, mut rest) = (Mirror::new(tables.actual()), Rest::default());
    type Change = fn(&mut Snapshot);
    let changes: [(&str, Change, usize); 8] = [
        ("nothing", |_| {}, 0),
        (
            "another backend",
            |s| s.services[1].backends[0].addresses = vec![v4(0, 3)],
            7,
        ),
        (
            "draining",
            |s| s.services[1].backends[0].state = BackendState::Draining,
            1,
        ),
        (
            "the backend is back",
            |s| s.services[1].backends[0].addresses = vec![v4(0, 2)],
            7,
        ),
        ("published", |s| s.services[0].ports[0].published = Some(30_000), 1),
        (
            "a timeout",
            |s| s.services[0].tcp_timeout = Some(std::time::Duration::from_secs(9)),
            1,
        ),
        ("gone", |s| s.services.retain(|service| service.name != "s0"), 7),
        (
            "come again",
            |s| {
                let mut service = two_services([1, 2]).services[0].clone();
                service.backends[0].addresses.push(v6(0, 1));
                s.services.push(service);
            },
            6,
        ),
    ];
    for (what, change, writes) in changes {
        let mut now = before.clone();
        change(&mut now);
        let [had, wanted] = parts(&before, &now);
        let part = Part {
            had: &had,
            wanted: &wanted,
            rest: &rest,
        };
        let plan = mirror.plan(part, &Reusable::default(), true).expect(what);
        assert_eq!(plan.ops.len(), writes, "{what}: {plan}");
        assert!(follow(&mut mirror, &mut rest, &mut tables, &before, &now), "{what}");
        rest.settle();
        settle(&mut mirror, &mut rest, &mut tables);
        assert!(rest.is_empty());
        assert!(diff(&compile(&now), &tables.actual()).is_empty(), "{what}");
        assert_holds(&tables.actual(), &compile(&now));
        before = now;
    }
    // What is another's, or two have, is compared as a whole.
    for change in [
        (|s| s.services[0].vips = vec![v4(0, 200)]) as Change,
        |s| s.services[0].backends[0].addresses = vec![v4(0, 1)],
        |s| s.services[1].backends[0].node = "nowhere".into(),
    ] {
        let mut now = before.clone();
        change(&mut now);
        assert!(!follow(&mut mirror, &mut rest, &mut tables, &before, &now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Services change a few at a time, before or after what the last changes have left is removed; whatever they share, what
    /// is planned from a part is what the whole needs.
    #[test]
    fn parts_lead_where_the_whole_leads(
        first in snapshot(),
        steps in prop::collection::vec((snapshot(), prop::collection::vec(any::<bool>(), 6), 0..3), 1..8),
    ) {
        let mut tables = Checked::new();
        let mut before = first;
        before.services.retain(|s| s.ports.iter().all(|p| p.published.is_none()));
        let whole = |tables: &mut Checked, snapshot: &Snapshot| {
            let desired = compile(snapshot);
            tables.expect(&desired);
            assert!(apply(&diff(&desired, &tables.actual()), tables).is_complete());
            desired.separate.then(|| Mirror::new(tables.actual()))
        };
        let (mut mirror, mut rest) = (whole(&mut tables, &before), Rest::default());
        for (other, take, settled) in steps {
            let mut now = before.clone();
            for (service, _) in other.services.iter().zip(&take).filter(|(_, take)| **take) {
                now.services.retain(|there| (&there.network, &there.name) != (&service.network, &service.name));
                now.services.push(service.clone());
            }
            for name in (0..3).filter(|i| take[*i + 3] && !take[*i]).map(|i| format!("s{i}")) {
                now.services.retain(|there| there.name != name);
            }
            if let Some(mirror) = &mut mirror {
                for _ in 0..settled {
                    settle(mirror, &mut rest, &mut tables);
                }
            }
            let mut followed =
                |rest: &mut Rest| mirror.as_mut().is_some_and(|mirror| follow(mirror, rest, &mut tables, &before, &now));
            if !followed(&mut rest) {
                mirror = whole(&mut tables, &now);
                rest = Rest::default();
            }
            // The agent begins to wait when nothing is being waited for; here, at times.
            if settled == 1 {
                rest.settle();
            }
            let desired = compile(&now);
            // What is left to do is exactly what has yet to be removed.
            let left = diff(&desired, &tables.actual());
            prop_assert_eq!(left.ops.len(), rest.len(), "{}", left);
            prop_assert!(left.ops.iter().all(|op| op.phase == Phase::Break), "{}", left);
            if rest.is_empty() {
                assert_holds(&tables.actual(), &desired);
            }
            before = now;
        }
    }
}
