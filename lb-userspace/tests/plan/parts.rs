//! A few changed services, planned from their own rows alone.

use lb_userspace::model::desired::Desired;
use lb_userspace::model::snapshot::{BackendState, Service, Snapshot};
use lb_userspace::plan::mirror::{Mirror, Part};
use lb_userspace::plan::{Actual, Reusable, apply, diff};
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

/// Puts `now` in force from what differs alone. False: that was not possible, and nothing was done.
fn follow(mirror: &mut Mirror, tables: &mut Checked, before: &Snapshot, now: &Snapshot) -> bool {
    let [had, wanted] = parts(before, now);
    let part = Part {
        had: &had,
        wanted: &wanted,
    };
    let Some(plan) = mirror.plan(part, &Reusable::default(), true) else {
        return false;
    };
    tables.expect(&compile(now));
    let report = apply(&plan, tables);
    assert!(report.is_complete(), "{report}");
    plan.ops.iter().for_each(|op| mirror.note(op));
    assert_eq!(mirror.rows(), &tables.actual());
    true
}

#[test]
fn few_changed_services_are_planned_from_their_own_rows() {
    let mut before = two_services([1, 2]);
    let mut tables = Checked::new();
    assert!(apply(&diff(&compile(&before), &Actual::default()), &mut tables).is_complete());
    let mut mirror = Mirror::new(tables.actual());
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
        };
        let plan = mirror.plan(part, &Reusable::default(), true).expect(what);
        assert_eq!(plan.ops.len(), writes, "{what}: {plan}");
        assert!(follow(&mut mirror, &mut tables, &before, &now), "{what}");
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
        assert!(!follow(&mut mirror, &mut tables, &before, &now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Services change a few at a time; whatever they share, what is planned from a part is what the whole needs.
    #[test]
    fn parts_lead_where_the_whole_leads(
        first in snapshot(),
        steps in prop::collection::vec((snapshot(), prop::collection::vec(any::<bool>(), 6)), 1..8),
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
        let mut mirror = whole(&mut tables, &before);
        for (other, take) in steps {
            let mut now = before.clone();
            for (service, _) in other.services.iter().zip(&take).filter(|(_, take)| **take) {
                now.services.retain(|there| (&there.network, &there.name) != (&service.network, &service.name));
                now.services.push(service.clone());
            }
            for name in (0..3).filter(|i| take[*i + 3] && !take[*i]).map(|i| format!("s{i}")) {
                now.services.retain(|there| there.name != name);
            }
            let followed = mirror.as_mut().is_some_and(|mirror| follow(mirror, &mut tables, &before, &now));
            if !followed {
                mirror = whole(&mut tables, &now);
            }
            let desired = compile(&now);
            prop_assert!(diff(&desired, &tables.actual()).is_empty());
            assert_holds(&tables.actual(), &desired);
            before = now;
        }
    }
}
