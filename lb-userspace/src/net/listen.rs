//! Listening for TCP connections.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 256;

/// Listens at `address`; at one of IPv6 for IPv6 only. Needs a tokio runtime.
///
/// # Errors
/// What the kernel says, such as that somebody else has the port.
pub(crate) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // A restarted agent must not wait for its predecessor's closed connections.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
