//! The UDP side of one listen address. Answers leave from the address that was asked, also on a wildcard socket.
//!
//! What waits is received at once and answered in place, the answers at once too. One task at a time waits for datagrams, so
//! that one is woken; where more come than it answers at once, the next one takes over.

mod answers;
mod batch;
mod headers;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::Transport;
use super::server::{Reaction, Scratch, Server};
use answers::Answers;
use batch::{Batch, Received};

/// Datagrams after which others get a turn.
const STRETCH: usize = 128;

/// A bound UDP socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UdpSocket,
    wildcard: bool,
    v6: bool,
    /// Whose turn it is to receive: what comes wakes one task alone.
    turn: Mutex<()>,
}

/// The address that a datagram came to, where the socket alone does not tell.
type Local = Option<(IpAddr, u32)>;

impl Listener {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let wildcard = address.ip().is_unspecified();
        if wildcard && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if wildcard {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            wildcard,
            v6: address.is_ipv6(),
            turn: Mutex::new(()),
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for datagrams and receives those that are there.
    async fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        self.socket
            .async_io(Interest::READABLE, || {
                if self.wildcard {
                    batch.receive_each(|buffer| receive_with_address(&self.socket, buffer))
                } else {
                    batch.receive(self.socket.as_raw_fd(), self.v6)
                }
            })
            .await
    }

    async fn send(&self, bytes: &[u8], client: SocketAddr, local: Local) -> io::Result<()> {
        match local {
            None => match self.socket.try_send_to(bytes, client) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.send_to(bytes, client).await.map(|_| ())
                }
                sent => sent.map(|_| ()),
            },
            Some(local) => {
                self.socket
                    .async_io(Interest::WRITABLE, || {
                        send_from_address(&self.socket, bytes, client, local)
                    })
                    .await
            }
        }
    }
}

/// Serves until `stop`. What is being forwarded lives on in `tasks`.
pub(super) async fn serve(listener: Arc<Listener>, server: Arc<Server>, tasks: TaskTracker, stop: CancellationToken) {
    let mut batch = Batch::new();
    let mut scratch = Scratch::default();
    let mut answers = Answers::default();
    let mut turn = None;
    let mut stretch = 0;
    loop {
        let receive = async {
            if turn.is_none() {
                turn = Some(listener.turn.lock().await);
            }
            listener.receive(&mut batch).await
        };
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = receive => received,
        };
        if let Err(error) = received {
            tracing::debug!(target: "lb::dns", %error, "receiving failed");
            // A lasting error must not spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        if batch.is_full() {
            // More may be waiting than one can answer.
            turn = None;
        }
        for index in 0..batch.len() {
            let Received { client, local, .. } = batch.received(index);
            if let Some(answer) = server.quick(client, batch.bytes(index), &mut scratch) {
                match local {
                    None => answers.push(answer, client),
                    Some(_) => reply(&listener, answer, client, local).await,
                }
                continue;
            }
            match server.react(client, batch.bytes(index), Transport::Udp) {
                Reaction::Ignore => {}
                Reaction::Reply(pending) => {
                    server.sent(&pending);
                    reply(&listener, pending.bytes(), client, local).await;
                }
                Reaction::Forward(forward) => {
                    let (listener, server, stop) = (listener.clone(), server.clone(), stop.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            pending = server.forward(forward) => {
                                server.sent(&pending);
                                reply(&listener, pending.bytes(), client, local).await;
                            }
                        }
                    });
                }
            }
        }
        reply_to_all(&listener, &answers).await;
        answers.clear();
        stretch += batch.len();
        if stretch >= STRETCH {
            stretch = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Sends answers together, from the address of the socket; one that is not taken so goes by itself.
async fn reply_to_all(listener: &Listener, answers: &Answers) {
    let mut done = 0;
    while done < answers.len() {
        match answers.send(done, listener.socket.as_raw_fd()) {
            Ok(sent) => done += sent,
            Err(_) => {
                let (answer, client) = answers.get(done);
                reply(listener, answer, client, None).await;
                done += 1;
            }
        }
    }
}

async fn reply(listener: &Listener, bytes: &[u8], client: SocketAddr, local: Local) {
    if let Err(error) = listener.send(bytes, client, local).await {
        tracing::debug!(target: "lb::dns", %client, %error, "answer not sent");
    }
}

fn receive_with_address(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Local)> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let client = received
        .address
        .as_ref()
        .and_then(socket_address)
        .ok_or(io::ErrorKind::InvalidData)?;
    let local = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some((Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into(), 0))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = std::net::Ipv6Addr::from(info.ipi6_addr.s6_addr);
            // Only a link-local address needs its interface; any other follows the routes.
            Some((
                address.into(),
                if address.is_unicast_link_local() {
                    info.ipi6_ifindex
                } else {
                    0
                },
            ))
        }
        _ => None,
    });
    Ok((received.bytes, client, local))
}

fn send_from_address(
    socket: &UdpSocket,
    bytes: &[u8],
    client: SocketAddr,
    (address, ifindex): (IpAddr, u32),
) -> io::Result<()> {
    let (v4, v6);
    let control = match address {
        IpAddr::V4(address) => {
            let source = libc::in_addr {
                s_addr: u32::from(address).to_be(),
            };
            v4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(address) => {
            let source = libc::in6_addr {
                s6_addr: address.octets(),
            };
            v6 = libc::in6_pktinfo {
                ipi6_addr: source,
                ipi6_ifindex: ifindex,
            };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let client = SockaddrStorage::from(client);
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[control],
        MsgFlags::MSG_DONTWAIT,
        Some(&client),
    )?;
    Ok(())
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
}
