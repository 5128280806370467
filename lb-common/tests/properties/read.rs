//! Packets as etherparse reads them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetHeaders, PacketHeaders, TcpOptionElement, TransportHeader};
use lb_common::testing::world::TUNNEL_PORT;

/// Geneve header with the balancer's option.
const FRAMING: usize = 36;

/// A packet as etherparse reads it: the innermost, if it is in the tunnel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) ttl: u8,
    pub(crate) mss: Option<u16>,
    pub(crate) tunnelled: bool,
    pub(crate) payload: Vec<u8>,
}

/// Reads an IP packet and holds every checksum against a full recomputation.
fn read(packet: &[u8]) -> Read {
    let headers = PacketHeaders::from_ip_slice(packet).expect("an IP packet");
    let payload = headers.payload.slice();
    let transport = headers.transport.expect("TCP, UDP or ICMP");
    let (source, destination, ttl): (IpAddr, IpAddr, u8);
    match headers.net.as_ref().expect("an IP header") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header");
            (source, destination, ttl) = (ip.source.into(), ip.destination.into(), ip.time_to_live);
            match &transport {
                TransportHeader::Udp(h) if h.checksum == 0 => {}
                TransportHeader::Udp(h) => assert_eq!(h.checksum, h.calc_checksum_ipv4(ip, payload).unwrap(), "UDP"),
                TransportHeader::Tcp(h) => assert_eq!(h.checksum, h.calc_checksum_ipv4(ip, payload).unwrap(), "TCP"),
                TransportHeader::Icmpv4(h) => assert_eq!(h.checksum, h.icmp_type.calc_checksum(payload), "ICMP"),
                other => panic!("{other:?} in IPv4"),
            }
        }
        NetHeaders::Ipv6(ip, _) => {
            (source, destination, ttl) = (ip.source.into(), ip.destination.into(), ip.hop_limit);
            match &transport {
                TransportHeader::Udp(h) if h.destination_port == TUNNEL_PORT && h.checksum == 0 => {}
                TransportHeader::Udp(h) => assert_eq!(h.checksum, h.calc_checksum_ipv6(ip, payload).unwrap(), "UDP"),
                TransportHeader::Tcp(h) => assert_eq!(h.checksum, h.calc_checksum_ipv6(ip, payload).unwrap(), "TCP"),
                TransportHeader::Icmpv6(h) => {
                    let sum = h.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
                    assert_eq!(h.checksum, sum, "ICMPv6");
                }
                other => panic!("{other:?} in IPv6"),
            }
        }
        other => panic!("{other:?}"),
    }
    let (ports, mss) = match &transport {
        TransportHeader::Udp(h) => {
            if h.destination_port == TUNNEL_PORT {
                let inner = read(&payload[FRAMING..]);
                return Read {
                    tunnelled: true,
                    ..inner
                };
            }
            ((h.source_port, h.destination_port), None)
        }
        TransportHeader::Tcp(h) => {
            let mss = h.options_iterator().find_map(|option| match option {
                Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
                _ => None,
            });
            ((h.source_port, h.destination_port), mss)
        }
        _ => ((0, 0), None),
    };
    Read {
        source: (source, ports.0).into(),
        destination: (destination, ports.1).into(),
        ttl,
        mss,
        tunnelled: false,
        payload: payload.to_vec(),
    }
}

/// Behind an Ethernet header without a tag.
pub(crate) fn read_frame(frame: &[u8]) -> Read {
    read(&frame[14..])
}
