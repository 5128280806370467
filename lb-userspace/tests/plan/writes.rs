//! The order of writes, and writes that fail, one by one.

use lb_userspace::plan::{Actual, apply, diff};

use crate::checked::{Checked, lookup};
use crate::holds::assert_holds;
use crate::snapshots::{compile, two_services, v4};

#[test]
fn a_service_that_cannot_be_changed_keeps_its_backend_and_stops_no_other() {
    let mut tables = Checked::new();
    assert!(apply(&diff(&compile(&two_services([1, 2])), &Actual::default()), &mut tables).is_complete());
    let desired = compile(&two_services([3, 4]));
    tables.expect(&desired);
    let plan = diff(&desired, &tables.actual());
    // The first new slot has no room.
    let mut failed = false;
    tables.fails = Box::new(move |map| map == "slots" && !std::mem::replace(&mut failed, true));
    let report = apply(&plan, &mut tables);
    assert_eq!(report.failed.len(), 1);
    assert!(report.to_string().contains("first failure: + slots "), "{report}");
    // Its flip, its old slot, its old backend.
    assert_eq!(report.skipped, 3);
    let answer = |vip: usize| {
        let actual = tables.actual();
        let key = desired
            .frontends
            .keys()
            .find(|key| key.address == v4(0, vip).into())
            .unwrap();
        lookup(&actual, key).unwrap()[0].address.to_string()
    };
    let mut answers = [answer(200), answer(201)];
    answers.sort();
    assert!(
        [["10.0.0.1", "10.0.0.4"], ["10.0.0.2", "10.0.0.3"]]
            .iter()
            .any(|a| answers == *a),
        "{answers:?}"
    );
    assert!(apply(&diff(&desired, &tables.actual()), &mut tables).is_complete());
    assert_holds(&tables.actual(), &desired);
}

#[test]
fn what_programs_may_still_read_goes_after_they_have_settled() {
    let mut tables = Checked::new();
    apply(&diff(&compile(&two_services([1, 2])), &Actual::default()), &mut tables);
    assert!(
        !tables.log.contains(&"settle"),
        "nothing goes, so there is nothing to wait for"
    );
    tables.log.clear();
    apply(&diff(&compile(&two_services([1, 3])), &tables.actual()), &mut tables);
    let expected = [
        "backends",
        "local_backends",
        "slots",
        "services",
        "settle",
        "slots",
        "local_backends",
        "backends",
    ];
    assert_eq!(tables.log, expected);
}
