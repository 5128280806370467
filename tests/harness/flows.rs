//! [`Flows`]: connections and datagram flows that are kept alive while something happens, each watched: it must always
//! hear the same backend, every byte must be right, and nothing may be reset or stand still.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::client::{Answer, Connection, PATIENCE, Udp};
use crate::netns::Netns;
use crate::require;

/// One answer of a long transfer: at its pace, seconds, on a slow machine as many times longer.
const TRANSFER: usize = 4 << 20;
/// What of it is read at a time, and how long it rests then: on a slow machine longer, where these transfers would leave the
/// processor to nobody else.
const PIECE: usize = 32 << 10;
const PACE: Duration = Duration::from_millis(20);
/// Threads that ask on the kept flows.
const ASKING: usize = 4;

/// What a flow is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A TCP connection with a request now and then.
    Requests,
    /// A TCP connection that never stops downloading.
    Transfer,
    /// A UDP socket that asks now and then. A datagram that is not answered is lost for good: nothing is sent twice.
    Datagrams,
}

/// Flows, opened and answered once, on which nothing happens yet.
#[derive(Debug, Default)]
pub struct Flows(Vec<Flow>);

#[derive(Debug)]
struct Flow {
    what: String,
    socket: Socket,
    /// Who answered first, and whom he saw.
    first: Answer,
}

#[derive(Debug)]
enum Socket {
    Requests(Connection),
    Transfer(Connection),
    Datagrams(Udp),
}

impl Flows {
    /// Opens `count` flows from inside `netns` to `target`.
    ///
    /// # Errors
    /// If one is refused or not answered.
    pub fn open(&mut self, netns: &Netns, target: SocketAddr, usage: Use, count: usize) -> io::Result<()> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        let what = format!("{usage:?} from {} to {target}", netns.name());
        let flows = netns.run(|| {
            (0..count)
                .map(|_| Flow::open(&what, target, usage))
                .collect::<io::Result<Vec<_>>>()
        });
        self.0.extend(flows?);
        Ok(())
    }

    /// How many are of this use.
    pub fn count(&self, usage: Use) -> u64 {
        self.0.iter().filter(|flow| flow.usage() == usage).count() as u64
    }

    /// Keeps them busy until [`Busy::stop`].
    pub fn start(self) -> Busy {
        let stop = Arc::new(AtomicBool::new(false));
        let (transfers, asking): (Vec<_>, Vec<_>) = self.0.into_iter().partition(|f| f.usage() == Use::Transfer);
        let mut shares: Vec<Vec<Flow>> = transfers.into_iter().map(|flow| vec![flow]).collect();
        let mut dealt: Vec<Vec<Flow>> = std::iter::repeat_with(Vec::new).take(ASKING).collect();
        for (index, flow) in asking.into_iter().enumerate() {
            dealt[index % ASKING].push(flow);
        }
        shares.extend(dealt.into_iter().filter(|share| !share.is_empty()));
        let threads = shares.into_iter().map(|flows| {
            let (stop, rounds) = (stop.clone(), Arc::new(AtomicU64::new(0)));
            let counted = rounds.clone();
            (rounds, std::thread::spawn(move || keep_busy(flows, &stop, &counted)))
        });
        let threads = threads.collect();
        Busy { stop, threads }
    }
}

/// Flows that something goes on on.
#[derive(Debug)]
pub struct Busy {
    stop: Arc<AtomicBool>,
    /// Each with the number of times that it went through its flows.
    threads: Vec<(Arc<AtomicU64>, JoinHandle<Report>)>,
}

/// What became of flows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests, datagrams and pieces of transfers that were answered as they should be.
    pub answered: u64,
    /// Flows that were reset or refused.
    pub resets: Vec<String>,
    /// Flows on which nothing came within [`PATIENCE`].
    pub stalls: Vec<String>,
    /// Flows that heard another backend, or bytes that nobody sent, or an end.
    pub wrong: Vec<String>,
    /// The longest that one answer took.
    pub slowest: Duration,
}

impl Report {
    /// # Panics
    /// If anything happened to any flow.
    #[track_caller]
    pub fn assert_lossless(&self) {
        let Self {
            resets, stalls, wrong, ..
        } = self;
        assert!(
            resets.is_empty() && stalls.is_empty() && wrong.is_empty(),
            "{} resets, {} stalls, {} wrong, beside {} answers:\n{resets:#?}\n{stalls:#?}\n{wrong:#?}",
            resets.len(),
            stalls.len(),
            wrong.len(),
            self.answered
        );
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.resets.extend(other.resets);
        self.stalls.extend(other.stalls);
        self.wrong.extend(other.wrong);
        self.slowest = self.slowest.max(other.slowest);
    }

