//! [`Kernel`]: the object that the agent embeds, loaded with maps of its own, and the tables of a world in them; nothing
//! is attached, programs run by `BPF_PROG_TEST_RUN`.

mod run;
mod state;
mod tables;

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, ProgramArray};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use lb_common::abi;
use lb_common::testing::fixture::Input;
use lb_userspace::datapath::load::PROGRAMS;

pub use run::{context, run, takes};
pub use state::State;

/// Elements of the arrays that worlds use.
const ELEMENTS: u32 = 100;
/// Entries of an overflow table: enough for none to give way.
const OVERFLOW: u32 = 4096;
/// What a flow takes an entry of.
const FLOW_TABLES: [&str; 4] = ["flows4", "flows6", "replies4", "replies6"];
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
        for name in FLOW_TABLES {
            loader.map_max_entries(name, flows);
        }
        for name in ["slots", "local_backends", "vips", "frontends", "sources"] {
            loader.map_max_entries(name, 4096);
        }
        Self::load_with(&mut loader)
    }

    /// Loads every program with tables as large as an agent makes them; those of flows have `flows` entries.
    ///
    /// # Errors
    /// As [`Kernel::load`].
    pub fn load_full(flows: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for name in FLOW_TABLES {
            loader.map_max_entries(name, flows);
        }
        Self::load_with(&mut loader)
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

    /// Runs a program once: its return value and the frame.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&mut self, input: &Input) -> Result<(u32, Vec<u8>)> {
        let program = self.ebpf.program(input.program()).context("a program")?;
        let size = run(program, input, &mut self.out)?;
        Ok((size.0, self.out[..size.1].to_vec()))
    }
}
