//! [`Synchronizer`]: makes the kernel hold what the newest snapshot says. Level-triggered: each run looks at
//! everything, whatever the reason for it.
//!
//! Order: what programs need to know of interfaces, then the programs, then the tables, then what is left over.
//! So nobody is sent to a backend whose interface cannot translate its replies yet; programs whose tables are
//! still empty pass everything.

mod follow;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use lb_common::abi::{EndpointKey, InterfaceKey, Interfaces as InterfaceTable, Settings, SettingsTable};

use super::carried;
use super::containers::Finder;
use super::surroundings::{self, Oddity};
use super::{loopback, reported};
use crate::config::Config;
use crate::datapath::attach::{Attacher, Attachment, Interfaces};
use crate::datapath::collect::Census;
use crate::datapath::probe::Features;
use crate::datapath::shed;
use crate::datapath::store::Store;
use crate::fault::{self, Point};
use crate::model::desired::{self, Desired, UnknownNode};
use crate::model::snapshot::{Service, Snapshot};
use crate::net::{Link, Netlink, Routes};
use crate::plan::store::{ReadTables, WriteTables};
use crate::plan::{self, Actual, Mirror, Plan, Resting, Reusable};
use crate::provider::docker::Local;
use follow::Removals;

/// What one synchronisation did.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Programs and where they are.
    pub(super) attachments: Vec<Attachment>,
    /// What is not served, and why.
    pub(super) odd: Vec<Oddity>,
    /// What went wrong, if something did: some services may be as they were before.
    pub(super) problems: Vec<String>,
    /// Whether the tables hold all that was desired.
    pub(super) complete: bool,
    /// Writes done.
    pub(super) writes: usize,
    /// Time for compiling, for reading and comparing, and for writing.
    pub(super) phases: [Duration; 3],
    /// From what that was made which is in force.
    pub(super) basis: Arc<Basis>,
    /// All tables were read and compared, which takes memory for a moment.
    pub(super) whole: bool,
}

/// From what [`Desired`] is made. It is large, and nobody needs it between two synchronisations.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Basis {
    snapshot: Arc<Snapshot>,
    node: String,
    known: Arc<desired::Interfaces>,
}

impl Basis {
    /// What the tables should hold.
    ///
    /// # Errors
    /// If the snapshot does not know the node.
    pub(super) fn desired(&self) -> Result<Desired, UnknownNode> {
        Desired::compile(&self.snapshot, &self.node, &self.known)
    }

    /// The same of these services alone.
    fn part(&self, services: &[Arc<Service>]) -> Result<Desired, UnknownNode> {
        let Snapshot {
            generation,
            nodes,
            networks,
            ..
        } = &*self.snapshot;
        let part = Snapshot {
            generation: *generation,
            nodes: nodes.clone(),
            networks: networks.clone(),
            services: services.iter().cloned().collect(),
        };
        Desired::compile(&part, &self.node, &self.known)
    }
}

/// Holds everything that changes the kernel's state.
pub(super) struct Synchronizer {
    pub(super) config: Arc<Config>,
    pub(super) features: Features,
    pub(super) attacher: Attacher,
    pub(super) store: Store,
    pub(super) netlink: Netlink,
    /// Finds this node's containers, where a container engine has them.
    pub(super) finder: Option<Finder>,
    /// Something of the last snapshot is held back until the surroundings are ready for it.
    pub(super) waiting: bool,
    /// Numbers that may be given again, and some that may not, as the newest walk over the flows has it.
    reusable: Reusable,
    /// Programs of another version forward by tables of their own: ours are filled before they take over.
    pub(super) fill_first: bool,
    /// Backends that datagrams of a service have left, although another one still uses them.
    shed: BTreeSet<(u64, EndpointKey)>,
    /// Backends without a slot in their service, which was so after the last synchronisation. `None`: it was not complete, or
    /// there was none; what left services meanwhile is found in the flows.
    resting: Option<Resting>,
    /// What the last complete synchronisation was made from: a change of neighbours that changes none of it
    /// needs no reading of the tables.
    last: Option<Last>,
    /// How this node reaches its own backends, as long as nothing is known to have changed.
    routes: Routes,
}