    fn note(&mut self, flow: &Flow, error: &io::Error) {
        let text = format!("{} at {}: {error}", flow.what, flow.first.backend);
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused => self.resets.push(text),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.stalls.push(text),
            _ => self.wrong.push(text),
        }
    }
}

impl Busy {
    /// Waits until every flow that still lives has been used, from one end to the other, after the call.
    ///
    /// # Panics
    /// If that takes longer than a minute (on a slow machine, [`require::slowness`] minutes): no wait within it may be longer
    /// than [`PATIENCE`].
    pub fn round(&self) {
        let before: Vec<u64> = self
            .threads
            .iter()
            .map(|(rounds, _)| rounds.load(Ordering::Relaxed))
            .collect();
        let (start, limit) = (Instant::now(), Duration::from_secs(60) * require::slowness());
        for ((rounds, thread), before) in self.threads.iter().zip(before) {
            // The round that is going on may have begun before.
            while rounds.load(Ordering::Relaxed) < before + 2 && !thread.is_finished() {
                assert!(start.elapsed() < limit, "the flows stand still");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Ends them and says what became of them.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for (_, thread) in self.threads.drain(..) {
            total.add(thread.join().expect("a thread of flows"));
        }
        total
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Uses the flows in turn; one that fails is not used again.
fn keep_busy(mut flows: Vec<Flow>, stop: &AtomicBool, rounds: &AtomicU64) -> Report {
    let mut report = Report::default();
    while !stop.load(Ordering::Relaxed) && !flows.is_empty() {
        flows.retain_mut(|flow| {
            let begun = Instant::now();
            match flow.exchange(stop, rounds) {
                Ok(answers) => {
                    report.answered += answers;
                    if flow.usage() != Use::Transfer {
                        report.slowest = report.slowest.max(begun.elapsed());
                    }
                    true
                }
                Err(error) => {
                    report.note(flow, &error);
                    false
                }
            }
        });
        rounds.fetch_add(1, Ordering::Relaxed);
        // Leaves the two cores of a small machine to those who answer.
        std::thread::sleep(Duration::from_millis(5));
    }
    report
}

impl Flow {
    fn open(what: &str, target: SocketAddr, usage: Use) -> io::Result<Self> {
        let (socket, first) = match usage {
            Use::Datagrams => {
                let socket = Udp::open(target)?;
                let first = socket.ask(PATIENCE * require::slowness())?;
                (Socket::Datagrams(socket), first)
            }
            Use::Requests | Use::Transfer => {
                let mut connection = Connection::open(target)?;
                let first = connection.ask()?;
                let socket = match usage {
                    Use::Transfer => Socket::Transfer(connection),
                    _ => Socket::Requests(connection),
                };
                (socket, first)
            }
        };
        Ok(Self {
            what: what.to_owned(),
            socket,
            first,
        })
    }

    fn usage(&self) -> Use {
        match self.socket {
            Socket::Requests(_) => Use::Requests,
            Socket::Transfer(_) => Use::Transfer,
            Socket::Datagrams(_) => Use::Datagrams,
        }
    }

    /// Uses it once: how many answers came.
    fn exchange(&mut self, stop: &AtomicBool, rounds: &AtomicU64) -> io::Result<u64> {
        let (answer, answers) = match &mut self.socket {
            Socket::Requests(connection) => (connection.ask()?, 1),
            Socket::Datagrams(socket) => (socket.ask(PATIENCE * require::slowness())?, 1),
            Socket::Transfer(connection) => {
                let mut pieces = 0;
                connection.download_by_pieces(TRANSFER, PIECE, || {
                    pieces += 1;
                    rounds.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PACE * require::slowness());
                    !stop.load(Ordering::Relaxed)
                })?;
                if stop.load(Ordering::Relaxed) {
                    return Ok(pieces);
                }
                (connection.ask()?, pieces + 1)
            }
        };
        if answer == self.first {
            return Ok(answers);
        }
        let text = format!("{answer:?} instead of {:?}", self.first);
        Err(io::Error::new(ErrorKind::InvalidData, text))
    }
}
