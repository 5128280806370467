//! Neighbour solicitations for VIPs (RFC 4861 4.3, 4.4, 7.2.4).

use crate::abi::Interface;
use crate::address::Address;
use crate::tables::Tables;
use crate::verdict::{Reason, Verdict};
use crate::wire::checksum::pseudo;
use crate::wire::parse::Headers;
use crate::wire::{Packet, protocol, rewrite};

/// ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Solicited, override.
const FLAGS: u8 = 0x60;
/// A solicitation with its source link-layer address option.
const LENGTH: usize = 32;

/// Answers a solicitation for a VIP of the interface's network with the interface's MAC.
#[inline(never)]
pub fn answer<P: Packet, T: Tables>(packet: &mut P, tables: &T, interface: &Interface, h: &Headers) -> Verdict {
    // Without the option the sender is only checking for duplicates. Hop limit 255: it came from this link.
    if h.ip_length != 40 + LENGTH || h.ttl != 255 {
        return Verdict::pass(Reason::PassProtocol);
    }
    let Some([1, 1]) = packet.load::<2>(h.l4 + 24) else {
        return Verdict::pass(Reason::PassProtocol);
    };
    let Some(target) = packet.load_v6(h.l4 + 8) else {
        return Verdict::pass(Reason::PassMalformed);
    };
    if !tables.is_vip(&target, interface.network) {
        return Verdict::pass(Reason::PassProtocol);
    }
    match advertise(packet, h, interface.mac, &target) {
        Some(()) => Verdict::transmit(Reason::AnswerArp),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

#[inline(always)]
fn advertise<P: Packet>(packet: &mut P, h: &Headers, mac: [u8; 6], target: &Address) -> Option<()> {
    let asker = packet.load::<6>(6)?;
    packet.store_addresses(h.l3, target, &h.tuple.source, true)?;
    let head = [ADVERTISEMENT, 0, 0, 0, FLAGS, 0, 0, 0];
    let option = [2, 1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]];
    let sum = pseudo(target, &h.tuple.source, protocol::ICMPV6, LENGTH as u16, true);
    let check = sum.words(&head).address(target, true).words(&option).checksum();
    packet.store(h.l4, head)?;
    packet.store(h.l4 + 2, check)?;
    packet.store(h.l4 + 24, option)?;
    rewrite::set_macs(packet, asker, mac)
}
