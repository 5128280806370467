//! [`FEATURES`]: what the balancer uses of a kernel, and how it is known whether it is there.

use std::fs;
use std::path::Path;

use anyhow::Result;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_program_supported};

use super::agent;

/// Something of the kernel that the balancer uses.
pub(super) struct Feature {
    /// In the record.
    pub(super) id: &'static str,
    /// In the document.
    pub(super) name: &'static str,
    /// Release of Linux; empty: by its configuration.
    pub(super) since: &'static str,
    /// What it is needed for, or what is lost without it.
    pub(super) text: &'static str,
    pub(super) needed: bool,
    pub(super) seen: Seen,
}

/// How it is known whether it is there.
pub(super) enum Seen {
    /// The kernel is asked.
    Asked(fn() -> Result<bool>),
    /// The programs are not loaded without it.
    Loading,
    /// The tests of the tier `attach` fail without it.
    Attaching,
}

pub(super) const FEATURES: &[Feature] = &[
    Feature {
        id: "xdp",
        name: "XDP programs",
        since: "4.8",
        text: "published ports and the tunnel, where the driver has the hook",
        needed: true,
        seen: Seen::Asked(|| Ok(is_program_supported(ProgramType::Xdp)?)),
    },
    Feature {
        id: "tc",
        name: "tc programs (`CONFIG_NET_CLS_ACT`)",
        since: "4.1",
        text: "everything else",
        needed: true,
        seen: Seen::Asked(|| Ok(is_program_supported(ProgramType::SchedClassifier)?)),
    },
    Feature {
        id: "bpffs",
        name: "a file system of type `bpf`",
        since: "4.4",
        text: "pins; mounted at `/sys/fs/bpf` by systemd, else by the agent",
        needed: true,
        seen: Seen::Asked(|| {
            Ok(fs::read_to_string("/proc/filesystems")?
                .lines()
                .any(|line| line.ends_with("\tbpf")))
        }),
    },
    Feature {
        id: "jit",
        name: "`CONFIG_BPF_JIT`",
        since: "",
        text: "speed",
        needed: true,
        seen: Seen::Asked(|| Ok(Path::new("/proc/sys/net/core/bpf_jit_enable").exists())),
    },
    Feature {
        id: "map_btf",
        name: "BTF of maps",
        since: "4.18",
        text: "`bpftool map dump` with field names",
        needed: true,
        seen: Seen::Loading,
    },
    Feature {
        id: "fib_lookup",
        name: "`bpf_fib_lookup`",
        since: "4.18",
        text: "the way to other nodes and to workloads",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_fib_lookup)),
    },
    Feature {
        id: "xdp_links",
        name: "XDP links that can be pinned",
        since: "5.9",
        text: "the datapath outlives the agent",
        needed: true,
        seen: Seen::Attaching,
    },
    Feature {
        id: "redirect_neigh",
        name: "`bpf_redirect_neigh`",
        since: "5.10",
        text: "next hops",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_redirect_neigh)),
    },
    Feature {
        id: "redirect_peer",
        name: "`bpf_redirect_peer`",
        since: "5.10",
        text: "delivery into workloads",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_redirect_peer)),
    },
    Feature {
        id: "coarse_clock",
        name: "`bpf_ktime_get_coarse_ns`",
        since: "5.11",
        text: "the clock of flows",
        needed: true,
        seen: Seen::Asked(|| helper(BpfHelper::BPF_FUNC_ktime_get_coarse_ns)),
    },
    Feature {
        id: "atomics",
        name: "atomic operations that return a value (instruction set v3)",
        since: "5.12",
        text: "exact round robin on any number of CPUs",
        needed: true,
        seen: Seen::Loading,
    },
    Feature {
        id: "tcx",
        name: "tcx links",
        since: "6.6",
        text: "filters on a clsact qdisc; same programs, but a filter is replaced rather than a link updated",
        needed: false,
        seen: Seen::Asked(|| Ok(agent::Features::probe().tcx)),
    },
    Feature {
        id: "l4_csum_ipv6",
        name: "`BPF_F_IPV6` of `bpf_l4_csum_replace`",
        since: "6.16",
        text: "where a card sums whole packets (`CHECKSUM_COMPLETE`), its sum of a translated IPv6 packet is off, and the \
               receiving kernel sums again",
        needed: false,
        seen: Seen::Asked(|| Ok(agent::Features::probe().l4_csum_ipv6)),
    },
];

fn helper(helper: BpfHelper) -> Result<bool> {
    Ok(is_helper_supported(ProgramType::SchedClassifier, helper)?)
}
