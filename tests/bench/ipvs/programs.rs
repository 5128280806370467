//! Puts programs where they belong: this balancer's as an agent does it, and those of the far ends.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use lb_common::testing::world::{NODE_IF, Place, ROUTED_IF, SECOND_IF, World};
use lb_tests::kernel::Kernel;

use super::Kind;
use super::scene::CASE;

/// Entries of this balancer's flow tables.
const FLOWS: u32 = 1 << 17;

/// This balancer's programs where an agent attaches them, with one published service.
pub(super) fn ours(kind: Kind) -> Result<Kernel> {
    let place = if kind == Kind::OursTcHere {
        Place::Here
    } else {
        Place::Node2
    };
    let world = World::new().serve(CASE, &[place]);
    let mut kernel = Kernel::load(FLOWS)?;
    kernel.fill(&world.tables)?;
    if kind == Kind::OursXdp {
        attach_xdp(&mut kernel.ebpf, "xdp_node", NODE_IF)?;
    }
    for index in [NODE_IF, SECOND_IF] {
        attach_tc(&mut kernel.ebpf, "tc_node", index, TcAttachType::Ingress)?;
    }
    attach_tc(&mut kernel.ebpf, "from_workload", ROUTED_IF, TcAttachType::Ingress)?;
    attach_tc(&mut kernel.ebpf, "to_workload", ROUTED_IF, TcAttachType::Egress)?;
    Ok(kernel)
}

pub(super) fn attach_xdp(ebpf: &mut Ebpf, name: &str, index: u32) -> Result<()> {
    let program: &mut Xdp = ebpf.program_mut(name).context("an XDP program")?.try_into()?;
    let attached = program.attach(&format!("if{index}"), XdpMode::Driver);
    attached.with_context(|| format!("{name} at if{index}"))?;
    Ok(())
}

pub(super) fn attach_tc(ebpf: &mut Ebpf, name: &str, index: u32, hook: TcAttachType) -> Result<()> {
    let interface = format!("if{index}");
    // It may be there, for the other direction.
    let _ = tc::qdisc_add_clsact(&interface);
    let program: &mut SchedClassifier = ebpf.program_mut(name).context("a tc program")?.try_into()?;
    let attached = program.attach(&interface, hook);
    attached.with_context(|| format!("{name} at {interface}"))?;
    Ok(())
}
