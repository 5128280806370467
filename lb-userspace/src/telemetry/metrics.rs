//! Every metric: name, type, labels and help in one table, and the counts that the agent keeps itself.
//!
//! Everything that the maps hold is read at scrape (`scrape`), never by a timer. No label ever holds a client's
//! address, a port, a task or a query: each is a closed set, or bounded by the number of services, maps or interfaces.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::scrape::Scrape;
use crate::admin::{State, api};

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; its series end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Without the suffix `_total` of counters.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

impl Family {
    /// The name to query.
    pub fn full_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram => self.name.into(),
        }
    }
}

macro_rules! families {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $( pub(super) const $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }; )*
        /// Every metric, in the order of the page.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    BUILD_INFO = "lb_build_info" Gauge ["version", "revision", "schema"] "Always 1; says what runs.";
    READY = "lb_ready" Gauge [] "1 after the first successful synchronisation.";
    PACKETS = "lb_packets" Counter ["verdict", "reason"] "Packets seen, by what became of them; what XDP leaves to tc counts at both.";
    BYTES = "lb_bytes" Counter ["verdict", "reason"] "Bytes of these packets' frames as they came in.";
    DROPS = "lb_drops" Counter ["reason"] "Packets discarded.";
    SERVICE_FLOWS = "lb_service_flows" Counter ["network", "service"] "Flows begun.";
    SERVICE_PACKETS = "lb_service_packets" Counter ["network", "service", "direction"] "Packets forwarded; direction is backend or client.";
    SERVICE_BYTES = "lb_service_bytes" Counter ["network", "service", "direction"] "Bytes of these packets.";
    SERVICE_BACKENDS = "lb_service_backends" Gauge ["network", "service", "state"] "Tasks of a service, by state.";
    MAP_ENTRIES = "lb_map_entries" Gauge ["map"] "Entries in use.";
    MAP_MAX_ENTRIES = "lb_map_max_entries" Gauge ["map"] "Most entries that fit.";
    MAP_MEMORY = "lb_map_memory_bytes" Gauge ["map"] "Kernel memory that a map holds.";
    FLOW_EVICTIONS = "lb_flow_evictions" Counter ["cause"] "Flows removed from the flow tables by the agent.";
    FLOW_PRESSURE = "lb_flow_pressure" Gauge [] "1 while new flows go to the overflow tables, because a flow table was full.";
    ATTACH_INFO = "lb_attach_info" Gauge ["interface", "hook", "mode"] "Always 1; where programs are attached, and how.";
    REFUSED_NETWORKS = "lb_refused_networks" Gauge [] "Networks that are deliberately not balanced.";
    PROVIDER_CONNECTED = "lb_provider_connected" Gauge ["provider"] "1 when the provider's last reading succeeded.";
    PROVIDER_EVENTS = "lb_provider_events" Counter ["provider", "kind"] "Readings of the provider; kind is accepted or rejected.";
    DESIRED_GENERATION = "lb_desired_generation" Gauge [] "Generation of the newest snapshot.";
    APPLIED_GENERATION = "lb_applied_generation" Gauge [] "Generation that the maps hold; a lasting difference is a fault.";
    SYNC = "lb_sync" Counter ["outcome"] "Synchronisations of the maps with the desired state.";
    SYNC_DURATION = "lb_sync_duration_seconds" Histogram ["phase"] "Duration of a synchronisation's phases.";
    SYNC_LAST_SUCCESS = "lb_sync_last_success_timestamp_seconds" Gauge [] "End of the last successful synchronisation, Unix time; 0: none yet.";
    PROPAGATION = "lb_propagation_seconds" Histogram [] "From the provider's change to the maps being written.";
    DNS_QUERIES = "lb_dns_queries" Counter ["source", "qtype", "rcode"] "Queries answered.";
    DNS_DURATION = "lb_dns_duration_seconds" Histogram ["source"] "Time from question to answer.";
    DNS_EXCEPTIONS = "lb_dns_exceptions" Counter ["kind"] "Queries ignored or limited, answers truncated, upstreams that failed.";
    PROCESS_CPU = "process_cpu_seconds" Counter [] "CPU time of the agent.";
    PROCESS_RESIDENT = "process_resident_memory_bytes" Gauge [] "Resident memory of the agent.";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes" Gauge [] "Virtual memory of the agent.";
    PROCESS_OPEN_FDS = "process_open_fds" Gauge [] "Open file descriptors.";
    PROCESS_MAX_FDS = "process_max_fds" Gauge [] "Limit of open file descriptors.";
    PROCESS_THREADS = "process_threads" Gauge [] "Threads.";
    PROCESS_START = "process_start_time_seconds" Gauge [] "Start of the process, Unix time.";
}

/// The page's description for `docs/metrics.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated by `lbctl docs metrics` from `lb-userspace/src/telemetry/metrics.rs`; \
         do not edit.\n\nServed as OpenMetrics text under `/metrics`. Values from the maps are read at scrape.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in FAMILIES {
        let labels = if family.labels.is_empty() {
            "-".into()
        } else {
            family.labels.join(", ")
        };
        let kind = format!("{:?}", family.kind).to_lowercase();
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {labels} | {} |",
            family.full_name(),
            family.help
        );
    }
    text.push_str("\n## Reasons\n\nValues of the label `reason`, with the `verdict` that they belong to.\n\n");
    text.push_str("| reason | verdict | meaning |\n|---|---|---|\n");
    for reason in lb_common::verdict::Reason::ALL {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            reason.name(),
            reason.kind().name(),
            reason.help()
        );
    }
    text
}

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            pub(super) const LABELS: &'static [&'static str] = &[$($label),*];
        }
    };
}

