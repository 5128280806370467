//! What the server counts: answers by source, question type and result, and how long they took.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The zone, or the server itself (errors, refusals).
    Local,
    /// A configured upstream.
    Upstream,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Local, Self::Upstream];

    /// Label of the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Upstream => "upstream",
        }
    }
}

/// Labels of question types, a closed set.
pub const QTYPES: [&str; 11] = [
    "a", "aaaa", "ptr", "mx", "txt", "srv", "https", "ns", "soa", "any", "other",
];
/// Labels of response codes, a closed set.
pub const RCODES: [&str; 7] = [
    "noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other",
];
/// Upper bounds of the latency buckets, in microseconds; one more bucket holds the rest.
pub const BUCKETS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// Counters of one DNS server; shared, lock-free, never reset.
#[derive(Debug, Default)]
pub struct DnsCounters {
    answers: [[[AtomicU64; RCODES.len()]; QTYPES.len()]; 2],
    latency: [Latency; 2],
    /// Datagrams and messages that got no answer: too short, or answers themselves.
    pub ignored: AtomicU64,
    /// Answers that did not fit and were sent with the truncation bit.
    pub truncated: AtomicU64,
    /// Questions refused because too many were being forwarded, in all or for one client.
    pub limited: AtomicU64,
    /// TCP connections closed at once because too many were open, in all or from one client.
    pub connections_limited: AtomicU64,
    /// Tries at an upstream that brought no usable answer.
    pub upstream_failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Latency {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
}

/// A latency histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencySnapshot {
    /// Upper bound in seconds (the last is infinite) and number of answers in this bucket alone (not cumulative).
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all, seconds.
    pub sum: f64,
    /// Number of answers.
    pub count: u64,
}

impl DnsCounters {
    /// Adds one answer.
    pub(super) fn answered(&self, source: Source, qtype: Option<RecordType>, rcode: ResponseCode, took: Duration) {
        self.answers[source as usize][qtype_index(qtype)][rcode_index(rcode)].fetch_add(1, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let latency = &self.latency[source as usize];
        let bucket = BUCKETS
            .iter()
            .position(|&bound| micros <= bound)
            .unwrap_or(BUCKETS.len());
        latency.buckets[bucket].fetch_add(1, Relaxed);
        latency.sum.fetch_add(micros, Relaxed);
    }

    /// Every series: source, question type, response code, answers so far. Zeros included.
    pub fn answers(&self) -> impl Iterator<Item = (Source, &'static str, &'static str, u64)> + '_ {
        Source::ALL.into_iter().flat_map(move |source| {
            QTYPES.iter().enumerate().flat_map(move |(q, &qtype)| {
                RCODES
                    .iter()
                    .enumerate()
                    .map(move |(r, &rcode)| (source, qtype, rcode, self.answers[source as usize][q][r].load(Relaxed)))
            })
        })
    }

    /// Answers so far.
    pub fn total(&self) -> u64 {
        self.answers().map(|(.., count)| count).sum()
    }

    /// Answers so far with this source and response code label, whatever was asked.
    pub fn count(&self, source: Source, rcode: &str) -> u64 {
        self.answers()
            .filter(|(s, _, r, _)| *s == source && *r == rcode)
            .map(|(.., count)| count)
            .sum()
    }

    /// How long answers took, from the question's arrival to the answer's departure.
    pub fn latency(&self, source: Source) -> LatencySnapshot {
        let latency = &self.latency[source as usize];
        let bounds = BUCKETS.iter().map(|&micros| micros as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds
            .zip(latency.buckets.iter().map(|bucket| bucket.load(Relaxed)))
            .collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        LatencySnapshot {
            buckets,
            sum: latency.sum.load(Relaxed) as f64 / 1e6,
            count,
        }
    }
}

fn qtype_index(qtype: Option<RecordType>) -> usize {
    match qtype {
        Some(RecordType::A) => 0,
        Some(RecordType::AAAA) => 1,
        Some(RecordType::PTR) => 2,
        Some(RecordType::MX) => 3,
        Some(RecordType::TXT) => 4,
        Some(RecordType::SRV) => 5,
        Some(RecordType::HTTPS) => 6,
        Some(RecordType::NS) => 7,
        Some(RecordType::SOA) => 8,
        Some(RecordType::ANY) => 9,
        _ => 10,
    }
}

fn rcode_index(rcode: ResponseCode) -> usize {
    match rcode {
        ResponseCode::NoError => 0,
        ResponseCode::FormErr => 1,
        ResponseCode::ServFail => 2,
        ResponseCode::NXDomain => 3,
        ResponseCode::NotImp => 4,
        ResponseCode::Refused => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_once_under_its_labels() {
        let counters = DnsCounters::default();
        counters.answered(
            Source::Upstream,
            Some(RecordType::AAAA),
            ResponseCode::NXDomain,
            Duration::from_micros(51),
        );
        let nonzero: Vec<_> = counters.answers().filter(|(.., n)| *n > 0).collect();
        assert_eq!(nonzero, [(Source::Upstream, "aaaa", "nxdomain", 1)]);
        let latency = counters.latency(Source::Upstream);
        assert_eq!((latency.count, latency.buckets[1]), (1, (100e-6, 1)));
        assert_eq!(counters.latency(Source::Local).count, 0);
    }

    #[test]
    fn an_endless_answer_falls_into_the_last_bucket() {
        let counters = DnsCounters::default();
        counters.answered(Source::Local, None, ResponseCode::BADVERS, Duration::from_secs(60));
        let latency = counters.latency(Source::Local);
        assert_eq!(latency.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(latency.sum, 60.0);
        assert_eq!(counters.count(Source::Local, "other"), 1);
    }
}