/// The last complete synchronisation.
struct Last {
    inputs: Inputs,
    interfaces: Interfaces,
    attachments: Vec<Attachment>,
    odd: Vec<Oddity>,
    /// What the tables hold since, if a part of it can be planned alone.
    mirror: Option<Mirror>,
    /// What is to be removed when the tables have settled; everything else is in force.
    removals: Removals,
}

#[derive(PartialEq)]
struct Inputs {
    basis: Arc<Basis>,
    links: Vec<Link>,
    rows: std::collections::BTreeMap<InterfaceKey, lb_common::abi::Interface>,
    settings: Settings,
}

/// What the kernel shall hold the consequences of.
#[derive(Clone, Copy)]
pub(super) struct Cluster<'a> {
    /// Name of this node.
    pub(super) node: &'a str,
    /// The cluster.
    pub(super) snapshot: &'a Arc<Snapshot>,
    /// This node's containers, where a container engine has them.
    pub(super) local: &'a Local,
}

/// How thorough a synchronisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The snapshot is new; of the surroundings no change is known.
    Snapshot,
    /// Nothing is done if neither snapshot nor surroundings have changed.
    Changes,
    /// The tables are read and compared in any case.
    Full,
}

impl Synchronizer {
    pub(super) fn new(
        config: Arc<Config>,
        features: Features,
        attacher: Attacher,
        store: Store,
        netlink: Netlink,
        finder: Option<Finder>,
    ) -> Self {
        Self {
            config,
            features,
            attacher,
            store,
            netlink,
            finder,
            waiting: false,
            reusable: Reusable::default(),
            fill_first: false,
            shed: BTreeSet::new(),
            resting: None,
            last: None,
            routes: Routes::default(),
        }
    }

    /// Takes note of what a walk over the flows has found.
    pub(super) fn counted(&mut self, census: Census) {
        if let Some(began) = census.began {
            self.reusable.seen(began, &census.services);
        }
        self.reusable.backends = census.unused;
    }

