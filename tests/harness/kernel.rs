//! [`Kernel`]: the object that the agent embeds, loaded with maps of its own, and the tables of a world in them; nothing
//! is attached, programs run by `BPF_PROG_TEST_RUN`.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Context as _, Result, bail};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{Program, TestRun as _, TestRunOptions};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use lb_common::abi::{
    self, Counter, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, PathMtu, Pressure, Reply, ServiceCounter,
    SourceKey, Table, capacity,
};
use lb_common::route::{self, Kept, KeptInterface};
use lb_common::testing::fixture::{Entry, Input};
use lb_common::testing::tables::MemoryTables;
use lb_common::tuple::Tuple;
use lb_common::way::{self, KeptWay};
use lb_userspace::datapath::load::PROGRAMS;

/// Elements of the arrays that worlds use.
const ELEMENTS: u32 = 100;
/// Entries of an overflow table: enough for none to give way.
const OVERFLOW: u32 = 4096;
/// Room for any frame that comes out.
const ROOM: usize = 1 << 16;

/// The loaded object.
pub struct Kernel {
    /// Its programs and maps.
    pub ebpf: Ebpf,
    out: Vec<u8>,
    /// The kernel empties it when nobody holds it.
    _jumps: ProgramArray<MapData>,
}

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
    /// Loads every program with small tables; those of flows have `flows` entries.
    ///
    /// # Errors
    /// If the kernel refuses a map or a program.
    pub fn load(flows: u32) -> Result<Self> {
        Self::load_tables(flows, OVERFLOW)
    }

    /// As [`Kernel::load`]; the overflow tables have `overflow` entries.
    ///
    /// # Errors
    /// If the kernel refuses a map or a program.
    pub fn load_tables(flows: u32, overflow: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for name in ["overflow4", "overflow6", "overflow_replies4", "overflow_replies6"] {
            loader.map_max_entries(name, overflow);
        }
        for name in ["flows4", "flows6", "replies4", "replies6"] {
            loader.map_max_entries(name, flows);
        }
        for name in ["slots", "local_backends", "vips", "frontends", "sources"] {
            loader.map_max_entries(name, 4096);
        }
        Self::load_with(&mut loader)
    }

    /// Loads every program with tables as large as an agent makes them.
    ///
    /// # Errors
    /// As [`Kernel::load`].
    pub fn load_full() -> Result<Self> {
        Self::load_with(&mut EbpfLoader::new())
    }

    fn load_with(loader: &mut EbpfLoader<'_>) -> Result<Self> {
        let mut ebpf = loader.load(lb_userspace::datapath::OBJECT)?;
        for name in PROGRAMS {
            match ebpf.program_mut(name).context(name)? {
                Program::Xdp(program) => program.load()?,
                Program::SchedClassifier(program) => program.load()?,
                other => bail!("{name} is {:?}", other.prog_type()),
            }
        }
        let mut jumps = ProgramArray::try_from(ebpf.take_map(abi::JUMPS).context("jumps")?)?;
        for (index, name) in abi::JUMP_PROGRAMS {
            jumps.set(index, ebpf.program(name).context(name)?.fd()?, 0)?;
        }
        Ok(Self {
            ebpf,
            out: vec![0; ROOM],
            _jumps: jumps,
        })
    }

    /// Makes the maps hold `tables`, and nothing else.
    ///
    /// # Errors
    /// If a map refuses an entry.
    pub fn fill(&mut self, tables: &MemoryTables) -> Result<()> {
        // What the kernel said of routes in another world.
        self.zero::<[u32; words::<Kept>()]>("routes", 1 << route::PLACES_SHIFT)?;
        self.zero::<[u32; words::<KeptInterface>()]>("outputs", 1 << route::PLACES_SHIFT)?;
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
        Ok(state)
    }

    /// Runs a program once: its return value and the frame.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&mut self, input: &Input) -> Result<(u32, Vec<u8>)> {
        let program = self.ebpf.program(input.program()).context("a program")?;
        let size = run(program, input, &mut self.out)?;
        Ok((size.0, self.out[..size.1].to_vec()))
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

    fn entries<K: Pod, V: Pod>(&self, name: &str) -> Result<Vec<(K, V)>> {
        let map = HashMap::<_, K, V>::try_from(self.ebpf.map(name).context(name.to_owned())?)?;
        Ok(map.iter().collect::<Result<_, _>>()?)
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

/// Runs a program once; `out` receives the frame. Return value and length of the frame.
///
/// # Errors
/// If the kernel takes no such input.
pub fn run(program: &Program, input: &Input, out: &mut [u8]) -> Result<(u32, usize)> {
    let context = context(input);
    let options = TestRunOptions {
        data_in: Some(&input.frame),
        data_out: Some(out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let result = match program {
        Program::Xdp(program) => program.test_run(options)?,
        Program::SchedClassifier(program) => program.test_run(options)?,
        other => bail!("{:?} is not run", other.prog_type()),
    };
    Ok((result.return_value, result.data_size_out as usize))
}

/// The context of a run: `struct xdp_md` or `struct __sk_buff`, with the fields that may be given.
pub fn context(input: &Input) -> Vec<u8> {
    let mut put = Vec::new();
    let size = if input.entry == Entry::XdpNode {
        put.push((4, input.frame.len() as u32)); // data_end
        put.push((12, input.ifindex));
        24
    } else {
        put.push((36, input.ifindex)); // ingress_ifindex
        put.push((40, input.ifindex));
        put.push((48, input.namespace as u32)); // cb[0]
        put.push((52, (input.namespace >> 32) as u32)); // cb[1]
        put.push((176, input.segment as u32)); // gso_size
        192
    };
    let mut bytes = vec![0; size];
    for (offset, value) in put {
        bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// Whether `BPF_PROG_TEST_RUN` takes such an input: no tag beside the frame, and no IP header cut short on tc.
pub fn takes(input: &Input) -> bool {
    if input.entry == Entry::XdpNode {
        return input.frame.len() >= 14;
    }
    let least = match input.frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    !input.side_tag && input.frame.len() >= 14 + least
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
