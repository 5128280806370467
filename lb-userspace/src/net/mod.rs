//! Links, addresses, routes and neighbours of this network namespace, through rtnetlink.

mod address;
pub mod card;
pub(crate) mod limits;
mod link;
pub(crate) mod listen;
pub mod memory;
mod neighbour;
pub mod netns;
pub mod privileges;
mod resolve;
mod route;
mod watch;

use futures::{Stream, TryStreamExt};
use rtnetlink::Handle;

pub use link::Link;
pub use neighbour::{BridgeEntry, Neighbour};
pub use resolve::{Place, Routes, Surroundings};
pub use route::Hop;
pub use watch::watch;

/// rtnetlink refused.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// A request failed.
    #[error("cannot {operation}: {source}")]
    Request {
        /// What was asked.
        operation: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// A socket to the kernel.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be opened.
    pub fn connect() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Opens a socket in another network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the socket not be opened.
    pub fn connect_in(namespace: &netns::Namespace) -> Result<Self, NetError> {
        let runtime = tokio::runtime::Handle::current();
        namespace.run(|| {
            let _runtime = runtime.enter();
            Self::connect()
        })?
    }
}

async fn all<T>(
    operation: &'static str,
    replies: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetError> {
    replies
        .try_collect()
        .await
        .map_err(|source| NetError::Request { operation, source })
}