    /// Makes the kernel hold what `snapshot` says. `None`: nothing has changed.
    ///
    /// # Errors
    /// If nothing could be done. Failures of parts are in [`Outcome::problems`].
    pub(super) async fn run(&mut self, cluster: &Cluster<'_>, depth: Depth) -> Result<Option<Outcome>> {
        let Cluster { node, snapshot, local } = *cluster;
        if depth == Depth::Snapshot
            && let Some(outcome) = self.follow(cluster).await?
        {
            return Ok(Some(outcome));
        }
        self.routes.clear();
        let links = self.netlink.links().await?;
        let addresses = self.netlink.addresses().await?;
        let (mut interfaces, mut odd) = surroundings::choose(&self.config, node, snapshot, &links, &addresses);
        if interfaces.host.is_some()
            && let Err(error) = loopback::prepare(&self.config.paths.run)
        {
            interfaces.host = None;
            odd.push(Oddity::new(
                "",
                format!("the node's own processes are not answered on published ports: {error:#}"),
            ));
        }
        let bridge = self.gateway_bridge(&links).await?;
        let (masquerade, unfit) =
            surroundings::Masquerade::new(&self.config, surroundings::own_addresses(node, snapshot), bridge);
        odd.extend(unfit);
        let backends = surroundings::local_backends(node, &snapshot.networks, &snapshot.services);
        let addresses = backends.iter().map(|(ip, _)| *ip);
        let places = self.netlink.places(&links, addresses, &mut self.routes).await?.places;
        let (mut known, unserved) = surroundings::backend_interfaces(&places, &backends, &interfaces, &links);
        odd.extend(unserved);
        // What the other nodes' agents have is in the snapshot itself: it changes when they have more.
        let served = match reported::hold(snapshot, node).map(Arc::new) {
            Some(rest) => {
                odd.extend(reported::held(snapshot, &rest).into_iter().map(|(node, count)| {
                    let reason =
                        format!("{count} backends on {node} wait until its agent has them; does it run there?");
                    Oddity::new("", reason)
                }));
                rest
            }
            None => Arc::clone(snapshot),
        };
        let mut held = None;
        if let Some(finder) = &mut self.finder {
            let ports = interfaces.workloads.iter().filter(|w| w.network.is_empty());
            let ports = ports.map(|w| w.link.ifindex).collect();
            let found = finder.find(local, &ports).await;
            // A network that the snapshot does not have yet is attached with it.
            let there = |name: &str| snapshot.networks.iter().any(|n| n.name == name);
            interfaces
                .workloads
                .extend(found.workloads.into_iter().filter(|w| there(&w.network)));
            known.extend(found.reach);
            held = carried::hold(&served, node, &found.carried).map(Arc::new);
            odd.extend(found.problems.into_iter().map(|problem| Oddity::new("", problem)));
        }
        self.waiting = held.is_some();
        let inputs = Inputs {
            basis: Arc::new(Basis {
                snapshot: held.unwrap_or(served),
                node: node.to_owned(),
                known: Arc::new(known),
            }),
            links,
            rows: surroundings::interface_rows(&interfaces, snapshot),
            settings: surroundings::settings(&self.config, &interfaces, self.features, &masquerade),
        };
        if depth == Depth::Changes && self.last.as_ref().is_some_and(|last| last.inputs == inputs) {
            return Ok(None);
        }
        self.last = None;
        let (outcome, mirror) = tokio::task::block_in_place(|| self.write(&inputs, &interfaces, odd))?;
        if outcome.problems.is_empty() {
            self.last = Some(Last {
                inputs,
                interfaces,
                attachments: outcome.attachments.clone(),
                odd: outcome.odd.clone(),
                mirror,
                removals: Removals::default(),
            });
        }
        Ok(Some(outcome))
    }

    /// The subnet of the bridge over which workloads reach the outside.
    async fn gateway_bridge(&self, links: &[Link]) -> Result<Option<Ipv4Net>> {
        match surroundings::gateway_bridge(&self.config, links) {
            Some(link) => Ok(self.netlink.subnet(link.ifindex).await?),
            None => Ok(None),
        }
    }

    fn write(
        &mut self,
        inputs: &Inputs,
        interfaces: &Interfaces,
        odd: Vec<Oddity>,
    ) -> Result<(Outcome, Option<Mirror>)> {
        let mut outcome = Outcome {
            odd,
            basis: Arc::clone(&inputs.basis),
            whole: true,
            ..Outcome::default()
        };
        let start = Instant::now();
        let desired = inputs.basis.desired()?;
        for refusal in &desired.refused {
            outcome.odd.push(Oddity::new(&refusal.object, &refusal.reason));
        }
        outcome.phases[0] = start.elapsed();
        fault::here(Point::SyncBegun);

        if self.store.get::<SettingsTable>(&0)? != Some(inputs.settings) {
            self.store.set::<SettingsTable>(&0, &inputs.settings)?;
            outcome.writes += 1;
        }
        fault::here(Point::SyncSettings);
        let present = self.store.entries::<InterfaceTable>()?;
        for (interface, row) in &inputs.rows {
            if present.get(interface) != Some(row) {
                self.store.set::<InterfaceTable>(interface, row)?;
                outcome.writes += 1;
            }
        }
        fault::here(Point::SyncInterfaces);

        let mut mirror = None;
        if self.fill_first {
            mirror = self.fill(desired.clone(), &mut outcome)?;
        }
        self.attach(interfaces, &mut outcome);
        if !std::mem::take(&mut self.fill_first) {
            mirror = self.fill(desired, &mut outcome)?;
        }

        for interface in present.keys().filter(|i| !inputs.rows.contains_key(i)) {
            self.store.delete::<InterfaceTable>(interface)?;
            outcome.writes += 1;
        }
        Ok((outcome, mirror))
    }

