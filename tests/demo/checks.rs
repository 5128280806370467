//! Counts what was checked and what was wrong.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::client::{Answer, get};
use lb_tests::netns::Netns;

/// Requests to each frontend.
const REQUESTS: usize = 30;

/// What was checked so far.
#[derive(Default)]
pub(crate) struct Checks {
    checks: usize,
    /// Requests made.
    pub(crate) requests: usize,
    faults: Vec<String>,
}

/// What came of some requests.
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<String, usize>,
    seen: Vec<IpAddr>,
    failed: usize,
}

impl Checks {
    /// Counts a check; `fault` says what is wrong if it is not good.
    pub(crate) fn check(&mut self, good: bool, fault: impl FnOnce() -> String) {
        self.checks += 1;
        if !good {
            self.faults.push(fault());
        }
    }

    /// Every backend got its exact share: `yes` or `NO`.
    pub(crate) fn check_even(&mut self, what: &str, tally: &Tally, backends: &[String]) -> String {
        let counts: Vec<_> = backends
            .iter()
            .map(|backend| tally.counts.get(backend).copied().unwrap_or(0))
            .collect();
        let (min, max) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
        let even = tally.failed == 0 && max - min <= 1;
        self.check(even, || format!("{what}: {} failed, shares {counts:?}", tally.failed));
        if even { "yes".into() } else { "NO".into() }
    }

    /// Every backend saw the client itself: its address.
    pub(crate) fn check_seen(&mut self, what: &str, tally: &Tally, own: IpAddr) -> String {
        let others = tally.seen.iter().filter(|seen| **seen != own).count();
        self.check(others == 0, || {
            format!("{what}: {others} requests came from another address than {own}")
        });
        if others == 0 {
            own.to_string()
        } else {
            format!("NOT {own}")
        }
    }

    /// Cells of a table: requests, failed ones, those of each backend.
    pub(crate) fn row(&mut self, tally: &Tally, backends: &[String]) -> Vec<String> {
        self.requests += REQUESTS;
        let counts = backends
            .iter()
            .map(|backend| tally.counts.get(backend).copied().unwrap_or(0));
        [REQUESTS, tally.failed]
            .into_iter()
            .chain(counts)
            .map(|count| count.to_string())
            .collect()
    }

    /// Prints the last line; whether all was well.
    pub(crate) fn verdict(&self, took: Duration) -> bool {
        for fault in &self.faults {
            println!("  wrong: {fault}");
        }
        let word = if self.faults.is_empty() { "PASS" } else { "FAIL" };
        println!(
            "{word}: {} checks, {} wrong, {} requests, in {:.0} s",
            self.checks,
            self.faults.len(),
            self.requests,
            took.as_secs_f32()
        );
        self.faults.is_empty()
    }
}

/// [`REQUESTS`] requests from inside a namespace, a connection for each.
pub(crate) fn ask(netns: &Netns, target: SocketAddr) -> Tally {
    netns.run(|| ask_from_here(target))
}

/// [`REQUESTS`] requests from the namespace of this thread, a connection for each.
pub(crate) fn ask_from_here(target: SocketAddr) -> Tally {
    let answers: Vec<io::Result<Answer>> = (0..REQUESTS).map(|_| get(target)).collect();
    let mut tally = Tally {
        counts: BTreeMap::new(),
        seen: Vec::new(),
        failed: 0,
    };
    for answer in answers {
        match answer {
            Ok(answer) => {
                *tally.counts.entry(answer.backend).or_insert(0) += 1;
                tally.seen.push(answer.peer.ip());
            }
            Err(_) => tally.failed += 1,
        }
    }
    tally
}
