//! Attaches the programs: adopts the links of an earlier agent, makes those that are missing, removes those
//! that lead nowhere any more.
//!
//! A link that is adopted gets the new program in one step (BPF_LINK_UPDATE): no packet passes without one.

mod choose;
mod clsact;
mod hook;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, Xdp, XdpMode as AyaXdpMode};
use lb_common::abi::{InterfaceKey, NAMESPACE_NODE};

use super::sys::{self, LinkTarget};
use super::{carry, layout, load, object};
use crate::fault::{self, Point};
use crate::net::netns::Namespace;

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
    /// The namespace of an interface cannot be entered.
    #[error("network namespace {namespace}: {source}")]
    Namespace {
        /// Its name.
        namespace: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The programs of a namespace cannot be loaded.
    #[error("network namespace {namespace}: {source}")]
    Pair {
        /// Its name.
        namespace: String,
        /// What went wrong.
        source: Box<load::LoadError>,
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
    /// What is attached to workload interfaces in other network namespaces, by the namespace's cookie.
    pairs: BTreeMap<u64, Ebpf>,
    /// Hooks that carry this agent's programs (not those of an earlier one).
    ours: BTreeMap<(Hook, InterfaceKey), Namespace>,
    /// Pins of other versions, whose links are handed over.
    others: Vec<PathBuf>,
}

impl Attacher {
    /// Over programs that [`super::load::load`] returned; `tcx` says whether the kernel has it. `others` are directories
    /// of other versions ([`load::Loaded::carried`]): their links carry this version's programs from now on, and when
    /// none is left, they are removed.
    pub fn new(ebpf: Ebpf, directory: PathBuf, tcx: bool, others: Vec<PathBuf>) -> Self {
        Self {
            others,
            ebpf,
            directory,
            tcx,
            pairs: BTreeMap::new(),
            ours: BTreeMap::new(),
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
                        let _ = self.unpin(other, want.key().1);
                        for directory in &self.others {
                            let _ = remove_link(&layout::link(directory, other.pin(), want.key().1));
                        }
                    }
                }
            }
            let result = self.ensure(want);
            if result.is_ok() {
                kept.insert(want.key());
            }
            report.push(want.outcome(result.map_err(|e| chain(&e))));
        }
        let keys: BTreeSet<_> = wanted.iter().map(Wanted::key).collect();
        for (hook, interface) in self.pinned() {
            if !keys.contains(&(hook, interface)) {
                let InterfaceKey { namespace, ifindex, .. } = interface;
                match self.unpin(hook, interface) {
                    Ok(()) => {
                        tracing::info!(target: "lb::datapath", %hook, namespace, ifindex, "detached");
                        fault::here(Point::AttachDetached);
                    }
                    Err(error) => {
                        tracing::warn!(target: "lb::datapath", %hook, namespace, ifindex, %error, "cannot detach");
                    }
                }
            }
        }
        for ((hook, interface), namespace) in std::mem::take(&mut self.ours) {
            if kept.contains(&(hook, interface)) {
                self.ours.insert((hook, interface), namespace);
            } else if !self.tcx && !hook.is_xdp() {
                // A namespace that cannot be entered any more has taken its filters with it.
                let _ = namespace.run(|| clsact::detach_index(interface.ifindex, hook));
            }
        }
        self.pairs
            .retain(|cookie, _| kept.iter().any(|(_, interface)| interface.namespace == *cookie));
        if !self.others.is_empty() && report.iter().all(|attachment| attachment.error.is_none()) {
            fault::here(Point::MigrateLinks);
            self.others.retain(|directory| match retire(directory) {
                Ok(()) => {
                    tracing::info!(target: "lb::datapath", directory = %directory.display(), "retired");
                    false
                }
                Err(error) => {
                    let directory = directory.display();
                    tracing::warn!(target: "lb::datapath", %directory, %error, "cannot remove what another version left");
                    true
                }
            });
        }
        report
    }

    /// Takes over the pin of a link of another version. Its old program runs until the new one is put behind it.
    fn inherit(&self, want: &Wanted, pin: &Path) -> Result<(), AttachError> {
        for directory in &self.others {
            let old = layout::link(directory, want.hook.pin(), want.key().1);
            if link_at(&old) == Some(want.ifindex) {
                fs::rename(&old, pin).map_err(|source| AttachError::Pin { pin: old, source })?;
                fault::here(Point::MigrateLink);
                break;
            }
        }
        Ok(())
    }

    fn ensure(&mut self, want: &Wanted) -> Result<Mode, AttachError> {
        let mode = match want.hook {
            Hook::XdpNative => Mode::Native,
            Hook::XdpGeneric => Mode::Generic,
            _ if self.tcx => Mode::Tcx,
            _ => Mode::Clsact,
        };
        let key = want.key();
        if mode == Mode::Clsact {
            let there = || clsact::is_attached(&want.interface, want.hook);
            if !self.ours.contains_key(&key) || !want.inside(there)? {
                let program = self.classifier(want)?;
                want.inside(|| clsact::attach(program, want))??;
                self.ours.insert(key, want.namespace.clone());
            }
            return Ok(mode);
        }
        let pin = layout::link(&self.directory, want.hook.pin(), key.1);
        if !self.others.is_empty() && !pin.exists() {
            self.inherit(want, &pin)?;
        }
        let alive = link_at(&pin).is_some_and(|ifindex| ifindex == want.ifindex);
        if alive && self.ours.contains_key(&key) {
            return Ok(mode);
        }
        if alive {
            match self.adopt(want, &pin) {
                Ok(()) => {
                    tracing::info!(target: "lb::datapath", interface = %want.interface, hook = %want.hook, "adopted");
                    self.ours.insert(key, want.namespace.clone());
                    fault::here(Point::AttachAdopted);
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
        self.ours.insert(key, want.namespace.clone());
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
            let program = self.classifier(want)?;
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
            let program = self.classifier(want)?;
            let order = TcAttachOptions::TcxOrder(LinkOrder::first());
            // An interface is looked up in the namespace of whoever asks.
            let id = want
                .inside(|| program.attach_with_options(&want.interface, want.hook.direction(), order))?
                .map_err(fail)?;
            program
                .take_link(id)
                .map_err(fail)?
                .try_into()
                .map_err(|_: LinkError| not_a_link(want))?
        };
        fault::here(Point::AttachUnpinned);
        link.pin(pin).map_err(|e| AttachError::Pin {
            pin: pin.to_owned(),
            source: io::Error::other(e),
        })?;
        fault::here(Point::AttachPinned);
        Ok(())
    }

    /// The program for a tc hook: of the pair of its namespace, where it knows its namespace.
    fn classifier(&mut self, want: &Wanted) -> Result<&mut SchedClassifier, AttachError> {
        let cookie = want.namespace.cookie();
        if cookie == NAMESPACE_NODE {
            return program(&mut self.ebpf, want.hook);
        }
        let pair =
            match self.pairs.entry(cookie) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(free) => free.insert(load::pair(object(), &self.directory, cookie).map_err(
                    |source| AttachError::Pair {
                        namespace: want.namespace.name(),
                        source: Box::new(source),
                    },
                )?),
            };
        program(pair, want.hook)
    }

    fn pinned(&self) -> Vec<(Hook, InterfaceKey)> {
        pinned_links(&self.directory)
            .into_iter()
            .filter_map(|(hook, interface)| Some((Hook::from_pin(&hook)?, interface)))
            .collect()
    }

    fn unpin(&mut self, hook: Hook, interface: InterfaceKey) -> io::Result<()> {
        self.ours.remove(&(hook, interface));
        remove_link(&layout::link(&self.directory, hook.pin(), interface))
    }
}

impl Wanted {
    /// Runs `work` in the namespace of the interface.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, AttachError> {
        self.namespace.run(work).map_err(|source| AttachError::Namespace {
            namespace: self.namespace.name(),
            source,
        })
    }
}

/// Hooks and interfaces of the links pinned below `directory`.
pub fn pinned_links(directory: &Path) -> Vec<(String, InterfaceKey)> {
    let Ok(entries) = fs::read_dir(layout::links(directory)) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            layout::parse_link(&name).map(|(hook, interface)| (hook.to_owned(), interface))
        })
        .collect()
}

/// Takes the filters of all our programs off an interface (kernels without tcx; links go with their pins).
pub fn detach_filters(interface: &str) -> Vec<AttachError> {
    [Hook::TcNode, Hook::FromWorkload, Hook::ToWorkload, Hook::FromHost]
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

/// Detaches what another version has attached and nobody wants any more, and removes its pins.
fn retire(directory: &Path) -> io::Result<()> {
    for (hook, interface) in pinned_links(directory) {
        remove_link(&layout::link(directory, &hook, interface))?;
    }
    carry::retire(directory)
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
