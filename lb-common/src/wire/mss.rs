//! Clamping of the TCP maximum segment size (RFC 9293 3.7.1) on SYN and SYN-ACK.

use super::Packet;
use super::checksum::Diff;
use super::parse::Headers;

/// Lowers the segment size that a SYN announces to `limit`.
#[inline(always)]
pub fn clamp<P: Packet>(packet: &mut P, h: &Headers, limit: u16) -> Option<()> {
    let end = h.l4_length;
    let mut at = 20;
    // At most 40 bytes of options; a SYN carries few, and each turn moves on by at least one byte.
    for _ in 0..12u64 {
        if at + 4 > end || at > 56 {
            return Some(());
        }
        let option = packet.load::<4>(h.l4 + at)?;
        match option[0] {
            0 => return Some(()),
            1 => at += 1,
            2 if option[1] == 4 => {
                let old = [option[2], option[3]];
                if u16::from_be_bytes(old) <= limit {
                    return Some(());
                }
                let new = limit.to_be_bytes();
                packet.store(h.l4 + at + 2, new)?;
                // At an odd offset the two bytes straddle words: their sum is that of the swapped bytes.
                let diff = if at % 2 == 0 {
                    Diff::ZERO.change2(old, new)
                } else {
                    Diff::ZERO.change2([old[1], old[0]], [new[1], new[0]])
                };
                return packet.update_l4_checksum(h.l4 + 16, Diff::ZERO, diff, false, h.tuple.v6);
            }
            _ => {
                if option[1] < 2 {
                    return Some(());
                }
                at += option[1] as usize;
            }
        }
    }
    Some(())
}