    /// The programs.
    fn attach(&mut self, interfaces: &Interfaces, outcome: &mut Outcome) {
        outcome.attachments = self.attacher.reconcile(&interfaces.wanted());
        for attachment in &outcome.attachments {
            if let Some(error) = &attachment.error {
                outcome.problems.push(format!(
                    "cannot attach {} to {}: {error}",
                    attachment.hook, attachment.interface
                ));
            }
        }
        fault::here(Point::SyncAttached);
    }

    /// The tables. Returns what they hold then, if parts of it can be planned alone.
    fn fill(&mut self, desired: Desired, outcome: &mut Outcome) -> Result<Option<Mirror>> {
        let start = Instant::now();
        let mut actual = Actual::read(&self.store).context("cannot read the tables")?;
        let resting = self.resting.take();
        if resting.is_none() {
            // Nobody has seen which services went before.
            let named = shed::named(&self.store).context("cannot read the flows")?;
            let now = Instant::now();
            for service in named.into_iter().filter(|id| !actual.services.contains_key(id)) {
                self.reusable.retired.entry(service).or_insert(now);
            }
        }
        actual.reusable = self.reusable.clone();
        let plan = if explained() { plan::diff } else { plan::writes }(&desired, &actual);
        let left = plan::left(&desired, &actual, resting.as_ref().unwrap_or(&Resting::new()));
        outcome.phases[1] = start.elapsed();
        fault::here(Point::SyncPlanned);

        let start = Instant::now();
        let mut ended = Ok(0);
        let report = plan::apply_with(&plan, &mut self.store, |store| {
            let strays = resting.is_none().then(|| plan::Strays::new(&desired, &actual));
            if strays.is_some() || !left.is_empty() {
                ended = shed::shed(store, |flow| {
                    left.contains(&(flow.service, flow.backend)) || strays.is_some_and(|strays| strays.has(flow))
                });
            }
        });
        // Of what failed nothing is lost by this either.
        let now = Instant::now();
        plan.ops.iter().for_each(|op| self.reusable.note(op, now));
        let ended = ended?;
        if ended > 0 {
            tracing::info!(target: "lb::sync", flows = ended, "flows leave backends that other services still use");
        }
        self.resting = report.is_complete().then(|| plan::resting(&desired).collect());
        let Desired { separate, drained, .. } = desired;
        outcome.phases[2] = start.elapsed();
        fault::here(Point::SyncApplied);
        outcome.writes += report.done;
        outcome.complete = report.is_complete() && plan.problems.is_empty();
        outcome.problems.extend(plan.problems.iter().cloned());
        if !report.is_complete() {
            outcome.problems.push(report.to_string());
        } else if self.shed != drained {
            let leave = shed::drained(&self.store, &drained)?;
            let mut moved = 0;
            if !leave.is_empty() {
                // A program that has read the old slots may be writing its flow down.
                self.store.settle();
                moved = shed::shed(&self.store, |flow| leave.contains(&(flow.service, flow.backend)))?;
            }
            if moved > 0 {
                tracing::info!(target: "lb::sync", flows = moved, "UDP flows leave what drains in their service alone");
            }
            self.shed = drained;
        }
        say(&plan);
        Ok((separate && outcome.complete).then(|| {
            plan.ops.iter().for_each(|op| actual.note(op));
            Mirror::new(actual)
        }))
    }
}

/// Whether anybody wants to know what changes.
fn explained() -> bool {
    tracing::enabled!(target: "lb::sync", tracing::Level::DEBUG)
}

fn say(plan: &Plan) {
    for change in &plan.changes {
        tracing::debug!(target: "lb::sync", action = ?change.action, object = change.object, name = %change.name,
            detail = %change.detail, "change");
    }
}
