//! Listeners: the Unix socket with its mode and group, and TCP for metrics.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{State, routes};

/// Why a listener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another agent answers there.
    #[error("{}: another agent is listening", .0.display())]
    InUse(PathBuf),
    /// Something else lies there.
    #[error("{}: exists and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The group does not exist.
    #[error("no group {0:?} for the admin socket")]
    Group(String),
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// The path or address.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A bound admin socket. Bound apart from serving, so that a start fails early and readiness is honest.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Binds `path`, in place of a dead agent's socket, with `mode` (as 0o660) and, if given, the group of that name.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Io {
            what: path.display().to_string(),
            source,
        };
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => return Err(ServeError::NoSocket(path.into())),
            Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(ServeError::InUse(path.into())),
            _ => {}
        }
        // Bound under another name first: nobody may connect before mode and group are right.
        let hidden = path.with_extension(format!("new-{}", std::process::id()));
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(failed)?;
        let prepared = prepare(&hidden, mode, group).and_then(|()| std::fs::rename(&hidden, path).map_err(failed));
        if let Err(e) = prepared {
            let _ = std::fs::remove_file(&hidden);
            return Err(e);
        }
        Ok(Self {
            path: path.into(),
            listener,
        })
    }
}

fn prepare(path: &Path, mode: u32, group: Option<&str>) -> Result<(), ServeError> {
    let failed = |source| ServeError::Io {
        what: path.display().to_string(),
        source,
    };
    if let Some(name) = group {
        let found = nix::unistd::Group::from_name(name).map_err(|e| failed(e.into()))?;
        let found = found.ok_or_else(|| ServeError::Group(name.into()))?;
        nix::unistd::chown(path, None, Some(found.gid)).map_err(|e| failed(e.into()))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}

/// Serves the whole API on the Unix socket until `cancel`; removes the socket then.
///
/// # Errors
/// When the listener fails.
pub async fn serve(socket: Socket, state: State, cancel: CancellationToken) -> Result<(), ServeError> {
    let Socket { path, listener } = socket;
    let named = path.clone();
    let stop = async move {
        cancel.cancelled().await;
        // While we still listen: afterwards the name may be a successor's.
        let _ = std::fs::remove_file(&named);
    };
    let result = axum::serve(listener, routes::full(state))
        .with_graceful_shutdown(stop)
        .await;
    result.map_err(|source| ServeError::Io {
        what: path.display().to_string(),
        source,
    })
}

/// Serves `/metrics`, `/livez` and `/readyz`, and nothing else, on a bound TCP listener until `cancel`.
///
/// # Errors
/// When the listener fails.
pub async fn serve_metrics(listener: TcpListener, state: State, cancel: CancellationToken) -> Result<(), ServeError> {
    let address: Option<SocketAddr> = listener.local_addr().ok();
    let stop = async move { cancel.cancelled().await };
    let result = axum::serve(listener, routes::metrics_only(state))
        .with_graceful_shutdown(stop)
        .await;
    result.map_err(|source| ServeError::Io {
        what: address.map_or_else(String::new, |a| a.to_string()),
        source,
    })
}
