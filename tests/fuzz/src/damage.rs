//! Damaged copies of inputs, for a run without libFuzzer.

use lb_common::testing::mutate::Random;

/// Values at which numbers in bytes break.
const BYTES: [u8; 9] = [0, 1, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff];
/// What may stand for a value or a name in a text.
const WORDS: [&[u8]; 14] = [
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    b"0",
    b"-1",
    b"65536",
    b"18446744073709551616",
    b"1e99",
    b"true",
    b"\"::ffff:10.0.0.1\"",
    b"\"0.0.0.0/0\"",
    b"\"\\u0000\"",
    b"[null]",
];
/// Inputs do not grow beyond what they were and this.
const GROWTH: usize = 512;

/// A copy of `input` with a few changes, of which some are pieces of `other`.
pub fn damage(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = input.to_vec();
    let limit = input.len() + GROWTH;
    for _ in 0..=random.below(3) {
        if out.is_empty() {
            out.push(random.number() as u8);
        }
        let at = random.below(out.len());
        match random.below(10) {
            0 => out[at] = random.number() as u8,
            1 => out[at] = BYTES[random.below(BYTES.len())],
            2 => out[at] ^= 1 << random.below(8),
            3 => out.truncate(at),
            4 => drop(out.drain(at..(at + 1 + random.below(16)).min(out.len()))),
            5 => {
                let piece = piece(&out, random);
                out.splice(at..at, piece);
            }
            6 => {
                let piece = piece(other, random);
                out.splice(at..at, piece);
            }
            7 => {
                let piece = piece(other, random);
                let end = (at + piece.len()).min(out.len());
                out.splice(at..end, piece);
            }
            _ => {
                // A word of a text, whole.
                let word = WORDS[random.below(WORDS.len())];
                let value = value(&out, at);
                out.splice(value, word.iter().copied());
            }
        }
        out.truncate(limit);
    }
    out
}

fn piece(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let start = random.below(bytes.len());
    let end = (start + 1 + random.below(64)).min(bytes.len());
    bytes[start..end].to_vec()
}

/// The string in quotes, or the run of letters and digits, that begins at or after `at`.
fn value(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let begins = |byte: &u8| *byte == b'"' || byte.is_ascii_alphanumeric();
    let Some(start) = bytes[at..].iter().position(begins).map(|found| at + found) else {
        return at..at;
    };
    let length = if bytes[start] == b'"' {
        bytes[start + 1..].iter().position(|byte| *byte == b'"').map(|n| n + 2)
    } else {
        bytes[start..].iter().position(|byte| !byte.is_ascii_alphanumeric())
    };
    start..length.map_or(bytes.len(), |length| start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_whole() {
        let text = br#"{"a": "b c", "d": 12}"#;
        let found = |at| std::str::from_utf8(&text[value(text, at)]).unwrap();
        assert_eq!((found(0), found(5), found(17)), (r#""a""#, r#""b c""#, "12"));
        assert_eq!(value(text, text.len() - 1), 20..20);
    }

    #[test]
    fn the_same_seed_gives_the_same_damage() {
        let many = || {
            let mut random = Random::new(7);
            (0..100)
                .map(|_| damage(b"{\"a\": 1}", b"[2]", &mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(many(), many());
        assert!(many().iter().any(|bytes| bytes != b"{\"a\": 1}"));
    }
}
