//! Attaches the programs: adopts the links of an earlier agent, makes those that are missing, removes those
//! that lead nowhere any more.
//!
//! A link that is adopted gets the new program in one step (BPF_LINK_UPDATE): no packet passes without one.

mod choose;
mod clsact;
mod error;
mod hook;
mod link;
mod pins;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use lb_common::abi::InterfaceKey;

use super::layout;
use crate::fault::{self, Point};
use crate::net::netns::Namespace;

pub use choose::{Interfaces, NodeInterface, WorkloadInterface, XdpChoice, choose_xdp};
pub use error::AttachError;
pub use hook::{Attachment, Hook, Mode, Wanted};
pub use pins::pinned_links;
pub(super) use pins::remove_link;

use error::chain;
use pins::{link_at, retire};

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
                fault::here(Point::AttachFilter);
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

/// Takes the filters of all our programs off an interface (kernels without tcx; links go with their pins).
pub fn detach_filters(interface: &str) -> Vec<AttachError> {
    [Hook::TcNode, Hook::FromWorkload, Hook::ToWorkload, Hook::FromHost]
        .into_iter()
        .filter_map(|hook| clsact::detach(interface, hook).err())
        .collect()
}
