//! [`Actual`]: what the tables of this node hold now, read back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use lb_common::abi::{
    self, Addresses, BACKEND_GONE, Backends, EndpointKey, Flows4, Flows6, Frontend, Frontends, LocalBackends,
    NodeAddress, Nodes, Overflow4, Overflow6, Services, SlotKey, Slots, SourceKey, Sources, Vip, VipKey, Vips,
};
use lb_common::address::Address;

use super::store::{ReadTables, StoreError};
use super::{Action, Op, Row};

/// Longer than a program is on its way that has found a service just before it went.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    /// `nodes`, also those that are no longer there.
    pub nodes: BTreeMap<u32, abi::Node>,
    /// `addresses`.
    pub addresses: BTreeMap<Address, NodeAddress>,
    /// `backends`, also those that are gone.
    pub backends: BTreeMap<u32, abi::Backend>,
    /// `local_backends`.
    pub local_backends: BTreeMap<EndpointKey, u32>,
    /// `slots`, of every generation.
    pub slots: BTreeMap<SlotKey, u32>,
    /// `services`.
    pub services: BTreeMap<u32, abi::Service>,
    /// `frontends`.
    pub frontends: BTreeMap<EndpointKey, Frontend>,
    /// `vips`.
    pub vips: BTreeMap<VipKey, Vip>,
    /// `sources`.
    pub sources: BTreeMap<SourceKey, u32>,
    /// Which numbers may be used again. Of elements of `backends` none is safe, and enough until every element of the table
    /// has been used once.
    pub reusable: Reusable,
    /// Of a part of the tables: numbers up to these are used in the rest of them. Zero: this is all there is.
    pub elsewhere: Elsewhere,
}

/// The highest numbers in use, in whatever part of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Key of `services`.
    pub services: u32,
    /// Element of `backends`.
    pub backends: u32,
}

impl Actual {
    /// Reads the tables. [`Actual::reusable`] stays empty.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn read(tables: &impl ReadTables) -> Result<Self, StoreError> {
        Ok(Self {
            nodes: tables.entries::<Nodes>()?,
            addresses: tables.entries::<Addresses>()?,
            backends: tables.entries::<Backends>()?,
            local_backends: tables.entries::<LocalBackends>()?,
            slots: tables.entries::<Slots>()?,
            services: tables.entries::<Services>()?,
            frontends: tables.entries::<Frontends>()?,
            vips: tables.entries::<Vips>()?,
            sources: tables.entries::<Sources>()?,
            reusable: Reusable::default(),
            elsewhere: Elsewhere::default(),
        })
    }

    /// Takes note of a write that has been done.
    pub fn note(&mut self, op: &Op) {
        let remove = op.action == Action::Remove;
        match op.row {
            Row::Node(id, value) => drop(self.nodes.insert(id, value)),
            Row::Backend(id, value) => drop(self.backends.insert(id, value)),
            Row::Address(key, value) => put(&mut self.addresses, key, value, remove),
            Row::LocalBackend(key, value) => put(&mut self.local_backends, key, value, remove),
            Row::Slot(key, value) => put(&mut self.slots, key, value, remove),
            Row::Service(id, value) => put(&mut self.services, id, value, remove),
            Row::Frontend(key, value) => put(&mut self.frontends, key, value, remove),
            Row::Vip(key, value) => put(&mut self.vips, key, value, remove),
            Row::Source(key, value) => put(&mut self.sources, key, value, remove),
        }
    }
}

fn put<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, value: V, remove: bool) {
    if remove {
        table.remove(&key);
    } else {
        table.insert(key, value);
    }
}

/// What flows say of numbers that stand for nothing any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reusable {
    /// Elements of `backends` that are gone and that no flow refers to, with the generation that was seen: one used again since
    /// then is not meant.
    pub backends: BTreeMap<u32, u32>,
    /// Numbers of services that have gone, and when: flows may still name them. Another service gets one of these only when
    /// there is no other left, because what is done with a service's flows would be done with those too.
    pub retired: BTreeMap<u32, Instant>,
}

impl Reusable {
    /// Looks for them. Reads every flow: for the agent's collection of old flows, not for each change.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn collect(tables: &impl ReadTables) -> Result<Self, StoreError> {
        // In this order: an element that is gone before the flows are read gets no new flow while they are.
        let mut backends: BTreeMap<u32, u32> = tables
            .entries::<Backends>()?
            .into_iter()
            .filter(|(_, b)| b.state == BACKEND_GONE)
            .map(|(id, b)| (id, b.generation))
            .collect();
        let mut referred = BTreeSet::new();
        // These first: a flow may move from there to a flow table meanwhile.
        referred.extend(tables.entries::<Overflow4>()?.values().map(|flow| flow.backend));
        referred.extend(tables.entries::<Overflow6>()?.values().map(|flow| flow.backend));
        referred.extend(tables.entries::<Flows4>()?.values().map(|flow| flow.backend));
        referred.extend(tables.entries::<Flows6>()?.values().map(|flow| flow.backend));
        backends.retain(|id, _| !referred.contains(id));
        Ok(Self {
            backends,
            ..Self::default()
        })
    }

    /// Takes note of an op that has been done at `now`.
    pub fn note(&mut self, op: &Op, now: Instant) {
        let Row::Service(id, _) = op.row else { return };
        if op.action == Action::Remove {
            self.retired.insert(id, now);
        } else {
            self.retired.remove(&id);
        }
    }

    /// Takes note of a look at all flows, which began at `began` and found those that name `services`.
    pub fn seen(&mut self, began: Instant, services: &HashSet<u32>) {
        self.retired
            .retain(|id, since| *since + UNDER_WAY >= began || services.contains(id));
    }
}

/// The key by which a backend's element is known again.
pub(crate) fn key_of(backend: &abi::Backend) -> EndpointKey {
    EndpointKey {
        address: backend.address,
        network: backend.network,
        port: backend.port,
        protocol: backend.protocol,
        family: if backend.address.is_v4() { 4 } else { 6 },
    }
}

/// The rows of `slots` by service.
pub(super) struct SlotIndex {
    rows: Vec<(SlotKey, u32)>,
    services: BTreeMap<u32, Range<usize>>,
}

impl SlotIndex {
    pub(super) fn of(actual: &Actual) -> Self {
        let rows: Vec<_> = actual.slots.iter().map(|(key, id)| (*key, *id)).collect();
        let mut services = BTreeMap::new();
        let mut start = 0;
        for end in 1..=rows.len() {
            if end == rows.len() || rows[end].0.service != rows[start].0.service {
                services.insert(rows[start].0.service, start..end);
                start = end;
            }
        }
        Self { rows, services }
    }

    /// Services with slots, and all of those.
    pub(super) fn services(&self) -> impl Iterator<Item = (u32, &[(SlotKey, u32)])> {
        self.services
            .iter()
            .map(|(service, range)| (*service, &self.rows[range.clone()]))
    }

    /// Slots of one generation of a service, in their order.
    pub(super) fn generation(&self, service: u32, generation: u32) -> &[(SlotKey, u32)] {
        let rows = self
            .services
            .get(&service)
            .map_or(&[][..], |range| &self.rows[range.clone()]);
        let start = rows.partition_point(|(key, _)| key.generation < generation);
        let end = start + rows[start..].partition_point(|(key, _)| key.generation == generation);
        &rows[start..end]
    }

    /// A generation of which no slot is there, `generation` or one after it.
    pub(super) fn free_generation(&self, service: u32, mut generation: u32) -> u32 {
        while !self.generation(service, generation).is_empty() {
            generation = generation.wrapping_add(1);
        }
        generation
    }
}
