//! [`Traffic`]: requests without a pause while something happens to the cluster, and how each of them fared.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Answer, Connection};
use crate::netns::{Netns, spawn_within};
use crate::require;

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
    /// Failed ones.
    pub failures: Vec<Failure>,
    /// Those made again because the server had ended the connection; never the first one of a connection.
    pub repeated: usize,
    /// The longest that an answered request took.
    pub slowest: Duration,
}

/// A request that failed.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was asked.
    pub target: SocketAddr,
    /// How far it came.
    pub stage: Stage,
    /// When its connection began; on one that was kept, when it was sent.
    pub begun: Instant,
    /// When it failed.
    pub ended: Instant,
    /// Why.
    pub error: String,
}

/// How far a request came that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody took the connection.
    Connect,
    /// Somebody had taken the connection, and did not answer.
    Answer,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, error, .. } = self;
        let waited = self.waited();
        match self.stage {
            Stage::Connect => write!(f, "{target} took no connection: {error} after {waited:?}"),
            Stage::Answer => write!(f, "{target} did not answer: {error} after {waited:?}"),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}; begun {:?}]", self.begun)
    }
}

impl Failure {
    /// How long it took.
    pub fn waited(&self) -> Duration {
        self.ended.duration_since(self.begun)
    }
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

    /// The longest that a failed request took.
    pub fn longest_failure(&self) -> Duration {
        self.failures.iter().map(Failure::waited).max().unwrap_or_default()
    }

    /// Whatever happened, nobody noticed: no request failed, none was made again, and none took so long that a packet may have
    /// been lost. A lost SYN would be sent again after a second, and its request would succeed all the same; on a machine so slow
    /// that a request may take as long ([`require::slowness`]) that cannot be told.
    ///
    /// # Panics
    /// If somebody did.
    #[track_caller]
    pub fn assert_unnoticed(&self) {
        assert_eq!(self.failures, []);
        assert_eq!(self.repeated, 0);
        let slowest = self.slowest;
        assert!(
            require::slowness() > 1 || slowest < Duration::from_millis(900),
            "one took {slowest:?}: sent twice?"
        );
    }

    fn add(&mut self, other: Self) {
        for (backend, count) in other.answered {
            *self.answered.entry(backend).or_insert(0) += count;
        }
        self.failures.extend(other.failures);
        self.repeated += other.repeated;
        self.slowest = self.slowest.max(other.slowest);
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
                        Err(failure) => {
                            report.failures.push(failure);
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
) -> Result<Answer, Failure> {
    let mut begun = Instant::now();
    let failure = |begun, stage, error: io::Error| Failure {
        target,
        stage,
        begun,
        ended: Instant::now(),
        error: error.to_string(),
    };
    if let Some(mut kept) = connection.take() {
        match kept.ask() {
            // Ended before the request, or while it was on its way; then the server never saw it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => *repeated += 1,
            Err(error) => return Err(failure(begun, Stage::Answer, error)),
            Ok(answer) => {
                *connection = Some(kept);
                return Ok(answer);
            }
        }
        begun = Instant::now();
    }
    let mut new = Connection::open(target).map_err(|error| {
        // A SYN is refused. Only a connection that was there is reset, be it before this process has seen it.
        let stage = match error.kind() {
            ErrorKind::ConnectionReset => Stage::Answer,
            _ => Stage::Connect,
        };
        failure(begun, stage, error)
    })?;
    let answer = new.ask().map_err(|error| failure(begun, Stage::Answer, error))?;
    if style == Style::KeepAlive {
        *connection = Some(new);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn ask(target: SocketAddr) -> Failure {
        request(&mut None, &mut 0, target, Style::NewConnection).unwrap_err()
    }

    #[test]
    fn a_connection_that_nobody_takes_is_told_from_one_without_an_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let before = Instant::now();
        let server = std::thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            // All of it is read, so that the connection ends in order.
            assert!(first.read(&mut [0; 512]).unwrap() > 0);
            drop(first);
            // Nothing of it is read, so that it is reset.
            let (second, _) = listener.accept().unwrap();
            second.peek(&mut [0]).unwrap();
        });
        for kind in ["ended", "reset"] {
            let failure = ask(target);
            assert_eq!(failure.stage, Stage::Answer, "{kind}: {failure}");
            assert!(before <= failure.begun && failure.begun <= failure.ended, "{failure}");
        }
        server.join().unwrap();
        let failure = ask(target);
        assert_eq!(failure.stage, Stage::Connect, "{failure}");
    }

    #[test]
    fn a_request_on_a_connection_that_has_ended_is_made_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let kept = Connection::open(target).unwrap();
        drop(listener.accept().unwrap());
        drop(listener);
        let (mut connection, mut repeated) = (Some(kept), 0);
        let before = Instant::now();
        let failure = request(&mut connection, &mut repeated, target, Style::KeepAlive).unwrap_err();
        assert_eq!((failure.stage, repeated), (Stage::Connect, 1), "{failure}");
        assert!(failure.begun > before && connection.is_none());
    }
}
