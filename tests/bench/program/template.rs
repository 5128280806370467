//! [`Template`]: one frame of which every client has his own version, made in a few instructions.

/// Ports of one client address; the next one begins where they end.
const PORTS: u32 = 60_000;
const FIRST_PORT: u16 = 1024;

/// Which end of the connection the client is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// It sends the frame.
    Source,
    /// It is to get it.
    Destination,
}

/// A TCP frame in which address and port of the client can be changed; checksums follow.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    frame: Vec<u8>,
    /// Offset of the last two bytes of the client's address.
    address: usize,
    /// Offset of its port.
    port: usize,
    /// Offsets of the checksums: IPv4's, if there is one, and TCP's.
    sums: (Option<usize>, usize),
    /// Last two bytes of the first client's address.
    base: u16,
}

impl Template {
    /// `l3`: offset of the IP header that the client stands in; `first`: clients in between are somebody else's.
    pub(crate) fn new(frame: Vec<u8>, l3: usize, client: Client, first: u32) -> Self {
        let v6 = frame[l3] >> 4 == 6;
        let destination = usize::from(client == Client::Destination);
        let (address, l4) = if v6 {
            (l3 + 8 + 16 * destination + 14, l3 + 40)
        } else {
            (l3 + 12 + 4 * destination + 2, l3 + 20)
        };
        let base = u16::from_be_bytes([frame[address], frame[address + 1]]) + (first / PORTS) as u16;
        Self {
            address,
            port: l4 + 2 * destination,
            sums: ((!v6).then_some(l3 + 10), l4 + 16),
            base,
            frame,
        }
    }

    /// The frame of the client of this number.
    pub(crate) fn of(&mut self, client: u32) -> &[u8] {
        let address = self.base + (client / PORTS) as u16;
        let port = FIRST_PORT + (client % PORTS) as u16;
        let (old_address, old_port) = (self.word(self.address), self.word(self.port));
        if let Some(sum) = self.sums.0 {
            self.update(sum, old_address, address);
        }
        self.update(self.sums.1, old_address, address);
        self.update(self.sums.1, old_port, port);
        self.set(self.address, address);
        self.set(self.port, port);
        &self.frame
    }

    fn word(&self, offset: usize) -> u16 {
        u16::from_be_bytes([self.frame[offset], self.frame[offset + 1]])
    }

    fn set(&mut self, offset: usize, word: u16) {
        self.frame[offset..offset + 2].copy_from_slice(&word.to_be_bytes());
    }

    /// RFC 1624, equation 3.
    fn update(&mut self, offset: usize, from: u16, to: u16) {
        let mut sum = u32::from(!self.word(offset)) + u32::from(!from) + u32::from(to);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        self.set(offset, !(sum as u16));
    }
}

#[cfg(test)]
mod tests {
    use lb_common::testing::world::Case;

    use super::*;

    #[test]
    fn every_client_has_a_right_frame_of_its_own() {
        for case in Case::TCP {
            let opening = case.opening();
            let mut template = Template::new(opening.build(), 14, Client::Source, 0);
            for client in [0, 1, 59_999, 60_000, 600_001] {
                let mut ip = case.client().ip().to_canonical();
                let last = (client / PORTS) as u8;
                ip = match ip {
                    std::net::IpAddr::V4(v4) => {
                        let [a, b, c, d] = v4.octets();
                        [a, b, c, d + last].into()
                    }
                    std::net::IpAddr::V6(v6) => {
                        let mut segments = v6.segments();
                        segments[7] += u16::from(last);
                        segments.into()
                    }
                };
                let port = FIRST_PORT + (client % PORTS) as u16;
                let expected = opening.clone().from((ip, port).into()).build();
                assert_eq!(template.of(client), expected, "{} {client}", case.name());
            }
        }
    }
}
