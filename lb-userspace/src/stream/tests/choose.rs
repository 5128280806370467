//! Which view is in force, event by event.

use super::*;
use crate::model::snapshot::Node;

const SECOND: Duration = Duration::from_secs(1);

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 4790))
}

/// A snapshot that can be told from others by its one node's name.
fn content(name: &str) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        generation: 1_000,
        nodes: vec![Node {
            name: name.into(),
            id: None,
            addresses: vec![],
        }],
        ..Snapshot::default()
    })
}

struct Table {
    choice: Choice,
    now: Instant,
    heads: BTreeMap<u8, Head>,
}

impl Table {
    fn new(stored: Option<(Arc<Snapshot>, Option<u64>)>) -> Self {
        let mut choice = Choice::new(Timing::default(), stored);
        [1, 2, 3].into_iter().for_each(|number| choice.add(address(number)));
        Self {
            choice,
            now: Instant::now() + 3_600 * SECOND,
            heads: BTreeMap::new(),
        }
    }

    fn up(&mut self, number: u8) {
        let head = Head {
            epoch: u64::from(number) * 100 + self.heads.len() as u64,
            generation: 0,
            index: None,
            age_ms: 0,
        };
        self.heads.insert(number, head);
        let event = Event::Up(format!("m{number}"));
        self.choice.note(address(number), event, self.now);
    }

    fn down(&mut self, number: u8) -> bool {
        let event = Event::Down("connection reset".into());
        self.choice.note(address(number), event, self.now);
        self.choice.decide(self.now)
    }

    /// The manager has something new, read `age` ago.
    fn snapshot(&mut self, number: u8, name: &str, index: Option<u64>, age: Duration) -> bool {
        let head = self.heads.get_mut(&number).unwrap();
        head.generation += 1;
        (head.index, head.age_ms) = (index, age.as_millis() as u64);
        let head = *head;
        self.choice.note(address(number), Event::Head(head), self.now);
        let event = Event::Snapshot(head, content(name));
        self.choice.note(address(number), event, self.now);
        self.choice.decide(self.now)
    }

    /// The manager has nothing new, and read its source `age` ago.
    fn head(&mut self, number: u8, age: Duration) -> bool {
        let head = self.heads.get_mut(&number).unwrap();
        head.age_ms = age.as_millis() as u64;
        let event = Event::Head(*head);
        self.choice.note(address(number), event, self.now);
        self.choice.decide(self.now)
    }

    fn wait(&mut self, time: Duration) -> bool {
        self.now += time;
        self.choice.decide(self.now)
    }

    /// Name, own generation and source of what is in force.
    fn now(&self) -> (String, u64, String) {
        let in_force = self.choice.in_force().unwrap();
        let source = match self.choice.source() {
            Source::Manager { node, .. } => node,
            other => format!("{other:?}"),
        };
        (
            in_force.snapshot.nodes[0].name.clone(),
            in_force.snapshot.generation,
            source,
        )
    }

    fn is(&self, name: &str, generation: u64, source: &str) {
        assert_eq!(self.now(), (name.into(), generation, source.into()));
    }
}

#[test]
fn the_first_view_is_taken_and_its_manager_kept() {
    let mut table = Table::new(None);
    assert!(table.choice.in_force().is_none());
    table.up(1);
    table.up(2);
    assert!(table.snapshot(2, "a", None, SECOND));
    table.is("a", 1, "m2");
    assert!(!table.snapshot(1, "b", None, Duration::ZERO), "a newer view elsewhere");
    table.is("a", 1, "m2");
    assert!(table.snapshot(2, "c", None, Duration::ZERO));
    table.is("c", 2, "m2");
    assert!(!table.snapshot(2, "c", None, Duration::ZERO), "the same again");
    table.is("c", 2, "m2");
}

#[test]
fn a_lost_manager_is_replaced_at_once_by_one_with_the_same_or_a_newer_view() {
    let mut table = Table::new(None);
    (1..=3).for_each(|number| table.up(number));
    table.snapshot(1, "a", None, SECOND);
    table.snapshot(2, "a", None, 9 * SECOND);
    assert!(!table.down(1), "the content stays");
    table.is("a", 1, "m2");
    table.snapshot(3, "b", None, Duration::ZERO);
    table.is("a", 1, "m2");
    assert!(table.down(2));
    table.is("b", 2, "m3");
}

#[test]
fn a_view_that_was_read_earlier_waits_until_it_was_read_again() {
    let mut table = Table::new(None);
    table.up(1);
    table.up(2);
    table.snapshot(2, "old", None, 2 * SECOND);
    table.down(2);
    table.up(2);
    table.snapshot(1, "new", None, SECOND);
    table.is("new", 2, "m1");
    table.snapshot(2, "old", None, 2 * SECOND);
    assert!(!table.down(1));
    table.is("new", 2, "m1");
    assert!(!table.wait(SECOND));
    // Its source was read after the last word of the lost manager: this is how things are now.
    assert!(table.head(2, Duration::ZERO));
    table.is("old", 3, "m2");
}

