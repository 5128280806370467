//! What the rest of the agent and other nodes get, and when.

use std::time::{Duration, Instant};

use super::*;
use crate::agent::reported::tests::{died, report, snapshot, state_of};
use crate::model::snapshot::BackendState;

const PATIENCE: Duration = Duration::from_secs(5);

/// All ends of a running merge.
struct Bench {
    provider: watch::Sender<ProviderState>,
    readings: watch::Sender<Option<Reading>>,
    reports: watch::Sender<BTreeMap<String, Reported>>,
    died: watch::Sender<BTreeSet<String>>,
    states: watch::Receiver<ProviderState>,
    views: watch::Receiver<Option<View>>,
    dead: watch::Receiver<BTreeSet<String>>,
}

impl Bench {
    fn start() -> Self {
        let (provider, providers) = watch::channel(ProviderState::default());
        let (readings, read) = watch::channel(None);
        let (reports, reported) = watch::channel(BTreeMap::new());
        let (died, dying) = watch::channel(BTreeSet::new());
        let (state, states) = watch::channel(ProviderState::default());
        let (view, views) = watch::channel(None);
        let (mourned, dead) = watch::channel(BTreeSet::new());
        let sources = Sources {
            provider: providers,
            readings: read,
            reports: reported,
            died: dying,
        };
        let merged = Merged {
            state,
            view,
            dead: mourned,
        };
        tokio::spawn(run(sources, merged));
        Self {
            provider,
            readings,
            reports,
            died,
            states,
            views,
            dead,
        }
    }

    /// The provider reads this on node n1, which is a manager.
    fn reads(&self, snapshot: Snapshot) {
        self.publish(snapshot, true);
    }

    /// A manager's agent says this to node n1.
    fn hears(&self, snapshot: Snapshot) {
        self.publish(snapshot, false);
    }

    fn publish(&self, snapshot: Snapshot, first_hand: bool) {
        self.provider.send_modify(|state| {
            state.accept(snapshot, Vec::new(), Some("n1"));
            state.first_hand = first_hand;
        });
    }

    /// And it is there for others, which comes second.
    fn manages(&self) {
        let snapshot = self.provider.borrow().snapshot.clone().unwrap();
        self.readings.send_replace(Some(Reading {
            snapshot,
            index: 1,
            read: Instant::now(),
        }));
    }

    async fn until(&mut self, wanted: impl Fn(&Snapshot) -> bool) {
        let wanted = |state: &ProviderState| state.snapshot.as_ref().is_some_and(|snapshot| wanted(snapshot));
        let found = tokio::time::timeout(PATIENCE, self.states.wait_for(wanted))
            .await
            .is_ok();
        assert!(found, "still {:?}", *self.states.borrow());
    }
}

#[tokio::test]
async fn a_report_that_comes_after_the_state_is_merged() {
    let mut bench = Bench::start();
    bench.reads(snapshot());
    let known = |count: usize| move |snapshot: &Snapshot| snapshot.nodes[1].addresses.len() == count;
    bench.until(known(1)).await;
    bench.manages();
    for count in [2, 3] {
        // Some time after everything else has come to rest.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let addresses = &["2001:db8::2", "2001:db8::3"][..count - 1];
        bench.reports.send_replace(report("id-n2", addresses, None));
        bench.until(known(count)).await;
        let state = bench.states.borrow().snapshot.clone().unwrap();
        let sent = |view: &Option<View>| view.as_ref().is_some_and(|view| view.snapshot == state);
        tokio::time::timeout(PATIENCE, bench.views.wait_for(sent))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn what_a_manager_reads_is_never_without_what_was_reported_before() {
    let mut bench = Bench::start();
    let reports = report("id-n2", &["2001:db8::2"], Some(&[]));
    bench.reports.send_replace(reports.clone());
    bench.reads(snapshot());
    bench.until(|_| true).await;
    // Nothing of it is there for others yet.
    assert!(bench.readings.borrow().is_none());
    let first = bench.states.borrow().snapshot.clone().unwrap();
    let mut wanted = with_reports(&snapshot(), &reports);
    wanted.generation = first.generation;
    assert_eq!(*first, wanted);
}

#[tokio::test]
async fn what_another_agent_says_is_taken_as_it_is_until_this_one_reads_itself() {
    let mut bench = Bench::start();
    bench.reports.send_replace(report("id-n2", &["2001:db8::2"], None));
    bench.hears(snapshot());
    let known = |count: usize| move |snapshot: &Snapshot| snapshot.nodes[1].addresses.len() == count;
    bench.until(|_| true).await;
    assert!(known(1)(bench.states.borrow().snapshot.as_ref().unwrap()));
    // The very same.
    bench.reads(snapshot());
    bench.until(known(2)).await;
    bench.hears(snapshot());
    bench.until(known(1)).await;
}

#[tokio::test]
async fn a_death_here_is_acted_upon_and_told_until_the_state_has_forgotten_the_task() {
    let mut bench = Bench::start();
    bench.reads(snapshot());
    let draining = |snapshot: &Snapshot| state_of(snapshot, "a") == Some(BackendState::Draining);
    bench.until(|snapshot| !draining(snapshot)).await;
    bench.died.send_replace(["a".to_owned()].into());
    bench.until(draining).await;
    bench.dead.wait_for(|dead| dead.contains("a")).await.unwrap();
    // Too long ago for this node to remember, but the state still names it.
    bench.died.send_replace(BTreeSet::new());
    let mut more = snapshot();
    more.nodes[0].addresses.clear();
    bench.reads(more);
    bench.until(|snapshot| snapshot.nodes[0].addresses.is_empty()).await;
    assert!(draining(bench.states.borrow().snapshot.as_ref().unwrap()));
    assert!(bench.dead.borrow().contains("a"));

    let mut less = snapshot();
    less.services[0].backends.remove(0);
    bench.reads(less);
    bench.until(|snapshot| state_of(snapshot, "a").is_none()).await;
    tokio::time::timeout(PATIENCE, bench.dead.wait_for(BTreeSet::is_empty))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_death_elsewhere_is_passed_on_at_once() {
    let mut bench = Bench::start();
    bench.reads(snapshot());
    bench.manages();
    bench.until(|_| true).await;
    bench.reports.send_replace(died("id-n2", &["b"]));
    bench
        .until(|snapshot| state_of(snapshot, "b") == Some(BackendState::Draining))
        .await;
    let sent = |view: &Option<View>| {
        let view = view.as_ref().map(|view| state_of(&view.snapshot, "b"));
        view == Some(Some(BackendState::Draining))
    };
    tokio::time::timeout(PATIENCE, bench.views.wait_for(sent))
        .await
        .unwrap()
        .unwrap();
    assert!(bench.dead.borrow().is_empty(), "only its own");
}
