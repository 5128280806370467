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

fn empty(limit: usize) -> Reports {
    Reports::new(RETAIN, limit, &Remembered::default())
}

fn names(reports: &Reports) -> Vec<String> {
    let map = reports.subscribe().borrow().clone();
    map.into_values().map(|reported| reported.report.name).collect()
}

#[test]
fn a_report_outlives_its_connection_for_a_while() {
    let (reports, start) = (empty(10), Instant::now());
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
    let (reports, start) = (empty(10), Instant::now());
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
    let (reports, start) = (empty(3), Instant::now());
    for connection in 1..101 {
        let node = format!("{connection:03}");
        reports.put(connection, report(&node, &node));
        reports.end(connection, start + Duration::from_millis(connection));
    }
    assert_eq!(names(&reports), ["098", "099", "100"]);
}

#[test]
fn who_is_away_is_told_from_who_is_connected() {
    let (reports, start) = (empty(10), Instant::now());
    let live = |node: &str| reports.subscribe().borrow()[node].live;
    reports.put(1, report("a", "a1"));
    assert!(live("a"));
    reports.end(1, start);
    assert!(!live("a"));
    reports.put(2, report("a", "a1"));
    assert!(live("a"));
}

#[test]
fn a_nodes_own_report_comes_from_nobody_else_and_counts_for_none() {
    let (reports, start) = (empty(10), Instant::now());
    reports.put_own(report("m", "own"));
    reports.put(7, report("m", "impostor"));
    reports.end(7, start);
    reports.expire(start + 2 * RETAIN);
    assert_eq!(names(&reports), ["own"]);
    assert_eq!(reports.len(), 0);
}

#[test]
fn what_is_remembered_is_believed_until_its_node_says_more() {
    let (before, start) = (empty(10), Instant::now());
    before.put_own(report("m", "own"));
    before.put(1, report("a", "a1"));
    before.put(2, report("b", "b1"));
    before.end(2, start);
    let after = Reports::new(RETAIN, 10, &before.remembered(SystemTime::now(), start));
    assert_eq!(names(&after), ["a1", "b1", "own"]);
    assert!(after.subscribe().borrow().values().all(|reported| !reported.live));
    after.put(1, report("a", "a2"));
    assert_eq!(names(&after), ["a2", "b1", "own"]);
    after.expire(Instant::now() + RETAIN);
    assert_eq!(names(&after), ["a2"]);
    let few = Reports::new(RETAIN, 2, &before.remembered(SystemTime::now(), start));
    assert_eq!(names(&few), ["a1", "b1"]);
}
