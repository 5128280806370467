//! Attaches the programs: adopts the links of an earlier agent, makes those that are missing, removes those
//! that lead nowhere any more.
//!
//! A link that is adopted gets the new program in one step (BPF_LINK_UPDATE): no packet passes without one.

mod choose;
mod clsact;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaXdpMode};
use lb_common::abi::program;
use serde::Serialize;

use super::layout;
use super::sys;

pub use choose::{Interfaces, NodeInterface, WorkloadInterface, XdpChoice, choose_xdp};

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
}

impl Hook {
    const ALL: [Self; 5] = [
        Self::XdpNative,
        Self::XdpGeneric,
        Self::TcNode,
        Self::FromWorkload,
        Self::ToWorkload,
    ];

    /// The program that sits there.
    pub const fn program(self) -> &'static str {
        match self {
            Self::XdpNative | Self::XdpGeneric => program::XDP_NODE,
            Self::TcNode => program::TC_NODE,
            Self::FromWorkload => program::FROM_WORKLOAD,
            Self::ToWorkload => program::TO_WORKLOAD,
        }
    }

    /// First part of the pin's name. The mode of XDP is part of it, because a link keeps its mode for life.
    pub const fn pin(self) -> &'static str {
        match self {
            Self::XdpGeneric => "xdp_node_generic",
            _ => self.program(),
        }
    }

    fn from_pin(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.pin() == name)
    }

    const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpNative | Self::XdpGeneric)
    }

    const fn direction(self) -> TcAttachType {
        match self {
            Self::ToWorkload => TcAttachType::Egress,
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

/// One program could not be attached or taken away.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error("{hook} on {interface}: {source}")]
    Program {
        /// Where.
        hook: Hook,
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: ProgramError,
    },
    /// The link cannot be kept beyond the agent's life.
    #[error("{hook} on {interface}: the kernel gave no link that can be pinned")]
    NotALink {
        /// Where.
        hook: Hook,
        /// Interface name.
        interface: String,
    },
    /// A pin.
    #[error("pin {}: {source}", .pin.display())]
    Pin {
        /// Its path.
        pin: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Attaches the loaded programs.
pub struct Attacher {
    ebpf: Ebpf,
    directory: PathBuf,
    tcx: bool,
    /// Hooks that carry this agent's programs (not those of an earlier one).
    ours: BTreeSet<(Hook, u32)>,
}

impl Attacher {
    /// Over programs that [`super::load::load`] returned; `tcx` says whether the kernel has it.
    pub fn new(ebpf: Ebpf, directory: PathBuf, tcx: bool) -> Self {
        Self {
            ebpf,
            directory,
            tcx,
            ours: BTreeSet::new(),
        }
    }

    /// Makes what is attached equal to `wanted`: first attaches what is missing, then removes what is too much.
    pub fn reconcile(&mut self, wanted: &[Wanted]) -> Vec<Attachment> {
        let mut report = Vec::with_capacity(wanted.len());
        let mut kept = BTreeSet::new();
        for want in wanted {
            // Native and generic XDP exclude each other.
            if want.hook.is_xdp() {
                for other in [Hook::XdpNative, Hook::XdpGeneric] {
                    if other != want.hook {
                        let _ = self.unpin(other, want.ifindex);
                    }
                }
            }
            let result = self.ensure(want);
            if result.is_ok() {
                kept.insert((want.hook, want.ifindex));
            }
            report.push(outcome(want, self.tcx, result));
        }
        for (hook, ifindex) in self.pinned() {
            if !kept.contains(&(hook, ifindex)) && !wanted.iter().any(|w| (w.hook, w.ifindex) == (hook, ifindex)) {
                match self.unpin(hook, ifindex) {
                    Ok(()) => tracing::info!(target: "lb::datapath", %hook, ifindex, "detached"),
                    Err(error) => tracing::warn!(target: "lb::datapath", %hook, ifindex, %error, "cannot detach"),
                }
            }
        }
        if !self.tcx {
            for (hook, ifindex) in std::mem::take(&mut self.ours) {
                if kept.contains(&(hook, ifindex)) {
                    self.ours.insert((hook, ifindex));
                } else if !hook.is_xdp() {
                    clsact::detach_index(ifindex, hook);
                }
            }
        }
        self.ours.retain(|key| kept.contains(key));
        report
    }

    fn ensure(&mut self, want: &Wanted) -> Result<Mode, AttachError> {
        let mode = match want.hook {
            Hook::XdpNative => Mode::Native,
            Hook::XdpGeneric => Mode::Generic,
            _ if self.tcx => Mode::Tcx,
            _ => Mode::Clsact,
        };
        let key = (want.hook, want.ifindex);
        if mode == Mode::Clsact {
            if !self.ours.contains(&key) || !clsact::is_attached(&want.interface, want.hook) {
                clsact::attach(classifier(&mut self.ebpf, want.hook)?, want)?;
                self.ours.insert(key);
            }
            return Ok(mode);
        }
        let pin = layout::link(&self.directory, want.hook.pin(), want.ifindex);
        let alive = link_at(&pin).is_some_and(|ifindex| ifindex == want.ifindex);
        if alive && self.ours.contains(&key) {
            return Ok(mode);
        }
        if alive {
            match self.adopt(want, &pin) {
                Ok(()) => {
                    tracing::info!(target: "lb::datapath", interface = %want.interface, hook = %want.hook, "adopted");
                    self.ours.insert(key);
                    return Ok(mode);
                }
                Err(error) => {
                    tracing::warn!(target: "lb::datapath", %error, "cannot adopt a pinned link, making a new one");
                }
            }
        }
        remove(&pin).map_err(|source| AttachError::Pin {
            pin: pin.clone(),
            source,
        })?;
        self.attach(want, &pin)?;
        tracing::info!(target: "lb::datapath", interface = %want.interface, hook = %want.hook, %mode, "attached");
        self.ours.insert(key);
        Ok(mode)
    }

    /// Puts this agent's program behind a link that is pinned.
    fn adopt(&mut self, want: &Wanted, pin: &Path) -> Result<(), AttachError> {
        let fail = |source: ProgramError| AttachError::Program {
            hook: want.hook,
            interface: want.interface.clone(),
            source,
        };
        let not_a_link = |_: LinkError| not_a_link(want);
        let link = FdLink::from(PinnedLink::from_pin(pin).map_err(not_a_link)?);
        // The link that comes back is dropped: that closes our handle, the pin keeps it alive.
        if want.hook.is_xdp() {
            let program = xdp(&mut self.ebpf)?;
            let id = program
                .attach_to_link(link.try_into().map_err(not_a_link)?)
                .map_err(fail)?;
            drop(program.take_link(id).map_err(fail)?);
        } else {
            let program = classifier(&mut self.ebpf, want.hook)?;
            let id = program
                .attach_to_link(link.try_into().map_err(not_a_link)?)
                .map_err(fail)?;
            drop(program.take_link(id).map_err(fail)?);
        }
        Ok(())
    }

    fn attach(&mut self, want: &Wanted, pin: &Path) -> Result<(), AttachError> {
        let fail = |source: ProgramError| AttachError::Program {
            hook: want.hook,
            interface: want.interface.clone(),
            source,
        };
        let link: FdLink = if want.hook.is_xdp() {
            let mode = if want.hook == Hook::XdpNative {
                AyaXdpMode::Driver
            } else {
                AyaXdpMode::Skb
            };
            let program = xdp(&mut self.ebpf)?;
            let id = program.attach_to_if_index(want.ifindex, mode).map_err(fail)?;
            // aya falls back to netlink, whose attachment ends with the agent: refuse it.
            program
                .take_link(id)
                .map_err(fail)?
                .try_into()
                .map_err(|_: LinkError| not_a_link(want))?
        } else {
            let program = classifier(&mut self.ebpf, want.hook)?;
            let order = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program
                .attach_with_options(&want.interface, want.hook.direction(), order)
                .map_err(fail)?;
            program
                .take_link(id)
                .map_err(fail)?
                .try_into()
                .map_err(|_: LinkError| not_a_link(want))?
        };
        link.pin(pin).map_err(|e| AttachError::Pin {
            pin: pin.to_owned(),
            source: io::Error::other(e),
        })?;
        Ok(())
    }

    fn pinned(&self) -> Vec<(Hook, u32)> {
        pinned_links(&self.directory)
            .into_iter()
            .filter_map(|(hook, ifindex)| Some((Hook::from_pin(&hook)?, ifindex)))
            .collect()
    }

    fn unpin(&mut self, hook: Hook, ifindex: u32) -> io::Result<()> {
        self.ours.remove(&(hook, ifindex));
        remove(&layout::link(&self.directory, hook.pin(), ifindex))
    }
}

/// Hooks and interface indexes of the links pinned below `directory`.
pub fn pinned_links(directory: &Path) -> Vec<(String, u32)> {
    let Ok(entries) = fs::read_dir(layout::links(directory)) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            layout::parse_link(&name).map(|(hook, ifindex)| (hook.to_owned(), ifindex))
        })
        .collect()
}

/// Takes the filters of all our programs off an interface (kernels without tcx; links go with their pins).
pub fn detach_filters(interface: &str) -> Vec<AttachError> {
    [Hook::TcNode, Hook::FromWorkload, Hook::ToWorkload]
        .into_iter()
        .filter_map(|hook| clsact::detach(interface, hook).err())
        .collect()
}

fn outcome(want: &Wanted, tcx: bool, result: Result<Mode, AttachError>) -> Attachment {
    let (mode, why, error) = match result {
        Ok(Mode::Clsact) if !tcx => (
            Mode::Clsact,
            format!("{}; this kernel has no tcx (6.6)", want.why),
            None,
        ),
        Ok(mode) => (mode, want.why.clone(), None),
        Err(error) if want.optional => (
            Mode::None,
            format!("{}, but it refused ({}); tc alone", want.why, chain(&error)),
            None,
        ),
        Err(error) => (Mode::None, want.why.clone(), Some(chain(&error))),
    };
    Attachment {
        interface: want.interface.clone(),
        ifindex: want.ifindex,
        hook: want.hook,
        mode,
        why,
        error,
    }
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = e.source();
    }
    text
}

