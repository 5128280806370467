//! [`State`]: what the programs write.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, PerCpuArray};
use lb_common::abi::{
    self, Counter, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, PathMtu, Pressure, Reply, ServiceCounter, Table,
    capacity,
};
use lb_common::testing::tables::MemoryTables;
use lb_common::testing::tables::ports::unnoted;
use lb_common::tuple::Tuple;

use super::{ELEMENTS, Kernel};

/// What the programs write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Both families.
    pub flows: BTreeMap<Tuple, Flow>,
    /// Both families.
    pub replies: BTreeMap<Tuple, Reply>,
    /// Both families.
    pub fragments: BTreeMap<FragmentKey, Fragment>,
    /// Both families.
    pub overflow: BTreeMap<Tuple, Flow>,
    /// Both families.
    pub overflow_replies: BTreeMap<Tuple, Reply>,
    /// When tables were last full.
    pub pressure: Pressure,
    /// Those that are not zero, by node.
    pub path_mtus: BTreeMap<u32, PathMtu>,
    /// Those that are not zero, by service.
    pub cursors: BTreeMap<u32, u64>,
    /// Packets and bytes by reason, of all CPUs.
    pub counters: BTreeMap<u8, (u64, u64)>,
    /// What each service counts, of all CPUs.
    pub services: BTreeMap<u32, [u64; 5]>,
}

impl State {
    /// Of the pure side.
    pub fn of(tables: &MemoryTables) -> Self {
        let counters = tables.counters().into_iter();
        let services = tables.service_counters().into_iter();
        Self {
            flows: tables.flows(),
            replies: tables.replies(),
            fragments: tables.fragments.borrow().clone(),
            overflow: tables.overflow(),
            overflow_replies: tables.overflow_replies(),
            pressure: tables.pressed(),
            path_mtus: tables.path_mtus.borrow().clone(),
            cursors: tables.cursors.borrow().clone(),
            counters: counters.map(|(code, c)| (code, (c.packets, c.bytes))).collect(),
            services: services
                .map(|(id, c)| (id, numbers(&c)))
                .filter(|(_, n)| *n != [0; 5])
                .collect(),
        }
    }
}

fn numbers(c: &ServiceCounter) -> [u64; 5] {
    [c.flows, c.packets, c.bytes, c.reply_packets, c.reply_bytes]
}

impl Kernel {
    /// What the programs have written.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn state(&self) -> Result<State> {
        let mut state = State::default();
        for (key, flow) in self.entries::<FlowKey4, Flow>(abi::Flows4::NAME)? {
            state.flows.insert(Tuple::from(&key), flow);
        }
        for (key, flow) in self.entries::<FlowKey6, Flow>(abi::Flows6::NAME)? {
            state.flows.insert(Tuple::from(&key), flow);
        }
        for (key, reply) in self.entries::<FlowKey4, Reply>(abi::Replies4::NAME)? {
            state.replies.insert(Tuple::from(&key), reply);
        }
        for (key, reply) in self.entries::<FlowKey6, Reply>(abi::Replies6::NAME)? {
            state.replies.insert(Tuple::from(&key), reply);
        }
        state.fragments = self.entries(abi::FRAGMENTS)?.into_iter().collect();
        for (key, flow) in self.entries::<FlowKey4, Flow>(abi::Overflow4::NAME)? {
            state.overflow.insert(Tuple::from(&key), flow);
        }
        for (key, flow) in self.entries::<FlowKey6, Flow>(abi::Overflow6::NAME)? {
            state.overflow.insert(Tuple::from(&key), flow);
        }
        for (key, reply) in self.entries::<FlowKey4, Reply>(abi::OverflowReplies4::NAME)? {
            state.overflow_replies.insert(Tuple::from(&key), reply);
        }
        for (key, reply) in self.entries::<FlowKey6, Reply>(abi::OverflowReplies6::NAME)? {
            state.overflow_replies.insert(Tuple::from(&key), reply);
        }
        let map = self.ebpf.map(abi::PressureTable::NAME).context("pressure")?;
        state.pressure = Array::<_, Pressure>::try_from(map)?.get(&0, 0)?;
        let mtus = Array::<_, PathMtu>::try_from(self.ebpf.map(abi::PathMtus::NAME).context("path MTUs")?)?;
        for id in 0..ELEMENTS {
            let path = mtus.get(&id, 0)?;
            if path != PathMtu::default() {
                state.path_mtus.insert(id, path);
            }
        }
        let cursors = Array::<_, u64>::try_from(self.ebpf.map(abi::Cursors::NAME).context("cursors")?)?;
        for id in 0..ELEMENTS {
            match cursors.get(&id, 0)? {
                0 => {}
                count => drop(state.cursors.insert(id, count)),
            }
        }
        let counters = PerCpuArray::<_, Counter>::try_from(self.ebpf.map(abi::COUNTERS).context("counters")?)?;
        for code in 0..capacity::COUNTERS {
            let sum = counters
                .get(&code, 0)?
                .iter()
                .fold((0, 0), |s, c| (s.0 + c.packets, s.1 + c.bytes));
            if sum != (0, 0) {
                state.counters.insert(code as u8, sum);
            }
        }
        let map = self.ebpf.map(abi::SERVICE_COUNTERS).context("service counters")?;
        let services = PerCpuArray::<_, ServiceCounter>::try_from(map)?;
        for id in 0..ELEMENTS {
            let mut sum = [0; 5];
            for cpu in services.get(&id, 0)?.iter() {
                sum.iter_mut().zip(numbers(cpu)).for_each(|(s, n)| *s += n);
            }
            if sum != [0; 5] {
                state.services.insert(id, sum);
            }
        }
        self.ensure_noted(&state)?;
        Ok(state)
    }

    /// Nobody looks for what has no bit in `ports`.
    fn ensure_noted(&self, state: &State) -> Result<()> {
        let noted = Array::<_, u64>::try_from(self.ebpf.map(abi::Ports::NAME).context("ports")?)?;
        let lost = unnoted(
            state.flows.keys().chain(state.overflow.keys()),
            state.replies.keys().chain(state.overflow_replies.keys()),
            |element| noted.get(&element, 0).unwrap_or_default(),
        );
        ensure!(lost.is_empty(), "no bit says where to look for {lost:?}");
        Ok(())
    }

    fn entries<K: Pod, V: Pod>(&self, name: &str) -> Result<Vec<(K, V)>> {
        let map = HashMap::<_, K, V>::try_from(self.ebpf.map(name).context(name.to_owned())?)?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }
}
