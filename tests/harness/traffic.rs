//! [`Traffic`]: requests without a pause while something happens to the cluster, and how each of them fared.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Answer, Connection, get};
use crate::netns::Netns;

/// Requests from one namespace to one frontend until [`Traffic::stop`].
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Report>>,
}

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A connection for each request.
    NewConnection,
    /// One connection for all of a thread's requests.
    KeepAlive,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answered ones, by backend.
    pub answered: BTreeMap<String, usize>,
    /// Failed ones: when after the start, and why.
    pub failures: Vec<(Duration, String)>,
    /// The longest that an answered request took.
    pub slowest: Duration,
}

impl Report {
    /// Number of answered requests.
    pub fn ok(&self) -> usize {
        self.answered.values().sum()
    }

    /// Number of failed requests.
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    fn add(&mut self, other: Self) {
        for (backend, count) in other.answered {
            *self.answered.entry(backend).or_insert(0) += count;
        }
        self.failures.extend(other.failures);
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl Traffic {
    /// Starts `threads` clients inside `netns`; each asks `targets` in turn.
    pub fn start(netns: &Netns, targets: &[SocketAddr], threads: usize, style: Style) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let threads = (0..threads).map(|number| {
            let (stop, done, targets) = (stop.clone(), done.clone(), targets.to_vec());
            netns.spawn(move || {
                let start = Instant::now();
                let mut report = Report::default();
                let mut connection = None;
                for target in targets.iter().cycle().skip(number) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let begun = Instant::now();
                    match request(&mut connection, *target, style) {
                        Ok(answer) => {
                            report.slowest = report.slowest.max(begun.elapsed());
                            *report.answered.entry(answer.backend).or_insert(0) += 1;
                        }
                        Err(error) => {
                            let waited = begun.elapsed();
                            report
                                .failures
                                .push((start.elapsed(), format!("{target} after {waited:?}: {error}")));
                            connection = None;
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    // Leaves the two cores of a small machine to those who answer.
                    std::thread::sleep(Duration::from_millis(1));
                }
                report
            })
        });
        let threads = threads.collect();
        Self { stop, done, threads }
    }

    /// Waits until `count` more requests have come to their end.
    ///
    /// # Panics
    /// If that takes longer than 20 s.
    pub fn flow(&self, count: usize) {
        let start = Instant::now();
        let goal = self.done.load(Ordering::Relaxed) + count;
        while self.done.load(Ordering::Relaxed) < goal {
            assert!(start.elapsed() < Duration::from_secs(20), "the traffic stands still");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it and says what became of it.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for thread in self.threads.drain(..) {
            total.add(thread.join().expect("a traffic thread"));
        }
        total
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn request(connection: &mut Option<Connection>, target: SocketAddr, style: Style) -> io::Result<Answer> {
    match style {
        Style::NewConnection => get(target),
        Style::KeepAlive => {
            let kept = match connection.take() {
                Some(kept) => kept,
                None => Connection::open(target)?,
            };
            connection.insert(kept).ask()
        }
    }
}
