//! Where programs sit, how, and why: the words of plans and reports about attaching. Pure.

use std::fmt;

use aya::programs::TcAttachType;
use lb_common::abi::{InterfaceKey, program};
use serde::Serialize;

use crate::net::netns::Namespace;

/// Where a program sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// XDP in the driver of a node interface.
    XdpNative,
    /// XDP in the kernel's generic hook on a node interface.
    XdpGeneric,
    /// tc ingress of a node interface.
    TcNode,
    /// tc ingress of the host side of a workload interface.
    FromWorkload,
    /// tc egress of the host side of a workload interface.
    ToWorkload,
    /// tc egress of the loopback interface.
    FromHost,
}

impl Hook {
    pub(super) const ALL: [Self; 6] = [
        Self::XdpNative,
        Self::XdpGeneric,
        Self::TcNode,
        Self::FromWorkload,
        Self::ToWorkload,
        Self::FromHost,
    ];

    /// The program that is attached there.
    pub const fn program(self) -> &'static str {
        match self {
            Self::XdpNative | Self::XdpGeneric => program::XDP_NODE,
            Self::TcNode => program::TC_NODE,
            Self::FromWorkload => program::ENTER_FROM,
            Self::ToWorkload => program::ENTER_TO,
            Self::FromHost => program::FROM_HOST,
        }
    }

    /// First part of the pin's name. The mode of XDP is part of it, because a link keeps its mode for life.
    pub const fn pin(self) -> &'static str {
        match self {
            Self::XdpNative => program::XDP_NODE,
            Self::XdpGeneric => "xdp_node_generic",
            Self::TcNode => program::TC_NODE,
            Self::FromWorkload => program::FROM_WORKLOAD,
            Self::ToWorkload => program::TO_WORKLOAD,
            Self::FromHost => program::FROM_HOST,
        }
    }

    pub(super) fn from_pin(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.pin() == name)
    }

    pub(super) const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }

    pub(super) const fn direction(self) -> TcAttachType {
        match self {
            Self::ToWorkload | Self::FromHost => TcAttachType::Egress,
            _ => TcAttachType::Ingress,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.pin())
    }
}

/// A program that should be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Network namespace of the interface.
    pub namespace: Namespace,
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub interface: String,
    /// Where.
    pub hook: Hook,
    /// Why there and in this mode.
    pub why: String,
    /// Failure is no fault: another hook does the same work.
    pub optional: bool,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// XDP in the driver.
    Native,
    /// XDP in the kernel's generic hook.
    Generic,
    /// tc through a tcx link (6.6 and later).
    Tcx,
    /// tc through a clsact qdisc.
    Clsact,
    /// Not attached.
    None,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::None => "none",
        })
    }
}

/// What became of one [`Wanted`], for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Interface name.
    pub interface: String,
    /// Name of its network namespace; empty for the agent's own.
    pub namespace: String,
    /// Interface index.
    pub ifindex: u32,
    /// Where.
    pub hook: Hook,
    /// How.
    pub mode: Mode,
    /// Why so.
    pub why: String,
    /// What went wrong, if it is not attached although it should be.
    pub error: Option<String>,
}

impl Wanted {
    /// Hook and interface: what is wanted once.
    pub(super) fn key(&self) -> (Hook, InterfaceKey) {
        (self.hook, InterfaceKey::new(self.namespace.cookie(), self.ifindex))
    }

    /// What became of it. A refusal is no fault where another hook does the same work.
    pub(super) fn outcome(&self, result: Result<Mode, String>) -> Attachment {
        let (mode, why, error) = match result {
            Ok(Mode::Clsact) => (
                Mode::Clsact,
                format!("{}; this kernel has no tcx (6.6)", self.why),
                None,
            ),
            Ok(mode) => (mode, self.why.clone(), None),
            Err(error) if self.optional => {
                let why = format!("{}, but it refused ({error}); tc alone", self.why);
                (Mode::None, why, None)
            }
            Err(error) => (Mode::None, self.why.clone(), Some(error)),
        };
        Attachment {
            interface: self.interface.clone(),
            namespace: self.namespace.name(),
            ifindex: self.ifindex,
            hook: self.hook,
            mode,
            why,
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_is_known_by_its_pin() {
        for hook in Hook::ALL {
            assert_eq!(Hook::from_pin(hook.pin()), Some(hook));
        }
        assert_eq!(Hook::from_pin("something"), None);
    }

    #[test]
    fn an_optional_refusal_is_a_reason_and_no_fault() {
        let want = Wanted {
            namespace: Namespace::NODE,
            ifindex: 3,
            interface: "eth0".into(),
            hook: Hook::XdpNative,
            why: "auto: hardware".into(),
            optional: true,
        };
        let report = want.outcome(Err("not supported".into()));
        assert_eq!((report.mode, report.error), (Mode::None, None));
        assert_eq!(report.why, "auto: hardware, but it refused (not supported); tc alone");
        let demanded = Wanted {
            optional: false,
            ..want
        };
        assert_eq!(
            demanded.outcome(Err("not supported".into())).error.as_deref(),
            Some("not supported")
        );
    }
}