/// Interface index of a pinned link: 0 if its interface is gone, `None` if there is no such pin.
fn link_at(pin: &Path) -> Option<u32> {
    let fd = sys::open_pin(pin, 0).ok()?;
    sys::link_state(fd.as_fd()).ok().map(|state| state.ifindex)
}

fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn not_a_link(want: &Wanted) -> AttachError {
    AttachError::NotALink {
        hook: want.hook,
        interface: want.interface.clone(),
    }
}

fn classifier(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier, AttachError> {
    program(ebpf, hook)
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, AttachError> {
    program(ebpf, Hook::XdpNative)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, hook: Hook) -> Result<&'a mut P, AttachError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let fail = |source| AttachError::Program {
        hook,
        interface: "any interface".into(),
        source,
    };
    ebpf.program_mut(hook.program())
        .ok_or_else(|| fail(ProgramError::NotLoaded))?
        .try_into()
        .map_err(fail)
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
            ifindex: 3,
            interface: "eth0".into(),
            hook: Hook::XdpNative,
            why: "auto: hardware".into(),
            optional: true,
        };
        let report = outcome(&want, true, Err(not_a_link(&want)));
        assert_eq!((report.mode, report.error), (Mode::None, None));
        assert!(report.why.ends_with("tc alone"), "{}", report.why);
        let report = outcome(
            &Wanted {
                optional: false,
                ..want.clone()
            },
            true,
            Err(not_a_link(&want)),
        );
        assert!(report.error.is_some());
    }
}
