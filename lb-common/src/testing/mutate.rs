//! Damaged frames, from a seed.

use std::vec::Vec;

/// A small generator of numbers (SplitMix64): the same seed gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }
}

/// Values at which length and offset fields break.
const EDGES: [u8; 12] = [0, 1, 5, 6, 17, 20, 40, 0x45, 0x60, 0x7f, 0x80, 0xff];

/// Changes a few bytes of the headers, or the length; never longer than `limit`, never shorter than an Ethernet header.
pub fn mutate(frame: &[u8], random: &mut Random, limit: usize) -> Vec<u8> {
    let mut out = frame.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len().min(140));
        match random.below(8) {
            0 | 1 => out[at] = random.number() as u8,
            2 | 3 => out[at] = EDGES[random.below(EDGES.len())],
            4 => out[at] ^= 1 << random.below(8),
            5 => out[at] = out[at].wrapping_add(1),
            6 => out.truncate((14 + random.below(out.len())).min(out.len())),
            _ => {
                let more = random.below(60).min(limit.saturating_sub(out.len()));
                out.extend((0..more).map(|n| n as u8));
            }
        }
    }
    out
}
