//! Binding: both sockets of a listen address, with errors that say how to mend them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::DnsError;
use super::udp::Listener;
use crate::net::listen;

/// Kernel buffer of each UDP socket, bytes: room for a burst of some thousand questions.
const UDP_BUFFER: usize = 1 << 20;

/// Both sockets of one listen address, on one port.
pub(super) fn bind(address: SocketAddr) -> Result<(SocketAddr, Listener, TcpListener), DnsError> {
    // A port that is free for UDP may be taken for TCP: with port 0, try another.
    let mut tries = if address.port() == 0 { 16 } else { 1 };
    loop {
        tries -= 1;
        let udp = bind_udp(address).map_err(|source| bind_error(address, "UDP", source))?;
        let bound = udp.local_addr().map_err(|source| bind_error(address, "UDP", source))?;
        match listen::tcp(bound) {
            Ok(tcp) => return Ok((bound, udp, tcp)),
            Err(source) if tries == 0 || source.kind() != io::ErrorKind::AddrInUse => {
                return Err(bind_error(address, "TCP", source));
            }
            Err(_) => {}
        }
    }
}

fn bind_udp(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // The kernel may give less; that is no reason not to serve.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    Listener::new(socket.into())
}

fn bind_error(address: SocketAddr, transport: &'static str, source: io::Error) -> DnsError {
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another server has this port (`ss -lntup` shows which): stop it or listen on another address"
        }
        io::ErrorKind::AddrNotAvailable => "no interface here has this address (`ip address` lists them)",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "see the listen addresses of DNS in the configuration",
    };
    DnsError::Bind {
        address,
        transport,
        source,
        hint,
    }
}

/// Whether a question sent to `upstream` would arrive at `listen`.
pub(super) fn is_same_server(listen: SocketAddr, upstream: SocketAddr) -> bool {
    listen.port() == upstream.port()
        && (listen.ip() == upstream.ip()
            || upstream.ip().is_unspecified()
            || (listen.ip().is_unspecified() && listen.is_ipv4() == upstream.is_ipv4() && is_local(upstream.ip())))
}

/// Whether this network namespace has the address: only then can a socket be bound to it.
pub(super) fn is_local(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}
