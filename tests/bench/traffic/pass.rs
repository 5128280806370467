//! [`Pass`]: what XDP on a veth costs by itself, whoever attaches it.

use anyhow::{Context as _, Result};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use lb_tests::cluster::Cluster;

use crate::yardstick::{self, Table};

/// Program of the yardstick's source.
const XDP_PASS: &str = "xdp_pass";

/// A program that lets everything pass, where this balancer has its own. Detached on drop.
pub(super) struct Pass {
    _programs: Ebpf,
}

impl Pass {
    pub(super) fn attach(cluster: &Cluster) -> Result<Self> {
        let object = yardstick::compile(Table::Hash)?;
        let mut programs = EbpfLoader::new().map_max_entries("flows", 1).load(&object)?;
        let program: &mut Xdp = programs.program_mut(XDP_PASS).context(XDP_PASS)?.try_into()?;
        program.load()?;
        for node in cluster.nodes() {
            let attached = node.netns().run(|| program.attach("eth0", XdpMode::Driver));
            attached.with_context(|| format!("native XDP in {}", node.netns().name()))?;
        }
        Ok(Self { _programs: programs })
    }
}
