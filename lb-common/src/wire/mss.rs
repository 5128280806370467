//! Clamping of the TCP maximum segment size (RFC 9293 3.7.1) on SYN and SYN-ACK.

use super::Packet;
use super::checksum::Diff;
use super::parse::Headers;

/// Offset of the first option.
const FIRST: usize = 20;

/// Lowers the segment size that a SYN announces to `limit`.
#[inline(always)]
pub fn clamp<P: Packet>(packet: &mut P, h: &Headers, limit: u16) -> Option<()> {
    let end = h.l4_length;
    let mut at = FIRST;
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
                return lower(packet, h, at, [option[2], option[3]], limit);
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

/// As [`clamp`], of a SYN that announces the size before all other options, as nearly all do, or has none. False: this one is not
/// such.
#[inline(always)]
pub fn clamp_first<P: Packet>(packet: &mut P, h: &Headers, limit: u16) -> Option<bool> {
    if h.l4_length < FIRST + 4 {
        return Some(true);
    }
    match packet.load::<4>(h.l4 + FIRST)? {
        [2, 4, size @ ..] => lower(packet, h, FIRST, size, limit).map(|()| true),
        _ => Some(false),
    }
}

/// Writes `limit` in place of the size in the option at `at`, if that is larger.
#[inline(always)]
fn lower<P: Packet>(packet: &mut P, h: &Headers, at: usize, old: [u8; 2], limit: u16) -> Option<()> {
    if u16::from_be_bytes(old) <= limit {
        return Some(());
    }
    let new = limit.to_be_bytes();
    packet.store(h.l4 + at + 2, new)?;
    // At an odd offset the two bytes straddle words: their sum is that of the swapped bytes.
    let diff = if at.is_multiple_of(2) {
        Diff::ZERO.change2(old, new)
    } else {
        Diff::ZERO.change2([old[1], old[0]], [new[1], new[0]])
    };
    packet.update_l4_checksum(h.l4 + 16, Diff::ZERO, diff, false, h.tuple.v6)
}