closed_set! {
    /// How a synchronisation ended.
    Outcome {
        /// Everything was written.
        Ok = "ok",
        /// Some services were written, some failed.
        Partial = "partial",
        /// Nothing was written.
        Error = "error",
    }
}

closed_set! {
    /// Parts of a synchronisation.
    Phase {
        /// Snapshot to desired state.
        Compile = "compile",
        /// Reading the maps and comparing.
        Diff = "diff",
        /// Writing.
        Apply = "apply",
    }
}

closed_set! {
    /// What came of a reading of the provider.
    Reading {
        /// A new snapshot.
        Accepted = "accepted",
        /// Invalid or unreachable; the last good state stays.
        Rejected = "rejected",
    }
}

closed_set! {
    /// Why the agent removed flows.
    Eviction {
        /// Idle for longer than their timeout.
        Expired = "expired",
        /// A reply entry whose flow is gone.
        Orphan = "orphan",
    }
}

/// Label values of `lb_dns_exceptions_total`, in the order of [`DnsCounts::exceptions`].
pub const DNS_EXCEPTIONS_KINDS: [&str; 5] = [
    "ignored",
    "truncated",
    "limited",
    "connections_limited",
    "upstream_failed",
];

/// The name server's counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct DnsCounts {
    /// Source, question type, response code (lower case, closed sets), queries answered.
    pub answers: Vec<(&'static str, &'static str, &'static str, u64)>,
    /// Durations by source.
    pub latency: Vec<DnsLatency>,
    /// As [`DNS_EXCEPTIONS_KINDS`].
    pub exceptions: [u64; 5],
}

/// A histogram of durations.
#[derive(Clone, Debug, Default)]
pub struct DnsLatency {
    /// Who answered.
    pub source: &'static str,
    /// Upper bound in seconds (the last infinite) and number of answers in this bucket alone.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds.
    pub sum: f64,
    /// Answers.
    pub count: u64,
}

/// Reads the name server's counts.
pub type DnsReader = Box<dyn Fn() -> DnsCounts + Send + Sync>;

/// What the agent counts itself.
pub struct Metrics {
    pub(super) sync: [Counter; Outcome::LABELS.len()],
    pub(super) phases: [Histogram; Phase::LABELS.len()],
    pub(super) propagation: Histogram,
    pub(super) readings: [Counter; Reading::LABELS.len()],
    pub(super) evictions: [Counter; Eviction::LABELS.len()],
    pub(super) dns: Option<DnsReader>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// All zero. Without `dns` there is no name server to report.
    pub fn new(dns: Option<DnsReader>) -> Self {
        // 1 ms to 16 s.
        let histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        Self {
            sync: Default::default(),
            phases: std::array::from_fn(|_| histogram()),
            propagation: histogram(),
            readings: Default::default(),
            evictions: Default::default(),
            dns,
        }
    }

    /// A synchronisation ended.
    pub fn synced(&self, outcome: Outcome) {
        self.sync[outcome as usize].inc();
    }

    /// A phase of a synchronisation took `duration`.
    pub fn phase(&self, phase: Phase, duration: Duration) {
        self.phases[phase as usize].observe(duration.as_secs_f64());
    }

    /// From the provider's change to the maps it took `duration`.
    pub fn propagated(&self, duration: Duration) {
        self.propagation.observe(duration.as_secs_f64());
    }

    /// The provider was read.
    pub fn read(&self, reading: Reading) {
        self.readings[reading as usize].inc();
    }

    /// The agent removed `count` flows.
    pub fn evicted(&self, cause: Eviction, count: u64) {
        self.evictions[cause as usize].inc_by(count);
    }

    /// The page, with everything that the maps hold at this moment. Blocking: walks through the maps.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn render(self: &Arc<Self>, state: &State) -> Result<String, api::Error> {
        let scrape = Scrape::read(Arc::clone(self), state)?;
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape));
        let mut page = String::new();
        text::encode(&mut page, &registry)
            .map_err(|e| api::Error::new(api::Code::Internal, format!("cannot write the metrics: {e}")))?;
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = std::collections::BTreeSet::new();
        for family in FAMILIES {
            assert!(names.insert(family.name), "{} twice", family.name);
            assert!(
                family.name.starts_with("lb_") || family.name.starts_with("process_"),
                "{}",
                family.name
            );
            assert!(
                !family.name.ends_with("_total"),
                "{}: the suffix comes by itself",
                family.name
            );
            assert!(family.help.ends_with('.'), "{}", family.name);
            for forbidden in ["client", "address", "port", "task", "id"] {
                assert!(
                    !family.labels.contains(&forbidden),
                    "{}: unbounded label {forbidden}",
                    family.name
                );
            }
        }
    }

    #[test]
    fn the_document_names_every_metric_and_reason() {
        let text = markdown();
        for family in FAMILIES {
            assert!(text.contains(&format!("`{}`", family.full_name())));
        }
        for reason in lb_common::verdict::Reason::ALL {
            assert!(text.contains(&format!("`{}`", reason.name())));
        }
    }
}
