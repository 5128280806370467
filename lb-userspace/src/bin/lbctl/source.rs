//! Whom to ask: the agent, or the pinned maps when no agent answers.

use std::io::ErrorKind;

use lb_userspace::admin::api::{Code, Error, Item, List};
use lb_userspace::datapath::view::{View, ViewError};
use serde::de::DeserializeOwned;

use crate::args::{Common, From};
use crate::client::{self, AgentError};

/// Asks the agent alone.
pub(crate) fn agent<T: Item + DeserializeOwned>(
    common: &Common,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<List<T>, Error> {
    client::get(&common.socket, common.timeout, path, parameters).map_err(|e| match e {
        AgentError::Refused(error) => error,
        AgentError::Unreachable(e) => {
            let denied = e.kind() == ErrorKind::PermissionDenied;
            let code = if denied {
                Code::PermissionDenied
            } else {
                Code::Unavailable
            };
            let error = Error::new(
                code,
                format!("agent not reachable ({}: {})", common.socket.display(), plain(&e)),
            );
            error.hint(if denied {
                "run as root, or join the group that owns the socket"
            } else {
                "is lb-agent running? another socket: --socket PATH or LB_SOCKET"
            })
        }
    })
}

/// Opens the pinned maps.
pub(crate) fn maps(common: &Common) -> Result<View, Error> {
    View::find(&common.bpffs).map_err(|e| {
        let (code, hint) = match &e {
            ViewError::NotFound(_) => (
                Code::Unavailable,
                "has lb-agent ever run here? another directory: --bpffs DIR or LB_BPFFS",
            ),
            ViewError::Denied(_) => (
                Code::PermissionDenied,
                "run as root, or join the group that owns the pins",
            ),
            ViewError::Schema { .. } => (Code::Version, "use the lbctl of the agent's version"),
            ViewError::Io { .. } => (Code::Internal, "`lbctl doctor` examines kernel and bpffs"),
        };
        Error::new(code, e.to_string()).hint(hint)
    })
}

/// Asks the agent, or else makes the same answer from the maps, as `from` says.
pub(crate) fn ask<T: Item + DeserializeOwned>(
    common: &Common,
    from: From,
    path: &str,
    parameters: &[(&str, &str)],
    read: impl FnOnce(&View) -> Result<List<T>, Error>,
) -> Result<List<T>, Error> {
    match from {
        From::Agent => return agent(common, path, parameters),
        From::Maps => return read(&maps(common)?),
        From::Auto => {}
    }
    let e = match client::get(&common.socket, common.timeout, path, parameters) {
        Ok(list) => return Ok(list),
        Err(AgentError::Refused(error)) => return Err(error),
        Err(AgentError::Unreachable(e)) => e,
    };
    let reason = format!("{}: {}", common.socket.display(), plain(&e));
    match maps(common) {
        Ok(view) => {
            eprintln!("note: agent not reachable ({reason}); reading pinned maps, names unknown");
            read(&view)
        }
        Err(error) if error.code == Code::Unavailable && e.kind() == ErrorKind::PermissionDenied => Err(Error::new(
            Code::PermissionDenied,
            format!("may not ask the agent ({reason})"),
        )
        .hint("run as root, or join the group that owns the socket")),
        Err(error) if error.code == Code::Unavailable => Err(Error::new(
            error.code,
            format!("agent not reachable ({reason}), and {}", error.message),
        )
        .hint("is lb-agent running? other places: --socket PATH, --bpffs DIR")),
        Err(error) => Err(error),
    }
}

/// What went wrong, without the number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".into(),
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
