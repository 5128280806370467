//! The packet path over any frame, in every program, over every fixture's world.
//!
//! Input: which world (four bytes), then packets: program (one byte), flags (one), interface (one), length (two), frame.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use lb_common::testing::fixture::{Entry, Fixture, Input, Step, hex, run as execute};
use lb_common::testing::fixtures;
use lb_common::testing::world::NOW;
use lb_common::verdict::Action;

use crate::sums;

/// Packets of one input.
const PACKETS: usize = 8;
/// Longest frame.
const LENGTH: usize = 2048;
/// What the tunnel puts around a packet at most: IPv6, UDP, Geneve with its option.
const TUNNEL: usize = 40 + 8 + 36;
/// Longest answer of our own: an ICMPv6 error.
const ANSWER: usize = 14 + 1280;

/// Payload of each segment of a buffer that has several.
const SEGMENT: usize = 1400;

/// Flag: the frame's checksums are set right first, which chance does not do.
const REPAIR: u8 = 1;
/// Flag: the buffer is of several segments.
const SEGMENTED: u8 = 2;
/// Flag: a tag beside the frame.
const TAGGED: u8 = 4;
/// Flag: the interface is the given one, not the fixture's.
const ELSEWHERE: u8 = 8;

thread_local! {
    static WORLDS: LazyCell<BTreeMap<u32, Fixture>> =
        LazyCell::new(|| fixtures().into_iter().map(|fixture| (number(&fixture.name), fixture)).collect());
}

/// Of a world, by its fixture's name: others may come and go.
fn number(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Runs the packets.
///
/// # Panics
/// If what is passed was changed, a frame grows beyond what framing explains, or right checksums became wrong.
pub fn run(bytes: &[u8]) {
    let Some((world, packets)) = bytes.split_first_chunk() else {
        return;
    };
    WORLDS.with(|worlds| {
        // The next one where there is none of this number: every input means something.
        let mut nearest = worlds.range(u32::from_be_bytes(*world)..).chain(worlds.iter());
        if let Some((_, fixture)) = nearest.next() {
            run_in(fixture, packets);
        }
    });
}

/// The packets of an input.
fn packets(fixture: &Fixture, mut rest: &[u8]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for index in 0..PACKETS {
        let Some((&[entry, flags, interface, high, low], behind)) = rest.split_first_chunk() else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([high, low]))
            .min(LENGTH)
            .min(behind.len());
        let (frame, behind) = behind.split_at(length);
        rest = behind;
        // The kernel gives no frame without an Ethernet header.
        if frame.len() < 14 {
            continue;
        }
        let step = &fixture.steps[index.min(fixture.steps.len() - 1)].input;
        let mut input = Input {
            entry: Entry::ALL[usize::from(entry) % Entry::ALL.len()],
            frame: frame.to_vec(),
            segment: if flags & SEGMENTED != 0 { SEGMENT } else { 0 },
            side_tag: flags & TAGGED != 0,
            ..step.clone()
        };
        if flags & ELSEWHERE != 0 {
            input.ifindex = interface.into();
        }
        if flags & REPAIR != 0 {
            sums::repair(&mut input.frame);
        }
        inputs.push(input);
    }
    inputs
}

fn run_in(fixture: &Fixture, bytes: &[u8]) {
    let world = fixture.world.clone();
    for (index, input) in packets(fixture, bytes).iter().enumerate() {
        let output = execute(&world.tables, input, NOW + index as u32);
        let said = || {
            format!(
                "{} in the world of {}: {:?}\n in {}\nout {}",
                input.program(),
                fixture.name,
                output.verdict,
                hex(&input.frame),
                hex(&output.frame)
            )
        };
        match output.verdict.action {
            Action::Pass => assert!(output.frame == input.frame, "passed and changed: {}", said()),
            Action::Drop => {}
            _ => {
                let limit = (input.frame.len() + TUNNEL).max(ANSWER);
                assert!(output.frame.len() <= limit, "grown: {}", said());
                if sums::right(&input.frame) == Some(true) {
                    assert_ne!(sums::right(&output.frame), Some(false), "checksums: {}", said());
                }
            }
        }
    }
}

/// The fixtures' own packets.
pub fn seeds() -> Vec<Vec<u8>> {
    fixtures().iter().map(seed).collect()
}

/// The first of a fixture's steps, as far as a seed has room for their frames.
fn steps(fixture: &Fixture) -> impl Iterator<Item = &Step> {
    let fits = |step: &&Step| step.input.frame.len() <= LENGTH;
    fixture.steps.iter().take_while(fits).take(PACKETS)
}

fn seed(fixture: &Fixture) -> Vec<u8> {
    let mut bytes = number(&fixture.name).to_be_bytes().to_vec();
    for step in steps(fixture) {
        let input = &step.input;
        let entry = Entry::ALL.iter().position(|entry| *entry == input.entry).unwrap_or(0);
        let flags = [(input.segment != 0, SEGMENTED), (input.side_tag, TAGGED)];
        let flags = flags
            .iter()
            .filter(|(on, _)| *on)
            .fold(ELSEWHERE, |sum, (_, flag)| sum | flag);
        bytes.extend([entry as u8, flags, input.ifindex as u8]);
        bytes.extend((input.frame.len() as u16).to_be_bytes());
        bytes.extend(&input.frame);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_holds_its_fixtures_packets() {
        for fixture in fixtures() {
            let inputs = packets(&fixture, &seed(&fixture)[4..]);
            assert_eq!(inputs.len(), steps(&fixture).count(), "{}", fixture.name);
            for (input, step) in inputs.iter().zip(steps(&fixture)) {
                let expected = Input {
                    segment: if step.input.segment == 0 { 0 } else { SEGMENT },
                    ..step.input.clone()
                };
                assert_eq!(format!("{input:?}"), format!("{expected:?}"), "{}", fixture.name);
            }
        }
    }

    #[test]
    fn no_two_worlds_have_one_number() {
        let count = WORLDS.with(|worlds| worlds.len());
        assert_eq!(count, fixtures().len());
    }
}
