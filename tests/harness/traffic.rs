//! [`Traffic`]: requests without a pause while something happens to the cluster, and how each of them fared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Answer, Connection, get};
use crate::netns::{Netns, spawn_within};

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
    /// One connection for all of a thread's requests. As HTTP has it, a server may end it in order between two answers:
    /// then the request that found it ended is made again on a new one ([`Report::repeated`]).
    KeepAlive,
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answered ones, by backend.
    pub answered: BTreeMap<String, usize>,
    /// Failed ones: when after the start, and why.
    pub failures: Vec<(Duration, String)>,
    /// Those made again because the server had ended the connection; never the first one of a connection.
    pub repeated: usize,
    /// The longest that an answered request took.
    pub slowest: Duration,
    /// The longest that a failed request took.
    pub longest_failure: Duration,
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
        self.repeated += other.repeated;
        self.slowest = self.slowest.max(other.slowest);
        self.longest_failure = self.longest_failure.max(other.longest_failure);
    }
}

impl Traffic {
    /// Starts `threads` clients inside `netns`; each asks `targets` in turn.
    pub fn start(netns: &Netns, targets: &[SocketAddr], threads: usize, style: Style) -> Self {
        Self::start_within(&netns.open(), targets, threads, style)
    }

    /// As [`Traffic::start`], in any network namespace.
    pub fn start_within(namespace: &File, targets: &[SocketAddr], threads: usize, style: Style) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let threads = (0..threads).map(|number| {
            let (stop, done, targets) = (stop.clone(), done.clone(), targets.to_vec());
            let namespace = namespace.try_clone().expect("a duplicate descriptor");
            spawn_within(namespace, move || {
                let start = Instant::now();
                let mut report = Report::default();
                let mut connection = None;
                for target in targets.iter().cycle().skip(number) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let begun = Instant::now();
                    match request(&mut connection, &mut report.repeated, *target, style) {
                        Ok(answer) => {
                            report.slowest = report.slowest.max(begun.elapsed());
                            *report.answered.entry(answer.backend).or_insert(0) += 1;
                        }
                        Err(error) => {
                            let waited = begun.elapsed();
                            report.longest_failure = report.longest_failure.max(waited);
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

fn request(
    connection: &mut Option<Connection>,
    repeated: &mut usize,
    target: SocketAddr,
    style: Style,
) -> io::Result<Answer> {
    if style == Style::NewConnection {
        return get(target);
    }
    if let Some(mut kept) = connection.take() {
        match kept.ask() {
            // Ended before the request, or while it was on its way; then the server never saw it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => *repeated += 1,
            answer => {
                *connection = Some(kept);
                return answer;
            }
        }
    }
    connection.insert(Connection::open(target)?).ask()
}
