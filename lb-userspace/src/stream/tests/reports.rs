//! How long reports are believed.

use super::*;

const RETAIN: Duration = Duration::from_secs(60);

fn report(node: &str, name: &str) -> Report {
    Report {
        node: node.into(),
        name: name.into(),
        ..Report::default()
    }
}

fn names(reports: &Reports) -> Vec<String> {
    let map = reports.subscribe().borrow().clone();
    map.into_values().map(|report| report.name).collect()
}

#[test]
fn a_report_outlives_its_connection_for_a_while() {
    let (reports, start) = (Reports::new(RETAIN, 10), Instant::now());
    reports.put(1, report("a", "a1"));
    reports.put(2, report("b", "b1"));
    reports.expire(start + 10 * RETAIN);
    assert_eq!(names(&reports), ["a1", "b1"], "connected nodes never expire");
    reports.end(1, start);
    reports.expire(start + RETAIN - Duration::from_millis(1));
    assert_eq!(names(&reports), ["a1", "b1"]);
    reports.expire(start + RETAIN);
    assert_eq!(names(&reports), ["b1"]);
}

#[test]
fn a_reconnect_changes_nothing_and_the_old_connection_says_nothing_more() {
    let (reports, start) = (Reports::new(RETAIN, 10), Instant::now());
    reports.put(1, report("a", "old"));
    let mut watched = reports.subscribe();
    watched.mark_unchanged();
    reports.put(2, report("a", "old"));
    assert!(!watched.has_changed().unwrap(), "the same report again");
    reports.put(1, report("a", "late"));
    reports.end(1, start);
    reports.expire(start + 2 * RETAIN);
    assert_eq!(names(&reports), ["old"]);
    reports.put(2, report("a", "new"));
    assert!(watched.has_changed().unwrap());
    assert_eq!(names(&reports), ["new"]);
}

#[test]
fn they_are_bounded() {
    let (reports, start) = (Reports::new(RETAIN, 3), Instant::now());
    for connection in 0..100 {
        let node = format!("{connection:03}");
        reports.put(connection, report(&node, &node));
        reports.end(connection, start + Duration::from_millis(connection));
    }
    assert_eq!(names(&reports), ["097", "098", "099"]);
}
