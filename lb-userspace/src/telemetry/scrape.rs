//! One reading of everything that metrics show, and its encoding.

use std::fmt::Error;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use lb_common::abi::SCHEMA_VERSION;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;

use super::metrics::{self as m, DnsCounts, Eviction, Family, Kind, Metrics, Outcome, Phase, Reading};
use super::process::Process;
use crate::admin::{State, api, report};

/// What was read.
#[derive(Debug)]
pub(super) struct Scrape {
    metrics: Arc<Metrics>,
    status: api::Status,
    services: Vec<api::Service>,
    dns: Option<DnsCounts>,
    process: Process,
}

impl Scrape {
    pub(super) fn read(metrics: Arc<Metrics>, state: &State) -> Result<Self, api::Error> {
        let status = state.status.borrow().clone();
        let snapshot = state.snapshot.borrow().clone();
        let mut status = report::status(&*state.view, Some(&snapshot), status)?.items;
        let services = report::service_traffic(&*state.view, &snapshot)?;
        let dns = metrics.dns.as_ref().map(|read| read());
        let status = status.pop().unwrap_or_default();
        Ok(Self {
            metrics,
            status,
            services,
            dns,
            process: Process::read(),
        })
    }

    /// Network and name of a service.
    fn labels(service: &api::Service) -> [String; 2] {
        [
            service.network.clone().unwrap_or_default(),
            service.name.clone().unwrap_or_default(),
        ]
    }

    fn traffic(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let traffic = &self.status.traffic;
        let labels = |t: &api::Traffic| vec![t.verdict.clone(), t.reason.clone()];
        page.counters(&m::PACKETS, traffic.iter().map(|t| (labels(t), t.packets)))?;
        page.counters(&m::BYTES, traffic.iter().map(|t| (labels(t), t.bytes)))?;
        let drops = traffic.iter().filter(|t| t.verdict == "drop");
        page.counters(&m::DROPS, drops.map(|t| (vec![t.reason.clone()], t.packets)))?;

        let services = &self.services;
        let with = |service, more: &str| {
            let [network, name] = Self::labels(service);
            vec![network, name, more.into()]
        };
        page.counters(
            &m::SERVICE_FLOWS,
            services
                .iter()
                .map(|s| (Self::labels(s).to_vec(), s.traffic.flows_total)),
        )?;
        page.counters(
            &m::SERVICE_PACKETS,
            services.iter().flat_map(|s| {
                let t = &s.traffic;
                [
                    (with(s, "backend"), t.packets_total),
                    (with(s, "client"), t.reply_packets_total),
                ]
            }),
        )?;
        page.counters(
            &m::SERVICE_BYTES,
            services.iter().flat_map(|s| {
                [
                    (with(s, "backend"), s.traffic.bytes_total),
                    (with(s, "client"), s.traffic.reply_bytes_total),
                ]
            }),
        )?;
        page.gauges(
            &m::SERVICE_BACKENDS,
            services.iter().flat_map(|s| {
                let states = [("ready", s.backends.ready), ("draining", s.backends.draining)];
                states.map(|(state, n)| (with(s, state), f64::from(n)))
            }),
        )
    }

    fn datapath(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let maps = &self.status.maps;
        page.gauges(
            &m::MAP_ENTRIES,
            maps.iter().map(|map| (vec![map.name.clone()], map.entries as f64)),
        )?;
        page.gauges(
            &m::MAP_MAX_ENTRIES,
            maps.iter()
                .map(|map| (vec![map.name.clone()], f64::from(map.max_entries))),
        )?;
        page.gauges(
            &m::MAP_MEMORY,
            maps.iter().map(|map| (vec![map.name.clone()], map.memory_bytes as f64)),
        )?;
        page.closed(&m::FLOW_EVICTIONS, &[], Eviction::LABELS, &self.metrics.evictions)?;
        page.gauge(&m::FLOW_PRESSURE, f64::from(u8::from(self.status.pressed)))?;
        page.gauges(
            &m::ATTACH_INFO,
            self.status.datapath.interfaces.iter().flat_map(|interface| {
                let hooks = interface.hooks.iter();
                hooks.map(|h| (vec![interface.name.clone(), h.hook.clone(), h.mode.clone()], 1.0))
            }),
        )?;
        page.gauge(&m::REFUSED_NETWORKS, self.status.refused.len() as f64)
    }

