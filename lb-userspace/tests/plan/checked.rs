//! Tables in memory that look every frontend up after each write.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lb_common::abi::{
    self, BACKEND_DRAINING, BACKEND_READY, EndpointKey, Marks, NETWORK_NODE, SlotKey, Table, port_mark,
};
use lb_userspace::model::desired::Desired;
use lb_userspace::plan::store::{ReadTables, StoreError, WriteTables};
use lb_userspace::plan::{Actual, MemoryTables, apply, diff};

pub(crate) fn key_of(b: &abi::Backend) -> EndpointKey {
    let family = if b.address.is_v4() { 4 } else { 6 };
    EndpointKey {
        address: b.address,
        network: b.network,
        port: b.port,
        protocol: b.protocol,
        family,
    }
}

/// What a frontend's lookup leads to: the backends of its slots, in their order.
pub(crate) fn lookup(actual: &Actual, frontend: &EndpointKey) -> Result<Vec<EndpointKey>, String> {
    let service = actual.frontends.get(frontend).ok_or("no frontend")?.service;
    let value = actual
        .services
        .get(&service)
        .ok_or_else(|| format!("no service {service}"))?;
    (0..value.count)
        .map(|index| {
            let slot = SlotKey {
                service,
                generation: value.generation,
                index,
            };
            let id = actual
                .slots
                .get(&slot)
                .ok_or_else(|| format!("no slot {slot:?} of {}", value.count))?;
            match actual.backends.get(id) {
                Some(b) if [BACKEND_READY, BACKEND_DRAINING].contains(&b.state) => Ok(key_of(b)),
                other => Err(format!("slot {slot:?} leads to {other:?}")),
            }
        })
        .collect()
}

/// Frontends that services swap among themselves: no order of writes keeps all of those.
pub(crate) fn swapped(before: &Actual, desired: &Desired) -> BTreeSet<EndpointKey> {
    let from = |key| Some(before.services.get(&before.frontends.get(key)?.service)?.identity);
    let all = desired
        .frontends
        .iter()
        .filter_map(|(key, to)| Some((*key, from(key)?, *to)));
    let moves: Vec<_> = all.filter(|(_, from, to)| from != to).collect();
    let leads_back = |(_, from, to): &&(EndpointKey, u64, u64)| {
        let mut reached = BTreeSet::from([*to]);
        for _ in &moves {
            let next: Vec<_> = moves
                .iter()
                .filter(|(_, a, _)| reached.contains(a))
                .map(|(_, _, b)| *b)
                .collect();
            reached.extend(next);
        }
        reached.contains(from)
    };
    moves.iter().filter(leads_back).map(|(key, ..)| *key).collect()
}

/// Delegates to memory, fails where told, and looks every frontend up after each write.
pub(crate) struct Checked {
    tables: MemoryTables,
    /// Frontends that must lead to either of these at any moment.
    valid: BTreeMap<EndpointKey, [Vec<EndpointKey>; 2]>,
    pub(crate) fails: Box<dyn FnMut(&'static str) -> bool>,
    /// Successful writes, as `map`; `settle` where it was called.
    pub(crate) log: Vec<&'static str>,
    /// Published ports that were ever there: flows to them may be.
    published: RefCell<BTreeSet<(u8, u16)>>,
}

impl Checked {
    pub(crate) fn new() -> Self {
        Self {
            tables: MemoryTables::default(),
            valid: BTreeMap::new(),
            fails: Box::new(|_| false),
            log: Vec::new(),
            published: RefCell::default(),
        }
    }

    pub(crate) fn actual(&self) -> Actual {
        Actual::read(&self.tables).unwrap()
    }

    /// From now on, frontends that are valid and desired give the answer of now or the desired one.
    pub(crate) fn expect(&mut self, desired: &Desired) {
        let before = self.actual();
        let mut wanted = MemoryTables::default();
        assert!(apply(&diff(desired, &Actual::default()), &mut wanted).is_complete());
        let after = Actual::read(&wanted).unwrap();
        let both = |key: &EndpointKey| Some([lookup(&before, key).ok()?, lookup(&after, key).unwrap()]);
        let swapped = swapped(&before, desired);
        let frontends = desired.frontends.keys().filter(|key| !swapped.contains(key));
        self.valid = frontends.filter_map(|key| Some((*key, both(key)?))).collect();
    }

    fn check(&self) {
        let actual = self.actual();
        let mut published = self.published.borrow_mut();
        let ports = actual.frontends.keys().filter(|key| key.network == NETWORK_NODE);
        published.extend(ports.map(|key| (key.protocol, key.port)));
        for (protocol, port) in published.iter() {
            let (element, bit) = port_mark(*protocol, *port);
            let marks = self.tables.get::<Marks>(&element).unwrap().unwrap_or_default();
            assert!(marks & bit != 0, "nobody looks for what is published on port {port}");
        }
        for (frontend, answers) in &self.valid {
            let now = lookup(&actual, frontend).unwrap_or_else(|error| panic!("{frontend:?}: {error}"));
            assert!(
                answers.contains(&now),
                "{frontend:?} leads to {now:?}, neither of {answers:?}"
            );
        }
    }

    fn attempt(&mut self, map: &'static str, operation: &'static str) -> Result<(), StoreError> {
        if (self.fails)(map) {
            return Err(StoreError {
                map,
                operation,
                source: io::Error::from_raw_os_error(7),
            });
        }
        Ok(())
    }
}

impl ReadTables for Checked {
    fn entries<T: Table>(&self) -> Result<BTreeMap<T::Key, T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.tables.entries::<T>()
    }

    fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.tables.get::<T>(key)
    }
}

impl WriteTables for Checked {
    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.attempt(T::NAME, "write")?;
        self.tables.set::<T>(key, value)?;
        self.log.push(T::NAME);
        self.check();
        Ok(())
    }

    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError>
    where
        T::Key: aya::Pod,
        T::Value: aya::Pod + Default,
    {
        self.attempt(T::NAME, "delete")?;
        self.tables.delete::<T>(key)?;
        self.log.push(T::NAME);
        self.check();
        Ok(())
    }

    fn settle(&mut self) {
        self.log.push("settle");
    }
}
