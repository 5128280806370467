//! [`Stage`]: loaded programs and full tables, ready to be given frames.

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::Program;
use lb_common::abi::{EndpointKey, Frontend, NETWORK_NODE, TCP};
use lb_common::address::Address;
use lb_common::testing::fixture::Input;
use lb_common::testing::world::{Case, Place, World};
use lb_tests::kernel::{self, Kernel};

use super::frames::{self, Path};
use crate::yardstick;

/// First id of the services that are there beside a world's own.
const MORE_SERVICES: u32 = 1000;

/// Programs with their tables.
pub(crate) enum Stage {
    /// This balancer's.
    Ours(Box<Kernel>),
    /// The yardstick's.
    Yardstick(Box<Ebpf>),
}

impl Stage {
    /// This balancer, its services on the backend at `place`, beside as many others.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub(crate) fn ours(place: Place, others: u16) -> Result<Self> {
        let mut world = World::new();
        for case in Case::TCP {
            world = world.serve(case, &[place]);
        }
        let case = Case::TCP[0];
        for number in 0..others {
            let service = MORE_SERVICES + u32::from(number);
            let key = EndpointKey {
                address: Address::ANY,
                network: NETWORK_NODE,
                port: 10_000 + number,
                protocol: TCP,
                family: 4,
            };
            world.tables.frontends.insert(key, Frontend { service, flags: 0 });
            world.slots(service, &[case.backend_id(place)]);
        }
        let mut kernel = Kernel::load_full(yardstick::FLOWS)?;
        kernel.fill(&world.tables)?;
        Ok(Self::Ours(Box::new(kernel)))
    }

    /// The yardstick, with as many services.
    ///
    /// # Errors
    /// As [`Stage::ours`].
    pub(crate) fn yardstick(object: &[u8], services: u16) -> Result<Self> {
        let mut ebpf = yardstick::load(object)?;
        yardstick::serve(&mut ebpf, services)?;
        Ok(Self::Yardstick(Box::new(ebpf)))
    }

    /// One of its programs.
    pub(crate) fn program(&self, name: &str) -> Result<&Program> {
        let ebpf = match self {
            Self::Ours(kernel) => &kernel.ebpf,
            Self::Yardstick(ebpf) => ebpf,
        };
        ebpf.program(name).context(name.to_owned())
    }

    /// Forgets every flow.
    pub(crate) fn forget_flows(&mut self) -> Result<()> {
        match self {
            Self::Ours(kernel) => kernel.forget_flows(),
            Self::Yardstick(ebpf) => yardstick::forget_flows(ebpf),
        }
    }

    /// Establishes the flows of the first `clients` of a path, both directions.
    ///
    /// # Errors
    /// If a packet does not go where it should.
    pub(crate) fn establish(&self, case: Case, path: Path, clients: u32) -> Result<()> {
        let mut packets = match self {
            // One connection after the other: one that is not established is soon forgotten.
            Self::Ours(_) => Vec::from(frames::handshake(case, path)),
            Self::Yardstick(_) => vec![frames::opening(case, path).into_yardstick()],
        };
        let mut out = vec![0; 4096];
        for client in 0..clients {
            for packet in &mut packets {
                let mut input = packet.input();
                packet.template.of(client).clone_into(&mut input.frame);
                let (code, _) = kernel::run(self.program(packet.program)?, &input, &mut out)?;
                // One checksum in 65,536 looks unfinished, and is left to tc.
                ensure!(
                    code == packet.code || client > 1000 && packet.program == "xdp_node",
                    "{}, client {client}: {code} instead of {}",
                    packet.program,
                    packet.code
                );
            }
        }
        Ok(())
    }
}

/// Runs a packet's program once, as `expect`ed.
///
/// # Errors
/// If it answers otherwise.
pub(crate) fn check(stage: &Stage, packet: &mut frames::Packet, client: u32, changed: bool) -> Result<()> {
    let mut out = vec![0; 4096];
    let mut input: Input = packet.input();
    packet.template.of(client).clone_into(&mut input.frame);
    let (code, length) = kernel::run(stage.program(packet.program)?, &input, &mut out)?;
    ensure!(
        code == packet.code && (out[..length] != input.frame) == changed,
        "{} answers {code}, changed {}",
        packet.program,
        out[..length] != input.frame
    );
    Ok(())
}
