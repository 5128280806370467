//! Builds `yardstick.c` and fills its tables: what programs are measured against.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use lb_common::testing::world::{Case, Place, node_mac};

use crate::packages;

/// Programs of the source.
pub(crate) const XDP_BARE: &str = "xdp_bare";
pub(crate) const XDP_DNAT: &str = "xdp_dnat";
pub(crate) const XDP_REFILL: &str = "xdp_refill";
pub(crate) const XDP_FORWARD: &str = "xdp_forward";
pub(crate) const XDP_HASH: &str = "xdp_hash";
pub(crate) const XDP_SINK: &str = "xdp_sink";
pub(crate) const TC_SINK: &str = "tc_sink";
pub(crate) const TC_BARE: &str = "tc_bare";
pub(crate) const TC_DNAT: &str = "tc_dnat";

/// Programs of one step each, and what that is.
pub(crate) const STEPS: [(&str, &str); 5] = [
    ("xdp_route", "`bpf_fib_lookup` of another node, IPv4"),
    ("xdp_route6", "`bpf_fib_lookup` of another node, IPv6"),
    ("xdp_grow", "`bpf_xdp_adjust_head` by the tunnel's headers"),
    ("xdp_lookup", "look-up of 16 bytes in a hash table that has no such key"),
    ("xdp_clock", "`bpf_ktime_get_coarse_ns`"),
];

const SOURCE: &str = include_str!("yardstick.c");

/// How the flow table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Nothing is evicted: somebody would have to collect what has ended, as this balancer's agent does.
    Hash,
    /// The kernel evicts what it takes for old.
    Lru,
}

impl Table {
    pub(crate) const BOTH: [Self; 2] = [Self::Hash, Self::Lru];

    /// As a subject of measurements.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hash => "yardstick",
            Self::Lru => "yardstick, LRU",
        }
    }
}

/// What [`XDP_REFILL`] writes into each frame: 64 bytes, the number of flows, a counter.
pub(crate) type Refill = [u8; 72];

/// Flows that a table has room for, the yardstick's and this balancer's.
pub(crate) const FLOWS: u32 = 1 << 21;

/// Compiles the source.
///
/// # Errors
/// Without clang, or if it refuses the source.
pub(crate) fn compile(table: Table) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let (source, object) = (
        directory.path().join("yardstick.c"),
        directory.path().join("yardstick.o"),
    );
    std::fs::write(&source, SOURCE)?;
    let kind = match table {
        Table::Hash => "BPF_MAP_TYPE_HASH",
        Table::Lru => "BPF_MAP_TYPE_LRU_HASH",
    };
    // The headers of this machine's own architecture lie beside those that all share.
    let headers = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let mut clang = Command::new(packages::find("clang")?);
    clang.args(["-O2", "-g", "-Wall", "-target", "bpf", "-mcpu=v3"]);
    clang.args([format!("-DFLOW_TABLE={kind}"), format!("-DFLOWS={FLOWS}")]);
    if Path::new(&headers).is_dir() {
        clang.args(["-idirafter", &headers]);
    }
    let output = clang
        .arg("-c")
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "clang: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(std::fs::read(object)?)
}

/// Loads the programs with empty tables.
///
/// # Errors
/// If the kernel refuses them.
pub(crate) fn load(object: &[u8]) -> Result<Ebpf> {
    let mut ebpf = Ebpf::load(object)?;
    for (name, program) in ebpf.programs_mut() {
        load_program(name, program)?;
    }
    Ok(ebpf)
}

/// Loads the programs that need no flows.
///
/// # Errors
/// If the kernel refuses them.
pub(crate) fn load_stateless(object: &[u8]) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().map_max_entries("flows", 1).load(object)?;
    for name in [XDP_SINK, TC_SINK, XDP_FORWARD, XDP_HASH] {
        load_program(name, ebpf.program_mut(name).context(name)?)?;
    }
    Ok(ebpf)
}

/// Loads the tables alone, with room for so many flows: for the sake of the memory that they take.
///
/// # Errors
/// If the kernel refuses them.
pub(crate) fn load_for_memory(object: &[u8], flows: u32) -> Result<Ebpf> {
    Ok(EbpfLoader::new().map_max_entries("flows", flows).load(object)?)
}

fn load_program(name: &str, program: &mut Program) -> Result<()> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        other => bail!("{name} is {:?}", other.prog_type()),
    }
    .with_context(|| name.to_owned())
}

/// Fills the service tables with what a [`World`](lb_common::testing::world::World) publishes over TCP and IPv4, on one
/// backend, and with as many services beside it as are wanted.
///
/// # Errors
/// If a map refuses an entry.
pub(crate) fn serve(ebpf: &mut Ebpf, services: u16) -> Result<()> {
    let case = Case::TCP[0];
    let backend = case.backend(Place::Node2);
    let value: [u8; 12] = bytes(&[&octets(backend.ip())?, &backend.port().to_be_bytes(), &node_mac(2)]);
    let mut backends = Array::<_, [u8; 12]>::try_from(ebpf.map_mut("backends").context("backends")?)?;
    backends.set(0, value, 0)?;
    let mut table = HashMap::<_, [u8; 8], [u8; 16]>::try_from(ebpf.map_mut("services").context("services")?)?;
    let address = octets(case.published(1).ip())?;
    for number in 0..services {
        let port = if number == 0 {
            case.published(1).port()
        } else {
            10_000 + number
        };
        let key = bytes(&[&address, &port.to_be_bytes(), &6u16.to_ne_bytes()]);
        // The cursor, the first backend, their number.
        let value = bytes(&[&0u64.to_ne_bytes(), &0u32.to_ne_bytes(), &1u32.to_ne_bytes()]);
        table.insert(key, value, 0)?;
    }
    Ok(())
}

/// Removes every flow.
///
/// # Errors
/// If the map cannot be read.
pub(crate) fn forget_flows(ebpf: &mut Ebpf) -> Result<()> {
    let mut flows = HashMap::<_, [u8; 16], [u8; 12]>::try_from(ebpf.map_mut("flows").context("flows")?)?;
    let keys: Vec<_> = flows.keys().collect::<Result<_, _>>()?;
    for key in keys {
        flows.remove(&key)?;
    }
    Ok(())
}

fn octets(address: IpAddr) -> Result<[u8; 4]> {
    match address {
        IpAddr::V4(v4) => Ok(v4.octets()),
        IpAddr::V6(_) => bail!("the yardstick has one family"),
    }
}

/// The parts one after the other.
///
/// # Panics
/// If they are not `N` bytes.
fn bytes<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    parts.concat().try_into().expect("as many bytes as the C structure has")
}
