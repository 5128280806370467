//! Checksums of frames, computed from nothing (RFC 1071); no code in common with the packet path.

use lb_common::testing::world::TUNNEL_PORT;

const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Geneve header with the balancer's option.
const FRAMING: usize = 36;

/// A checksum in a frame.
struct Sum {
    /// Where it lies.
    at: usize,
    /// What it covers.
    from: usize,
    to: usize,
    /// What it covers beside that.
    pseudo: Vec<u8>,
    /// It may be zero, which says that there is none.
    optional: bool,
}

/// Whether every checksum of a frame is right, also inside the tunnel; `None` if it cannot be judged: no IP packet, a
/// fragment, extension headers, or cut short.
pub(crate) fn right(frame: &[u8]) -> Option<bool> {
    let sums = find(frame)?;
    Some(sums.iter().all(|sum| {
        let field = [frame[sum.at], frame[sum.at + 1]];
        (sum.optional && field == [0, 0]) || add(&sum.pseudo, &frame[sum.from..sum.to]) == 0xffff
    }))
}

/// Sets every checksum of a frame right, where it can be judged.
pub(crate) fn repair(frame: &mut [u8]) {
    // The inner packet's first: the outer covers them.
    for sum in find(frame).unwrap_or_default().iter().rev() {
        frame[sum.at..sum.at + 2].fill(0);
        let value = !add(&sum.pseudo, &frame[sum.from..sum.to]);
        let value = if sum.optional && value == 0 { 0xffff } else { value };
        frame[sum.at..sum.at + 2].copy_from_slice(&value.to_be_bytes());
    }
}

fn find(frame: &[u8]) -> Option<Vec<Sum>> {
    let mut sums = Vec::new();
    packet(frame, ETHERNET, word(frame, 12)?, &mut sums)?;
    Some(sums)
}

/// The sums of the packet that begins at `ip`.
fn packet(frame: &[u8], ip: usize, ethertype: u16, sums: &mut Vec<Sum>) -> Option<()> {
    let (protocol, payload, end, addresses) = match ethertype {
        0x0800 => {
            let header = 4 * usize::from(frame.get(ip)? & 15);
            let end = ip + usize::from(word(frame, ip + 2)?);
            let fragment = word(frame, ip + 6)? & 0x3fff != 0;
            if frame[ip] >> 4 != 4 || header < 20 || fragment || ip + header > end || end > frame.len() {
                return None;
            }
            sums.push(Sum {
                at: ip + 10,
                from: ip,
                to: ip + header,
                pseudo: Vec::new(),
                optional: false,
            });
            (frame[ip + 9], ip + header, end, &frame[ip + 12..ip + 20])
        }
        0x86dd => {
            let end = ip + 40 + usize::from(word(frame, ip + 4)?);
            if frame.get(ip)? >> 4 != 6 || end > frame.len() {
                return None;
            }
            (frame[ip + 6], ip + 40, end, &frame[ip + 8..ip + 40])
        }
        _ => return None,
    };
    let length = end - payload;
    let (offset, least) = match protocol {
        TCP => (16, 20),
        UDP => (6, 8),
        ICMP => (2, 8),
        ICMPV6 => (2, 8),
        _ => return None,
    };
    if length < least {
        return None;
    }
    let mut pseudo = Vec::new();
    if protocol != ICMP {
        pseudo.extend(addresses);
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
    }
    let mut optional = false;
    if protocol == UDP {
        // Another length than IP's: receivers disagree about such a packet.
        if usize::from(word(frame, payload + 4)?) != length {
            return None;
        }
        let tunnel = word(frame, payload + 2)? == TUNNEL_PORT;
        // In IPv6 only tunnels may do without (RFC 6935).
        optional = ethertype == 0x0800 || tunnel;
        sums.push(Sum {
            at: payload + offset,
            from: payload,
            to: end,
            pseudo,
            optional,
        });
        if tunnel && length >= 8 + FRAMING {
            let inner = word(frame, payload + 8 + 2)?;
            // What is in there may be anything: then the outer ones are all.
            let at = payload + 8 + FRAMING;
            let inside = packet(&frame[..end], at, inner, sums);
            // Unless it reaches beyond the outer one: what is read there nobody has summed.
            if inside.is_none() && packet(frame, at, inner, &mut Vec::new()).is_some() {
                return None;
            }
        }
        return Some(());
    }
    sums.push(Sum {
        at: payload + offset,
        from: payload,
        to: end,
        pseudo,
        optional,
    });
    Some(())
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// The one's complement sum of both; a last odd byte counts as the high one of a word.
fn add(pseudo: &[u8], bytes: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let whole = bytes.chunks(2);
        whole
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
            .sum()
    };
    let mut sum = words(pseudo) + words(bytes);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use lb_common::testing::world::Case;

    use super::*;

    #[test]
    fn frames_of_fixtures_are_right_and_damaged_ones_are_not() {
        for case in Case::ALL {
            let mut frame = case.opening().build();
            assert_eq!(right(&frame), Some(true), "{}", case.name());
            let last = frame.len() - 1;
            frame[last] ^= 1;
            assert_eq!(right(&frame), Some(false), "{}", case.name());
            repair(&mut frame);
            assert_eq!(right(&frame), Some(true), "{}", case.name());
        }
        assert_eq!(right(&[0; 60]), None);
    }
}
