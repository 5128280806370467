//! The tables of a world, put into the kernel's maps.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use lb_common::abi::{self, Counter, Flow, FlowKey4, FlowKey6, Reply, ServiceCounter, SourceKey, Table, capacity};
use lb_common::route::{self, Kept, KeptInterface};
use lb_common::testing::tables::MemoryTables;
use lb_common::tuple::Tuple;
use lb_common::way::{self, KeptWay};

use super::{ELEMENTS, Kernel};

impl Kernel {
    /// Makes the maps hold `tables`, and nothing else.
    ///
    /// # Errors
    /// If a map refuses an entry.
    pub fn fill(&mut self, tables: &MemoryTables) -> Result<()> {
        // What the kernel said of routes in another world.
        self.zero::<[u32; words::<Kept>()]>("routes", 1 << route::PLACES_SHIFT)?;
        self.zero::<[u32; words::<KeptInterface>()]>("recent", 1 << route::PLACES_SHIFT)?;
        self.zero::<[u32; words::<KeptWay>()]>("ways", 1 << way::PLACES_SHIFT)?;
        self.refill(tables)
    }

    /// As [`Kernel::fill`], in the same world: routes and ways stay that are kept.
    ///
    /// # Errors
    /// If a map refuses an entry.
    pub fn refill(&mut self, tables: &MemoryTables) -> Result<()> {
        self.array(abi::SettingsTable::NAME, &BTreeMap::from([(0, tables.settings)]), 1)?;
        self.hash(abi::Interfaces::NAME, &tables.interfaces)?;
        self.hash(abi::Frontends::NAME, &tables.frontends)?;
        self.hash(abi::Services::NAME, &tables.services)?;
        self.hash(abi::Slots::NAME, &tables.slots)?;
        self.hash(abi::LocalBackends::NAME, &tables.local_backends)?;
        self.hash(abi::Addresses::NAME, &tables.addresses)?;
        self.hash(abi::Vips::NAME, &tables.vips)?;
        self.trie(abi::Sources::NAME, &tables.sources)?;
        self.array(abi::Backends::NAME, &tables.backends, ELEMENTS)?;
        self.array(abi::Nodes::NAME, &tables.nodes, ELEMENTS)?;
        self.array(abi::Cursors::NAME, &tables.cursors.borrow(), ELEMENTS)?;
        let (flows4, flows6) = by_family(&tables.flows());
        self.hash(abi::Flows4::NAME, &flows4)?;
        self.hash(abi::Flows6::NAME, &flows6)?;
        let (replies4, replies6) = by_family(&tables.replies());
        self.hash(abi::Replies4::NAME, &replies4)?;
        self.hash(abi::Replies6::NAME, &replies6)?;
        self.hash(abi::FRAGMENTS, &tables.fragments.borrow())?;
        let (overflow4, overflow6) = by_family(&tables.overflow());
        self.hash(abi::Overflow4::NAME, &overflow4)?;
        self.hash(abi::Overflow6::NAME, &overflow6)?;
        let (replies4, replies6) = by_family(&tables.overflow_replies());
        self.hash(abi::OverflowReplies4::NAME, &replies4)?;
        self.hash(abi::OverflowReplies6::NAME, &replies6)?;
        self.array(abi::PressureTable::NAME, &BTreeMap::from([(0, tables.pressed())]), 1)?;
        self.array(abi::PathMtus::NAME, &tables.path_mtus.borrow(), ELEMENTS)?;
        self.array(abi::Marks::NAME, &tables.marks(), capacity::MARKS)?;
        self.array(abi::Ports::NAME, &tables.ports(), capacity::PORTS)?;
        self.zero::<Counter>(abi::COUNTERS, capacity::COUNTERS)?;
        self.zero::<ServiceCounter>(abi::SERVICE_COUNTERS, ELEMENTS)
    }

    /// Removes every flow and reply.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn forget_flows(&mut self) -> Result<()> {
        self.hash::<FlowKey4, Flow>(abi::Flows4::NAME, &BTreeMap::new())?;
        self.hash::<FlowKey6, Flow>(abi::Flows6::NAME, &BTreeMap::new())?;
        self.hash::<FlowKey4, Reply>(abi::Replies4::NAME, &BTreeMap::new())?;
        self.hash::<FlowKey6, Reply>(abi::Replies6::NAME, &BTreeMap::new())
    }

    fn hash<K: Pod + Ord, V: Pod>(&mut self, name: &str, entries: &BTreeMap<K, V>) -> Result<()> {
        let mut map = HashMap::<_, K, V>::try_from(self.ebpf.map_mut(name).context(name.to_owned())?)?;
        let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
        for key in keys.iter().filter(|key| !entries.contains_key(key)) {
            map.remove(key)?;
        }
        for (key, value) in entries {
            map.insert(key, value, 0)?;
        }
        Ok(())
    }

    fn trie(&mut self, name: &str, entries: &BTreeMap<SourceKey, u32>) -> Result<()> {
        let mut map = LpmTrie::<_, [u32; 5], u32>::try_from(self.ebpf.map_mut(name).context(name.to_owned())?)?;
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>()?;
        for key in keys {
            map.remove(&key)?;
        }
        for (key, value) in entries {
            let [a, b, c, d] = key.address.words();
            map.insert(&Key::new(key.bits, [key.service, a, b, c, d]), value, 0)?;
        }
        Ok(())
    }

    fn array<V: Pod + Default>(&mut self, name: &str, entries: &BTreeMap<u32, V>, n: u32) -> Result<()> {
        let mut map = Array::<_, V>::try_from(self.ebpf.map_mut(name).context(name.to_owned())?)?;
        for index in 0..n {
            map.set(index, entries.get(&index).copied().unwrap_or_default(), 0)?;
        }
        Ok(())
    }

    fn zero<V: Pod + Default + Debug>(&mut self, name: &str, n: u32) -> Result<()> {
        let mut map = PerCpuArray::<_, V>::try_from(self.ebpf.map_mut(name).context(name.to_owned())?)?;
        let cpus = nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        for index in 0..n {
            map.set(index, PerCpuValues::try_from(vec![V::default(); cpus])?, 0)?;
        }
        Ok(())
    }
}

/// Words of a row that only programs read and write.
const fn words<T>() -> usize {
    assert!(size_of::<T>().is_multiple_of(4));
    size_of::<T>() / 4
}

fn by_family<V: Copy>(all: &BTreeMap<Tuple, V>) -> (BTreeMap<FlowKey4, V>, BTreeMap<FlowKey6, V>) {
    let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
    for (t, value) in all {
        if t.v6 {
            let key = FlowKey6 {
                source: t.source,
                destination: t.destination,
                source_port: t.source_port,
                destination_port: t.destination_port,
                network_protocol: t.network_protocol(),
            };
            v6.insert(key, *value);
        } else {
            let key = FlowKey4 {
                source: t.source.v4_bytes(),
                destination: t.destination.v4_bytes(),
                source_port: t.source_port,
                destination_port: t.destination_port,
                network_protocol: t.network_protocol(),
            };
            v4.insert(key, *value);
        }
    }
    (v4, v6)
}
