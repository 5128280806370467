//! DNS: its settings, its counts for the metrics, and its explanations for the admin API.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;

use crate::admin::DnsReader;
use crate::admin::api::{Code, DnsAnswer, DnsQuestion, DnsRecord, Error};
use crate::config::Config;
use crate::dns::counters::Source;
use crate::dns::explain::{Asker, ExplainError, Outcome};
use crate::dns::{DnsCounters, DnsSettings, Zone};
use crate::telemetry::metrics::{self, DnsCounts, DnsLatency};

/// Settings of the server.
pub(super) fn settings(config: &Config) -> DnsSettings {
    DnsSettings {
        listen: config.dns.listen.clone(),
        upstreams: config.dns.upstreams.clone(),
        ttl: config.dns.ttl,
        ..DnsSettings::default()
    }
}

/// Reads the counts for the metrics.
pub(super) fn counts(counters: Arc<DnsCounters>) -> metrics::DnsReader {
    Box::new(move || DnsCounts {
        answers: counters
            .answers()
            .map(|(source, qtype, rcode, count)| (source.name(), qtype, rcode, count))
            .collect(),
        latency: Source::ALL
            .into_iter()
            .map(|source| {
                let latency = counters.latency(source);
                DnsLatency {
                    source: source.name(),
                    buckets: latency.buckets,
                    sum: latency.sum,
                    count: latency.count,
                }
            })
            .collect(),
        exceptions: [
            counters.ignored.load(Relaxed),
            counters.truncated.load(Relaxed),
            counters.limited.load(Relaxed),
            counters.connections_limited.load(Relaxed),
            counters.upstream_failures.load(Relaxed),
        ],
    })
}

/// Explains names from the zone in force.
pub(super) fn reader(zone: Arc<ArcSwap<Zone>>, ttl: u32) -> DnsReader {
    Arc::new(move |question| explain(&zone.load(), question, ttl))
}

fn explain(zone: &Zone, question: &DnsQuestion, ttl: u32) -> Result<DnsAnswer, Error> {
    let asker = match (&question.client, &question.network) {
        (Some(client), _) => Asker::Client(*client),
        (None, Some(network)) => Asker::Network(network.clone()),
        (None, None) => Asker::Outside,
    };
    let (name, types): (String, &[&str]) = match question.name.parse::<IpAddr>() {
        Ok(address) => (reverse(address), &["PTR"]),
        Err(_)
            if question
                .name
                .trim_end_matches('.')
                .to_ascii_lowercase()
                .ends_with(".arpa") =>
        {
            (question.name.clone(), &["PTR"])
        }
        Err(_) => (question.name.clone(), &["A", "AAAA"]),
    };
    let mut answer = DnsAnswer {
        name: name.clone(),
        source: "upstream".into(),
        ..DnsAnswer::default()
    };
    for record_type in types {
        let explained = zone.explain(&asker, &name, record_type).map_err(|e| {
            let code = match e {
                ExplainError::NoNetwork { .. } => Code::NotFound,
                ExplainError::NoType(_) => Code::Usage,
            };
            Error::new(code, e.to_string())
        })?;
        if explained.outcome != Outcome::Forwarded {
            answer.source = "local".into();
            answer.rcode = "NOERROR".into();
        }
        answer.network = answer.network.or(explained.network);
        answer
            .records
            .extend(explained.records.into_iter().map(|record| DnsRecord {
                name: name.clone(),
                kind: record.record_type,
                ttl,
                data: record.value,
            }));
        if !answer.why.contains(&explained.why) {
            answer.why.push(explained.why);
        }
    }
    Ok(answer)
}

/// The name whose PTR record belongs to `address`.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|b| [b & 15, b >> 4]);
            nibbles.map(|n| format!("{n:x}.")).collect::<String>() + "ip6.arpa."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names() {
        assert_eq!(reverse(IpAddr::from([10, 0, 0, 5])), "5.0.0.10.in-addr.arpa.");
        let name = reverse("fd00::1".parse().expect("address"));
        assert!(
            name.starts_with("1.0.0.0.") && name.ends_with("0.0.d.f.ip6.arpa."),
            "{name}"
        );
        assert_eq!(name.matches('.').count(), 34);
    }
}
