//! ARP for VIPs (RFC 826).

use crate::abi::Interface;
use crate::address::Address;
use crate::tables::Tables;
use crate::verdict::{Reason, Verdict};
use crate::wire::{Packet, ethertype, rewrite};

/// Answers a request for a VIP of the interface's network with the interface's MAC; `l3`: offset of the ARP packet.
#[inline(never)]
pub fn answer<P: Packet, T: Tables>(packet: &mut P, tables: &T, interface: &Interface, l3: usize) -> Verdict {
    let Some(request) = packet.load::<28>(l3) else {
        return Verdict::pass(Reason::PassMalformed);
    };
    let [v0, v1] = ethertype::IPV4.to_be_bytes();
    // Ethernet, IPv4, request.
    let asks = [
        request[0], request[1], request[2], request[3], request[4], request[5], request[6], request[7],
    ];
    if asks != [0, 1, v0, v1, 6, 4, 0, 1] {
        return Verdict::pass(Reason::PassProtocol);
    }
    let target = [request[24], request[25], request[26], request[27]];
    if !tables.is_vip(&Address::v4(target), interface.network) {
        return Verdict::pass(Reason::PassProtocol);
    }
    let asker: [u8; 6] = [
        request[8],
        request[9],
        request[10],
        request[11],
        request[12],
        request[13],
    ];
    let asker_ip: [u8; 4] = [request[14], request[15], request[16], request[17]];
    match reply(packet, l3, interface.mac, target, asker, asker_ip) {
        Some(()) => Verdict::transmit(Reason::AnswerArp),
        None => Verdict::drop(Reason::DropRewrite),
    }
}

#[inline(always)]
fn reply<P: Packet>(
    packet: &mut P,
    l3: usize,
    mac: [u8; 6],
    target: [u8; 4],
    asker: [u8; 6],
    asker_ip: [u8; 4],
) -> Option<()> {
    packet.store(l3 + 6, [0, 2])?;
    packet.store(l3 + 8, mac)?;
    packet.store(l3 + 14, target)?;
    packet.store(l3 + 18, asker)?;
    packet.store(l3 + 24, asker_ip)?;
    rewrite::set_macs(packet, asker, mac)
}
