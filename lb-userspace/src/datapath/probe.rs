//! What this kernel can do, as far as it changes what the agent does.

use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use serde::Serialize;

/// Features of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Features {
    /// tcx links (6.6).
    pub tcx: bool,
    /// `BPF_F_IPV6` of `bpf_l4_csum_replace` (6.16).
    pub l4_csum_ipv6: bool,
}

impl Features {
    /// Asks the kernel. Needs the right to load programs.
    pub fn probe() -> Self {
        Self {
            // A query that names an attach type that the kernel does not know fails.
            tcx: SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok(),
            // A flag of a helper is checked only when it runs; no program type shows it at load time.
            l4_csum_ipv6: KernelVersion::current().is_ok_and(|v| v >= KernelVersion::new(6, 16, 0)),
        }
    }
}
