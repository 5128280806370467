//! A packet turned into the ICMP error that answers it (RFC 792, RFC 1191, RFC 4443 3.1, 3.2).

use crate::abi::TCP;
use crate::verdict::{Reason, Verdict};
use crate::wire::checksum::{Diff, pseudo};
use crate::wire::parse::Headers;
use crate::wire::{ETHERNET, Packet, protocol, rewrite};

/// Which error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Nobody listens on the port.
    Port,
    /// Larger than the path's next stretch, whose MTU this is.
    TooBig(u16),
}

/// Answers an untagged packet with an error from the address that it was sent to.
#[inline(always)]
pub fn answer<P: Packet>(packet: &mut P, h: &Headers, error: Error, reason: Reason) -> Verdict {
    // The quote holds the IP header and eight bytes, what every sender needs to know its packet again; of TCP the whole
    // fixed header, because the kernel lets no one cut off a checksum that its card shall still finish.
    let done = match (h.tuple.v6, h.tuple.protocol == TCP) {
        (false, false) => answer_v4::<P, 28>(packet, h, error),
        (false, true) => answer_v4::<P, 40>(packet, h, error),
        // Behind the fragment header.
        (true, false) if P::FRAGMENTS => answer_v6::<P, 56>(packet, h, error),
        (true, false) => answer_v6::<P, 48>(packet, h, error),
        (true, true) => answer_v6::<P, 60>(packet, h, error),
    };
    match done {
        Some(()) => Verdict::transmit(reason),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

#[inline(always)]
fn answer_v4<P: Packet, const QUOTE: usize>(packet: &mut P, h: &Headers, error: Error) -> Option<()> {
    packet.truncate(ETHERNET + QUOTE)?;
    packet.insert(28, false, false)?;
    let quote = packet.load::<QUOTE>(ETHERNET + 28)?;
    let (code, mtu) = match error {
        Error::Port => (3, [0; 2]),
        Error::TooBig(mtu) => (4, mtu.to_be_bytes()),
    };
    let icmp = [3, code, 0, 0, 0, 0, mtu[0], mtu[1]];
    let check = Diff::ZERO.words(&icmp).words(&quote).checksum();
    packet.store(ETHERNET + 20, icmp)?;
    packet.store(ETHERNET + 22, check)?;

    let (source, destination) = (&h.tuple.destination, &h.tuple.source);
    let mut head = [0x45, 0xc0, 0, 28 + QUOTE as u8, 0, 0, 0x40, 0, 64, protocol::ICMP, 0, 0];
    let sum = Diff::ZERO.address(source, false).address(destination, false);
    [head[10], head[11]] = sum.words(&head).checksum();
    packet.store(ETHERNET, head)?;
    packet.store_addresses(ETHERNET, source, destination, false)?;
    rewrite::swap_macs(packet)
}

#[inline(always)]
fn answer_v6<P: Packet, const QUOTE: usize>(packet: &mut P, h: &Headers, error: Error) -> Option<()> {
    packet.truncate(ETHERNET + QUOTE)?;
    packet.insert(48, true, false)?;
    let quote = packet.load::<QUOTE>(ETHERNET + 48)?;
    let icmp = match error {
        Error::Port => [1, 4, 0, 0, 0, 0, 0, 0],
        Error::TooBig(mtu) => {
            let mtu = mtu.to_be_bytes();
            [2, 0, 0, 0, 0, 0, mtu[0], mtu[1]]
        }
    };
    let length = 8 + QUOTE as u16;
    let sum = pseudo(&h.tuple.destination, &h.tuple.source, protocol::ICMPV6, length, true);
    let check = sum.words(&icmp).words(&quote).checksum();
    packet.store(ETHERNET + 40, icmp)?;
    packet.store(ETHERNET + 42, check)?;

    let n = length.to_be_bytes();
    packet.store(ETHERNET, [0x60, 0, 0, 0, n[0], n[1], protocol::ICMPV6, 64])?;
    packet.store_addresses(ETHERNET, &h.tuple.destination, &h.tuple.source, true)?;
    rewrite::swap_macs(packet)
}