#[test]
fn a_lower_index_waits_for_the_others_and_then_counts() {
    let mut table = Table::new(None);
    (1..=3).for_each(|number| table.up(number));
    table.snapshot(1, "new", Some(20), SECOND);
    table.snapshot(2, "old", Some(19), Duration::ZERO);
    assert!(!table.down(1));
    assert!(!table.wait(4 * SECOND));
    table.is("new", 1, "m1");
    assert!(
        table.snapshot(3, "newer", Some(21), SECOND),
        "an index decides before the time"
    );
    table.is("newer", 2, "m3");

    assert!(!table.down(3));
    assert!(!table.head(2, Duration::ZERO));
    assert!(!table.wait(4 * SECOND));
    assert!(!table.head(2, Duration::ZERO));
    assert!(table.wait(SECOND), "nothing better has come");
    table.is("old", 3, "m2");
}

#[test]
fn waiting_begins_anew_after_something_better() {
    let mut table = Table::new(None);
    table.up(1);
    table.up(2);
    table.snapshot(1, "new", Some(20), SECOND);
    table.snapshot(2, "old", Some(19), Duration::ZERO);
    table.down(1);
    table.wait(4 * SECOND);
    table.up(1);
    table.snapshot(1, "new", Some(20), Duration::ZERO);
    table.head(2, Duration::ZERO);
    table.down(1);
    assert!(!table.wait(4 * SECOND));
    table.is("new", 1, "m1");
}

#[test]
fn a_manager_that_does_not_read_its_source_is_left_for_one_that_does() {
    let mut table = Table::new(None);
    table.up(1);
    table.up(2);
    table.snapshot(1, "a", None, Duration::ZERO);
    table.wait(9 * SECOND);
    table.head(1, 9 * SECOND);
    table.snapshot(2, "b", None, Duration::ZERO);
    table.is("a", 1, "m1");
    table.wait(2 * SECOND);
    assert_eq!(table.now().2, "m2", "the time passes without any event, too");
    table.is("b", 2, "m2");
}

#[test]
fn where_no_source_is_alive_the_last_state_stays() {
    let mut table = Table::new(None);
    table.up(1);
    table.up(2);
    table.snapshot(1, "a", None, Duration::ZERO);
    table.snapshot(2, "b", None, SECOND);
    assert!(!table.wait(60 * SECOND));
    table.is("a", 1, "m1");
    assert!(!table.down(1));
    assert!(!table.wait(60 * SECOND));
    table.is("a", 1, "m1");
    assert!(!table.down(2));
    table.is("a", 1, "m1");
    assert_eq!(table.choice.age_ms(table.now), Some(120_000));
}

#[test]
fn what_a_restarted_manager_says_is_compared_like_any_other_view() {
    let mut table = Table::new(None);
    table.up(1);
    table.snapshot(1, "a", Some(20), Duration::ZERO);
    table.down(1);
    table.up(1);
    assert!(!table.snapshot(1, "older", Some(10), Duration::ZERO));
    table.is("a", 1, "m1");
    assert!(table.snapshot(1, "b", Some(20), Duration::ZERO));
    table.is("b", 2, "m1");
    assert!(
        table.snapshot(1, "c", Some(3), Duration::ZERO),
        "within one process its own order counts"
    );
    table.is("c", 3, "m1");
}

#[test]
fn the_disk_serves_until_a_manager_speaks() {
    let stored = Arc::new(Snapshot {
        generation: 41,
        ..(*content("kept")).clone()
    });
    let mut table = Table::new(Some((stored.clone(), None)));
    assert!(!table.wait(60 * SECOND));
    table.is("kept", 41, "Disk");
    assert_eq!(table.choice.age_ms(table.now), None);
    table.up(1);
    assert!(!table.snapshot(1, "kept", None, Duration::ZERO), "confirmed");
    table.is("kept", 41, "m1");
    assert!(table.snapshot(1, "new", None, Duration::ZERO));
    table.is("new", 42, "m1");

    let mut table = Table::new(Some((stored, Some(9))));
    table.up(1);
    assert!(!table.snapshot(1, "behind", Some(8), Duration::ZERO));
    table.up(2);
    assert!(table.snapshot(2, "new", Some(9), Duration::ZERO));
    table.is("new", 42, "m2");
}

#[test]
fn a_removed_manager_has_no_say() {
    let mut table = Table::new(None);
    table.up(1);
    table.up(2);
    table.snapshot(1, "a", None, SECOND);
    table.snapshot(2, "b", None, Duration::ZERO);
    table.choice.remove(address(1));
    assert!(table.wait(Duration::ZERO));
    table.is("b", 2, "m2");
    assert!(!table.snapshot(1, "late", None, Duration::ZERO));
    table.is("b", 2, "m2");
    assert_eq!(table.choice.managers(table.now).len(), 2);
}

#[test]
fn the_status_names_managers_ages_and_errors() {
    let mut table = Table::new(None);
    table.up(1);
    table.snapshot(1, "a", None, SECOND);
    table.down(2);
    table.now += SECOND;
    let managers = table.choice.managers(table.now);
    assert_eq!((managers[0].node.as_deref(), managers[0].current), (Some("m1"), true));
    assert_eq!((managers[0].age_ms, managers[0].generation), (Some(2_000), Some(1)));
    assert_eq!(managers[1].error.as_deref(), Some("connection reset"));
    assert!(!managers[1].connected && !managers[1].current && !managers[2].connected);
    assert_eq!(table.choice.age_ms(table.now), Some(2_000));
}
