//! Attaches the programs: adopts the links of an earlier agent, makes those that are missing, removes those
//! that lead nowhere any more.
//!
//! A link that is adopted gets the new program in one step (BPF_LINK_UPDATE): no packet passes without one.

mod choose;
mod clsact;
mod hook;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, Xdp, XdpMode as AyaXdpMode};

use super::layout;
use super::sys::{self, LinkTarget};

pub use choose::{Interfaces, NodeInterface, WorkloadInterface, XdpChoice, choose_xdp};
pub use hook::{Attachment, Hook, Mode, Wanted};

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
            report.push(want.outcome(result.map_err(|e| chain(&e))));
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
        remove_link(&pin).map_err(|source| AttachError::Pin {
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
        remove_link(&layout::link(&self.directory, hook.pin(), ifindex))
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
    let fd = sys::open_pin(pin, sys::READ_WRITE).ok()?;
    match sys::link_target(&sys::link_info(fd.as_fd()).ok()?) {
        LinkTarget::Xdp { ifindex } | LinkTarget::Tcx { ifindex, .. } => Some(ifindex),
        LinkTarget::Other => Some(0),
    }
}

/// Detaches a pinned link and removes its pin. None there is no error.
pub(super) fn remove_link(pin: &Path) -> io::Result<()> {
    if let Ok(fd) = sys::open_pin(pin, sys::READ_WRITE) {
        // Fails if its interface is gone already, or on kernels that cannot: then it goes with its pin.
        let _ = sys::detach_link(fd.as_fd());
    }
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
