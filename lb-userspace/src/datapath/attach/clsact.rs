//! tc on kernels without tcx: filters on a clsact qdisc, known again by priority and handle.
//!
//! They cannot be pinned and need not be: a filter lives as long as its interface.

use std::ffi::CString;

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier};

use super::{AttachError, Hook, Wanted};

/// Before everybody else.
const PRIORITY: u16 = 1;
/// Told from other users of the same priority.
const HANDLE: TcHandle = TcHandle::new(0, 0x1b);

/// Attaches `program`, or replaces that of an earlier agent in one step.
pub(super) fn attach(program: &mut SchedClassifier, want: &Wanted) -> Result<(), AttachError> {
    let fail = |source: ProgramError| AttachError::Program {
        hook: want.hook,
        interface: want.interface.clone(),
        source,
    };
    // It may be there already; if it could not be added, attaching says so.
    let _ = tc::qdisc_add_clsact(&want.interface);
    let direction = want.hook.direction();
    let replaced = SchedClassifierLink::attached(&want.interface, direction, PRIORITY, HANDLE, None)
        .map_err(|e| fail(e.into()))
        .and_then(|link| program.attach_to_link(link).map_err(fail));
    let id = match replaced {
        Ok(id) => id,
        Err(_) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            };
            program
                .attach_with_options(&want.interface, direction, TcAttachOptions::Netlink(options))
                .map_err(fail)?
        }
    };
    // Dropping the link would detach it.
    std::mem::forget(program.take_link(id).map_err(fail)?);
    Ok(())
}

/// Whether the qdisc of this interface is still there: filters go only with it.
pub(super) fn is_attached(interface: &str, hook: Hook) -> bool {
    // Adding it again succeeds only if it was gone; then the filter is gone too.
    let _ = hook;
    tc::qdisc_add_clsact(interface).is_err()
}

/// Removes our filter. None there is no error.
pub(super) fn detach(interface: &str, hook: Hook) -> Result<(), AttachError> {
    match tc::qdisc_detach_program(interface, hook.direction(), hook.program()) {
        Ok(()) => Ok(()),
        Err(TcError::IoError(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // No clsact qdisc, so no filters either.
        Err(TcError::NetlinkError(_)) => Ok(()),
        Err(e) => Err(AttachError::Program {
            hook,
            interface: interface.into(),
            source: e.into(),
        }),
    }
}

/// As [`detach`], for an interface of which only the index is known.
pub(super) fn detach_index(ifindex: u32, hook: Hook) {
    let Ok(name) = nix::net::if_::if_indextoname(ifindex) else {
        return;
    };
    if let Some(error) = interface_name(name).and_then(|name| detach(&name, hook).err()) {
        tracing::warn!(target: "lb::datapath", %hook, ifindex, %error, "cannot detach");
    }
}

fn interface_name(name: CString) -> Option<String> {
    name.into_string().ok()
}
