//! Puts programs onto interfaces: behind a link that is pinned, or with a new one.

use std::collections::btree_map::Entry;
use std::io;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, Xdp, XdpMode as AyaXdpMode};
use lb_common::abi::NAMESPACE_NODE;

use super::{AttachError, Attacher, Hook, Wanted};
use crate::datapath::{load, object};
use crate::fault::{self, Point};

impl Attacher {
    /// Puts this agent's program behind a link that is pinned.
    pub(super) fn adopt(&mut self, want: &Wanted, pin: &Path) -> Result<(), AttachError> {
        let fail = |source: ProgramError| AttachError::Program {
            hook: want.hook,
            interface: want.interface.clone(),
            source,
        };
        let not_a_link = |_: LinkError| AttachError::not_a_link(want);
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

    pub(super) fn attach(&mut self, want: &Wanted, pin: &Path) -> Result<(), AttachError> {
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
                .map_err(|_: LinkError| AttachError::not_a_link(want))?
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
                .map_err(|_: LinkError| AttachError::not_a_link(want))?
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
    pub(super) fn classifier(&mut self, want: &Wanted) -> Result<&mut SchedClassifier, AttachError> {
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
}

impl Wanted {
    /// Runs `work` in the namespace of the interface.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, AttachError> {
        self.namespace.run(work).map_err(|source| AttachError::Namespace {
            namespace: self.namespace.name(),
            source,
        })
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
