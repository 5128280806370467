//! What of a packet buffer must lie in its linear part before the pipeline begins (tc).
//!
//! A socket's segments keep their payload in pages of its own beside the headers. To pull more than the headers out of there
//! costs a copy of the whole head, and the receiver can no longer join what arrives with what is there already. So nothing is
//! pulled of packets whose headers are known to be all that is looked at.

use super::tcp::SYN;
use super::{ETHERNET, Packet, ethertype, tunnel};
use crate::abi::{TCP, UDP};

/// Bytes that are brought into reach where it is not known what is needed: headers of a tunnelled packet and of the one inside it,
/// which may be an ICMP error with what it quotes.
pub const HEADERS: usize = 14 + 40 + 8 + 36 + 40 + 8 + 40 + 20;

/// Whether all that the pipeline reads or writes of a packet lies in reach already: TCP segments but the first of a connection,
/// whose options matter, and UDP, bare or as the tunnel's (`tunnel_port`) with such a packet inside. Of all else this is not
/// known.
#[inline(always)]
pub fn suffices<P: Packet>(packet: &P, tunnel_port: u16) -> bool {
    match packet.load_u16(12) {
        Some(ethertype::IPV4) => outer::<P, ETHERNET, { ETHERNET + 20 }>(packet, false, tunnel_port),
        Some(ethertype::IPV6) => outer::<P, ETHERNET, { ETHERNET + 40 }>(packet, true, tunnel_port),
        _ => false,
    }
}

/// The IP packet at `L3`, whose payload is at `L4`.
#[inline(always)]
fn outer<P: Packet, const L3: usize, const L4: usize>(packet: &P, v6: bool, tunnel_port: u16) -> bool {
    match protocol(packet, L3, v6) {
        Some(TCP) => goes_on(packet, L4),
        Some(UDP) => match packet.load::<8>(L4) {
            Some([_, _, high, low, ..]) if u16::from_be_bytes([high, low]) == tunnel_port => inner(packet, L4),
            found => found.is_some(),
        },
        _ => false,
    }
}

/// The packet inside the tunnel's UDP header at `l4`.
#[inline(always)]
fn inner<P: Packet>(packet: &P, l4: usize) -> bool {
    let Some(v6) = tunnel::inner_v6(packet, l4) else {
        return false;
    };
    let l3 = tunnel::inner(l4);
    let l4 = l3 + if v6 { 40 } else { 20 };
    match protocol(packet, l3, v6) {
        Some(TCP) => goes_on(packet, l4),
        Some(UDP) => packet.load::<8>(l4).is_some(),
        _ => false,
    }
}

/// What an IP header at `l3` that is followed by no other says of its payload.
#[inline(always)]
fn protocol<P: Packet>(packet: &P, l3: usize, v6: bool) -> Option<u8> {
    if v6 {
        let [.., next, _] = packet.load::<8>(l3)?;
        return Some(next);
    }
    match packet.load::<10>(l3)? {
        [0x45, .., protocol] => Some(protocol),
        _ => None,
    }
}

/// Whether the fixed TCP header at `l4` lies in reach and is none that begins a connection.
#[inline(always)]
fn goes_on<P: Packet>(packet: &P, l4: usize) -> bool {
    matches!(packet.load::<20>(l4), Some(header) if header[13] & SYN == 0)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::vec::Vec;

    use super::*;
    use crate::testing::frame::{self, Frame, ethernet};
    use crate::testing::packet::MemoryPacket;
    use crate::wire::tcp::ACK;

    const PORT: u16 = 4789;

    fn ends(v6: bool) -> [SocketAddr; 2] {
        let pair = if v6 {
            ["[2001:db8::7]:40000", "[2001:db8::1]:80"]
        } else {
            ["192.0.2.7:40000", "192.0.2.1:80"]
        };
        pair.map(|end| end.parse().expect("an address"))
    }

    fn large(protocol: u8, v6: bool) -> Frame {
        let [client, frontend] = ends(v6);
        Frame::new(protocol, client, frontend).payload(&[7; 1000])
    }

    /// `inner` in the tunnel.
    fn tunnelled(inner: &[u8], v6: bool, port: u16) -> Vec<u8> {
        let [mut here, mut there] = ends(v6);
        here.set_port(50_000);
        there.set_port(port);
        let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        let packet = frame::tunnel((here, there), 1, 0, ends(v6)[1], inner);
        ethernet([2; 6], [4; 6], kind, &packet)
    }

    /// The least that must be in reach of a frame, if less than all headers will do.
    fn least(frame: &[u8]) -> Option<usize> {
        (0..HEADERS).find(|&end| suffices(&MemoryPacket::<false>::new(&frame[..end]), PORT))
    }

    #[test]
    fn of_data_the_headers_do() {
        for (v6, ip) in [(false, 20), (true, 40)] {
            assert_eq!(least(&large(TCP, v6).build()), Some(14 + ip + 20));
            assert_eq!(least(&large(UDP, v6).build()), Some(14 + ip + 8));
            for (outer_v6, outer) in [(false, 20), (true, 40)] {
                let around = 14 + outer + 8 + 36;
                let tcp = tunnelled(&large(TCP, v6).packet(), outer_v6, PORT);
                assert_eq!(least(&tcp), Some(around + ip + 20));
                let udp = tunnelled(&large(UDP, v6).packet(), outer_v6, PORT);
                assert_eq!(least(&udp), Some(around + ip + 8));
                let another = tunnelled(&large(TCP, v6).packet(), outer_v6, PORT + 1);
                assert_eq!(least(&another), Some(14 + outer + 8), "nobody looks inside");
            }
        }
    }

    #[test]
    fn of_what_has_more_to_it_all_headers_are_needed() {
        for v6 in [false, true] {
            for flags in [SYN, SYN | ACK] {
                let opening = large(TCP, v6).flags(flags);
                assert_eq!(least(&opening.build()), None);
                assert_eq!(least(&tunnelled(&opening.packet(), v6, PORT)), None);
            }
            assert_eq!(least(&large(TCP, v6).tag(ethertype::VLAN, 7).build()), None);
            assert_eq!(least(&tunnelled(&[0; 1000], v6, PORT)), None, "no IP packet");
        }
        assert_eq!(least(&large(TCP, false).options(&[1; 4]).build()), None);
        let [client, frontend] = ends(false);
        let quote = large(TCP, false).packet();
        let error = frame::icmp_error(client.ip(), frontend.ip(), (3, 3), 0, &quote);
        assert_eq!(least(&ethernet([2; 6], [4; 6], ethertype::IPV4, &error)), None);
    }
}
