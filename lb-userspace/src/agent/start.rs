//! Starts the parts of the agent, those first that may refuse for a wrong configuration.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::containers::Finder;
use super::lead::Lead;
use super::sync::{Basis, Synchronizer};
use super::{Agent, COLLECT, Names, names, removal, status, swarm};
use crate::admin::{self, api};
use crate::config::{Config, ProviderKind};
use crate::datapath::attach::Attacher;
use crate::datapath::collect::{self, Census, Collector};
use crate::datapath::probe::Features;
use crate::datapath::store::{Access, Store};
use crate::datapath::view::View;
use crate::datapath::{self, load, marks};
use crate::fault::{self, Point};
use crate::lifecycle::Notifier;
use crate::model::desired::UnknownNode;
use crate::net::{self, Netlink};
use crate::plan::store::StoreError;
use crate::plan::{self, Actual};
use crate::provider;
use crate::telemetry::metrics::Metrics;

impl Agent {
    pub(super) async fn start(config: Arc<Config>, stop: CancellationToken) -> Result<Self> {
        // Everything that can be refused for a wrong configuration comes before anything is changed.
        let socket = admin::Socket::bind(
            &config.admin.socket,
            config.admin.mode.0,
            Some(config.admin.group.as_str()).filter(|group| !group.is_empty()),
        )
        .await
        .context("cannot serve the admin API")?;
        let mut listeners = Vec::new();
        for address in &config.metrics.listen {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.with_context(|| format!("cannot listen for metrics on {address}"))?);
        }
        fault::here(Point::StartListening);
        let netlink = Netlink::connect()?;
        let changed = net::watch()?;

        let started = Instant::now();
        let wanted = load::Capacity {
            flows: config.datapath.flows,
            overflow: config.datapath.overflow,
        };
        let loaded = tokio::task::block_in_place(|| load::load(datapath::object(), &config.paths.bpffs, wanted))?;
        if let Some(mount_point) = &loaded.mounted {
            removal::remember_mount(&config.paths.run, mount_point)?;
        }
        fault::here(Point::StartLoaded);
        let features = Features::probe();
        tracing::info!(target: "lb::datapath", directory = %loaded.directory.display(), adopted = loaded.adopted,
            tcx = features.tcx, milliseconds = started.elapsed().as_millis() as u64, "programs loaded");
        for (name, configured, in_force) in [
            ("datapath.flows", wanted.flows, loaded.capacity.flows),
            ("datapath.overflow", wanted.overflow, loaded.capacity.overflow),
        ] {
            if configured != in_force {
                tracing::warn!(target: "lb::datapath", name, configured, in_force,
                    "the setting takes effect after `lb-agent uninstall`");
            }
        }
        let carried = loaded.carried;
        if carried.loses_flows() {
            tracing::warn!(target: "lb::datapath", tables = carried.empty.join(", "),
                "these tables have another layout than those in force, and flows with them: connections end");
        } else if !carried.directories.is_empty() {
            tracing::info!(target: "lb::datapath", begin_empty = carried.empty.join(", "),
                "tables of another version go on in this one");
        }
        let directory = loaded.directory;
        let mut store = Store::open(&directory, Access::Write)?;
        marks::complete(&mut store, !carried.directories.is_empty())?;
        let view = Arc::new(View::open(&directory)?);
        let (collector, census) = start_collector(Store::open(&directory, Access::Write)?)?;
        let others = carried.directories.clone();
        let attacher = Attacher::new(loaded.ebpf, directory, features.tcx, others);

        let names = Names {
            zone: Arc::default(),
            counters: Arc::default(),
            server: None,
        };
        let counts = config.dns.enabled.then(|| names::counts(Arc::clone(&names.counters)));
        let basis = Arc::new(ArcSwapOption::<Basis>::empty());
        let (provider, swarm) = match config.provider.kind {
            ProviderKind::File => {
                let file = provider::file::start(&config.provider.path, config.datapath.tunnel_port);
                (file.context("cannot watch the cluster state")?, None)
            }
            ProviderKind::Docker => {
                let swarm = swarm::start(&config, &stop)?;
                (swarm.state.clone(), Some(swarm))
            }
        };
        let finder = swarm.is_some().then(|| Finder::new(&config.provider.exec_root));
        let mut synchronizer = Synchronizer::new(Arc::clone(&config), features, attacher, store, netlink, finder);
        synchronizer.fill_first = carried.fill_first;
        let agent = Self {
            provider,
            swarm,
            changed,
            synchronizer,
            census,
            collector,
            snapshot: watch::Sender::new(Arc::default()),
            status: watch::Sender::new(status::initial(&config)),
            metrics: Arc::new(Metrics::new(counts)),
            notifier: Notifier::default(),
            pressed: false,
            problems: Vec::new(),
            tasks: TaskTracker::new(),
            lead: Lead::new(config.node.name.clone()),
            node: config.node.name.as_str().into(),
            names,
            basis,
            config,
            stop,
        };
        agent.serve(socket, listeners, view);
        fault::here(Point::StartServing);
        Ok(agent)
    }

    /// Starts the readers' side.
    fn serve(&self, socket: admin::Socket, listeners: Vec<TcpListener>, view: Arc<View>) {
        let ttl = u32::try_from(self.config.dns.ttl.as_secs()).unwrap_or(u32::MAX);
        let state = admin::State {
            status: self.status.subscribe(),
            snapshot: self.snapshot.subscribe(),
            plan: plan_reader(Arc::clone(&self.basis), Arc::clone(&view)),
            view,
            dns: names::reader(Arc::clone(&self.names.zone), ttl),
            metrics: Arc::clone(&self.metrics),
        };
        self.tasks
            .spawn(report("admin", admin::serve(socket, state.clone(), self.stop.clone())));
        for listener in listeners {
            self.tasks.spawn(report(
                "metrics",
                admin::serve_metrics(listener, state.clone(), self.stop.clone()),
            ));
        }
    }
}

/// Walks through the flows on a thread of its own, until the sender that is returned is dropped.
#[allow(clippy::type_complexity, reason = "two ends of two channels")]
fn start_collector(store: Store) -> Result<(std::sync::mpsc::Sender<()>, mpsc::Receiver<Result<Census, StoreError>>)> {
    let (ask, asked) = std::sync::mpsc::channel();
    let (publish, census) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("lb-collect".into())
        .spawn(move || {
            collect::run(Collector::new(store), COLLECT, &asked, |result| {
                let _ = publish.blocking_send(result);
            });
        })
        .context("cannot start a thread")?;
    Ok((ask, census))
}

/// What differs between the tables and what is desired, computed when somebody asks.
fn plan_reader(basis: Arc<ArcSwapOption<Basis>>, view: Arc<View>) -> admin::PlanReader {
    Arc::new(move || {
        let Some(basis) = basis.load_full() else {
            let error = api::Error::new(api::Code::Unavailable, "there is no valid cluster state yet");
            return Err(error.hint("`lbctl status` says what is wrong with it"));
        };
        let unknown = |e: UnknownNode| api::Error::new(api::Code::Unavailable, e.to_string());
        let plan = plan::diff(&basis.desired().map_err(unknown)?, &Actual::read(&*view)?);
        Ok(api::Plan {
            steps: plan.ops.len() as u64,
            text: plan.to_string(),
            plan: serde_json::to_value(&plan).unwrap_or_default(),
        })
    })
}

async fn report<E: std::fmt::Display>(name: &'static str, server: impl Future<Output = Result<(), E>>) {
    if let Err(error) = server.await {
        tracing::error!(target: "lb::agent", name, %error, "a listener has ended");
    }
}
