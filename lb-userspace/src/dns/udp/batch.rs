//! [`Batch`]: datagrams that are received together.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::RawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, recvmmsg};

use super::Local;
use super::headers::{COUNT, Headers};

/// Larger questions do not exist; what is cut off here does not parse.
const BUFFER: usize = 4096;

thread_local! {
    static HEADERS: Headers = Headers::new();
}

/// Where a datagram is, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    length: usize,
    pub(super) client: SocketAddr,
    pub(super) local: Local,
}

/// Room for them.
#[derive(Debug)]
pub(super) struct Batch {
    buffers: Vec<u8>,
    received: Vec<Received>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            buffers: vec![0; COUNT * BUFFER],
            received: Vec::with_capacity(COUNT),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.received.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.received.len() == COUNT
    }

    pub(super) fn received(&self, index: usize) -> Received {
        self.received[index]
    }

    /// A datagram's content.
    pub(super) fn bytes(&self, index: usize) -> &[u8] {
        &self.buffers[index * BUFFER..][..self.received[index].length]
    }

    /// Receives what is there, in the place of what was, from a socket of IPv6 or of IPv4.
    ///
    /// # Errors
    /// Nothing is there, or the socket has an error to tell.
    pub(super) fn receive(&mut self, socket: RawFd, v6: bool) -> io::Result<()> {
        self.received.clear();
        let (buffers, received) = (&mut self.buffers, &mut self.received);
        HEADERS.with(|headers| {
            if v6 {
                let headers = &mut headers.v6.borrow_mut();
                receive(socket, headers, buffers, received, |client: SockaddrIn6| {
                    SocketAddrV6::new(client.ip(), client.port(), client.flowinfo(), client.scope_id()).into()
                })
            } else {
                let headers = &mut headers.v4.borrow_mut();
                receive(socket, headers, buffers, received, |client: SockaddrIn| {
                    (client.ip(), client.port()).into()
                })
            }
        })
    }

    /// Receives what is there, datagram by datagram, in the place of what was.
    ///
    /// # Errors
    /// Nothing is there, or the socket has an error to tell.
    pub(super) fn receive_each(
        &mut self,
        mut receive: impl FnMut(&mut [u8]) -> io::Result<(usize, SocketAddr, Local)>,
    ) -> io::Result<()> {
        self.received.clear();
        for buffer in self.buffers.chunks_exact_mut(BUFFER) {
            match receive(buffer) {
                Ok((length, client, local)) => self.received.push(Received { length, client, local }),
                // What is wrong is told again, when nothing else is there to be done.
                Err(_) if !self.received.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn receive<'a, S: SockaddrLike + Copy>(
    socket: RawFd,
    headers: &'a mut MultiHeaders<S>,
    buffers: &'a mut [u8],
    received: &mut Vec<Received>,
    client: impl Fn(S) -> SocketAddr,
) -> io::Result<()> {
    let mut buffers = buffers.chunks_exact_mut(BUFFER);
    let mut parts: [_; COUNT] = std::array::from_fn(|_| [IoSliceMut::new(buffers.next().unwrap_or_default())]);
    let messages = recvmmsg(socket, headers, parts.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    received.extend(messages.map_while(|message| {
        Some(Received {
            length: message.bytes,
            client: client(message.address?),
            local: None,
        })
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    fn check(batch: &mut Batch, local: &str, count: usize) {
        let v6 = local.contains(':');
        let server = UdpSocket::bind((local, 0)).unwrap();
        server.set_nonblocking(true).unwrap();
        let clients: Vec<_> = (0..count).map(|_| UdpSocket::bind((local, 0)).unwrap()).collect();
        for (index, client) in clients.iter().enumerate() {
            let sent = vec![index as u8; index * 7];
            client.send_to(&sent, server.local_addr().unwrap()).unwrap();
        }
        let mut seen = 0;
        while seen < count {
            batch.receive(server.as_raw_fd(), v6).unwrap();
            assert_eq!(batch.len(), COUNT.min(count - seen));
            assert_eq!(batch.is_full(), count - seen >= COUNT);
            for index in 0..batch.len() {
                assert_eq!(batch.received(index).client, clients[seen].local_addr().unwrap());
                assert_eq!(batch.bytes(index), vec![seen as u8; seen * 7]);
                seen += 1;
            }
        }
        let nothing = batch.receive(server.as_raw_fd(), v6).unwrap_err();
        assert_eq!((nothing.kind(), batch.len()), (io::ErrorKind::WouldBlock, 0));
    }

    #[test]
    fn what_waits_is_received_in_order_with_its_clients_in_both_families() {
        let mut batch = Batch::new();
        for count in [1, COUNT, 2, COUNT + 3] {
            check(&mut batch, "127.0.0.1", count);
            check(&mut batch, "::1", count);
        }
    }

    #[test]
    fn a_failure_behind_what_came_takes_nothing_away() {
        let mut batch = Batch::new();
        let mut left = 3;
        let one = |buffer: &mut [u8]| {
            left -= 1;
            buffer[0] = left;
            let client = SocketAddr::from(([127, 0, 0, 1], left.into()));
            (left > 0)
                .then_some((1, client, None))
                .ok_or(io::ErrorKind::Other.into())
        };
        batch.receive_each(one).unwrap();
        assert_eq!((batch.len(), batch.bytes(0), batch.bytes(1)), (2, &[2][..], &[1][..]));
        assert!(batch.receive_each(|_| Err(io::ErrorKind::Other.into())).is_err());
        assert_eq!(batch.len(), 0);
    }
}
