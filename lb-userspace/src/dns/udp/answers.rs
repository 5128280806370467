//! [`Answers`]: datagrams that are sent together.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::RawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrLike, sendmmsg};

use super::headers::Headers;

thread_local! {
    static HEADERS: Headers = Headers::new();
}

/// At most [`COUNT`](super::headers::COUNT) answers, and to whom.
#[derive(Debug, Default)]
pub(super) struct Answers {
    bytes: Vec<u8>,
    each: Vec<(Range<usize>, SocketAddr)>,
}

impl Answers {
    /// Adds one.
    pub(super) fn push(&mut self, answer: &[u8], client: SocketAddr) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(answer);
        self.each.push((start..self.bytes.len(), client));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.each.len()
    }

    /// One of them, and to whom.
    pub(super) fn get(&self, index: usize) -> (&[u8], SocketAddr) {
        let (range, client) = &self.each[index];
        (&self.bytes[range.clone()], *client)
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.each.clear();
    }

    /// Sends what comes after the first `done` answers: how many the socket took, at least one.
    ///
    /// # Errors
    /// The socket does not take the next one now, or at all.
    pub(super) fn send(&self, done: usize, socket: RawFd) -> io::Result<usize> {
        HEADERS.with(|headers| {
            if self.each[done].1.is_ipv6() {
                let headers = &mut headers.v6.borrow_mut();
                self.send_as(done, socket, headers, |client| match client {
                    SocketAddr::V6(client) => Some(client.into()),
                    SocketAddr::V4(_) => None,
                })
            } else {
                let headers = &mut headers.v4.borrow_mut();
                self.send_as(done, socket, headers, |client| match client {
                    SocketAddr::V4(client) => Some(client.into()),
                    SocketAddr::V6(_) => None,
                })
            }
        })
    }

    fn send_as<S: SockaddrLike + Copy>(
        &self,
        done: usize,
        socket: RawFd,
        headers: &mut MultiHeaders<S>,
        address: impl Fn(SocketAddr) -> Option<S>,
    ) -> io::Result<usize> {
        let each = &self.each[done..];
        let parts: Vec<_> = each
            .iter()
            .map(|(range, _)| [IoSlice::new(&self.bytes[range.clone()])])
            .collect();
        let clients: Vec<_> = each.iter().map(|(_, client)| address(*client)).collect();
        let sent = sendmmsg(socket, headers, &parts, &clients, [], MsgFlags::MSG_DONTWAIT)?;
        Ok(sent.count())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd as _;
    use std::time::Duration;

    use super::super::headers::COUNT;
    use super::*;

    fn check(local: &str, count: usize) {
        let server = UdpSocket::bind((local, 0)).unwrap();
        let clients: Vec<_> = (0..count).map(|_| UdpSocket::bind((local, 0)).unwrap()).collect();
        let mut answers = Answers::default();
        for (index, client) in clients.iter().enumerate() {
            answers.push(&vec![index as u8; index * 3], client.local_addr().unwrap());
        }
        let mut done = 0;
        while done < answers.len() {
            done += answers.send(done, server.as_raw_fd()).unwrap();
        }
        for (index, client) in clients.iter().enumerate() {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut buffer = [0; 200];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(from, server.local_addr().unwrap());
            assert_eq!(buffer[..length], vec![index as u8; index * 3]);
            assert_eq!(answers.get(index), (&buffer[..length], client.local_addr().unwrap()));
        }
    }

    #[test]
    fn each_client_gets_its_own_in_both_families() {
        for count in [1, 7, COUNT] {
            check("127.0.0.1", count);
            check("::1", count);
        }
    }

    #[test]
    fn one_that_cannot_be_sent_holds_up_none() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let client = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let mut answers = Answers::default();
        answers.push(b"first", client.local_addr().unwrap());
        // Nobody has port 0.
        answers.push(b"second", ([127, 0, 0, 1], 0).into());
        answers.push(b"third", client.local_addr().unwrap());
        assert_eq!(answers.send(0, server.as_raw_fd()).unwrap(), 1);
        assert_eq!(
            answers.send(1, server.as_raw_fd()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(answers.send(2, server.as_raw_fd()).unwrap(), 1);
        for expected in [&b"first"[..], b"third"] {
            let mut buffer = [0; 20];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }
}