    fn sync(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let provider = self.status.provider.clone().unwrap_or_default();
        let connected = (vec![provider.kind.clone()], f64::from(u8::from(provider.connected)));
        page.gauges(&m::PROVIDER_CONNECTED, [connected])?;
        page.closed(
            &m::PROVIDER_EVENTS,
            &[&provider.kind],
            Reading::LABELS,
            &self.metrics.readings,
        )?;
        page.gauge(&m::DESIRED_GENERATION, provider.generation as f64)?;
        page.gauge(&m::APPLIED_GENERATION, provider.applied as f64)?;
        page.closed(&m::SYNC, &[], Outcome::LABELS, &self.metrics.sync)?;
        let mut family = page.family(&m::SYNC_DURATION)?;
        for (phase, histogram) in Phase::LABELS.iter().zip(&self.metrics.phases) {
            histogram.encode(family.encode_family(&[("phase", *phase)])?)?;
        }
        let last = provider.last_sync.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        page.gauge(&m::SYNC_LAST_SUCCESS, last.map_or(0.0, |t| t.as_secs_f64()))?;
        self.metrics.propagation.encode(page.family(&m::PROPAGATION)?)
    }

    fn dns(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let Some(dns) = &self.dns else { return Ok(()) };
        let answers = dns.answers.iter();
        page.counters(
            &m::DNS_QUERIES,
            answers.map(|(s, q, r, n)| (vec![(*s).into(), (*q).into(), (*r).into()], *n)),
        )?;
        let mut family = page.family(&m::DNS_DURATION)?;
        for latency in &dns.latency {
            let labels = [("source", latency.source)];
            let mut series = family.encode_family(&labels)?;
            series.encode_histogram::<NoLabelSet>(latency.sum, latency.count, &latency.buckets, None)?;
        }
        let exceptions = m::DNS_EXCEPTIONS_KINDS.iter().zip(dns.exceptions);
        page.counters(
            &m::DNS_EXCEPTIONS,
            exceptions.map(|(kind, n)| (vec![(*kind).into()], n)),
        )
    }

    fn process(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let process = &self.process;
        page.family(&m::PROCESS_CPU)?
            .encode_counter::<NoLabelSet, _, u64>(&process.cpu_seconds, None)?;
        page.gauge(&m::PROCESS_RESIDENT, process.resident_memory as f64)?;
        page.gauge(&m::PROCESS_VIRTUAL, process.virtual_memory as f64)?;
        page.gauge(&m::PROCESS_OPEN_FDS, process.open_fds as f64)?;
        page.gauge(&m::PROCESS_MAX_FDS, process.max_fds as f64)?;
        page.gauge(&m::PROCESS_THREADS, process.threads as f64)?;
        page.gauge(&m::PROCESS_START, process.start_time)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let page = &mut Page(encoder);
        let build = [
            env!("CARGO_PKG_VERSION"),
            option_env!("LB_REVISION").unwrap_or("unknown"),
        ];
        let mut labels: Vec<String> = build.iter().map(ToString::to_string).collect();
        labels.push(SCHEMA_VERSION.to_string());
        page.gauges(&m::BUILD_INFO, [(labels, 1.0)])?;
        page.gauge(&m::READY, f64::from(u8::from(self.status.ready)))?;
        self.traffic(page)?;
        self.datapath(page)?;
        self.sync(page)?;
        self.dns(page)?;
        self.process(page)
    }
}

/// The page being written: each family with the description that [`m::FAMILIES`] holds.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn family(&mut self, family: &Family) -> Result<MetricEncoder<'_>, Error> {
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        self.0.encode_descriptor(family.name, family.help, None, kind)
    }

    fn counters(&mut self, family: &Family, series: impl IntoIterator<Item = (Vec<String>, u64)>) -> Result<(), Error> {
        let mut encoder = self.family(family)?;
        for (values, count) in series {
            let labels: Vec<_> = family.labels.iter().copied().zip(values).collect();
            encoder
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn gauges(&mut self, family: &Family, series: impl IntoIterator<Item = (Vec<String>, f64)>) -> Result<(), Error> {
        let mut encoder = self.family(family)?;
        for (values, value) in series {
            let labels: Vec<_> = family.labels.iter().copied().zip(values).collect();
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, family: &Family, value: f64) -> Result<(), Error> {
        self.family(family)?.encode_gauge(&value)
    }

    /// Counters of a closed set, whose label is the last one.
    fn closed(&mut self, family: &Family, before: &[&str], set: &[&str], counters: &[Counter]) -> Result<(), Error> {
        let series = set.iter().zip(counters).map(|(label, counter)| {
            (
                before.iter().chain([label]).map(ToString::to_string).collect(),
                counter.get(),
            )
        });
        self.counters(family, series)
    }
}
