//! Automatic published ports and network ids: pure functions of the document, so that every node derives the same.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use lb_common::abi::NETWORK_MAX;

use crate::model::snapshot::Protocol;

/// Ports that are given out automatically, as Docker Swarm does.
pub const AUTOMATIC: RangeInclusive<u16> = 30_000..=32_767;

/// A published port that the document leaves to us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) network: &'a str,
    pub(super) service: &'a str,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// Ports for all of `wanted`, in its order; `None` where the range is used up.
///
/// The first choice depends on the names alone. Where it is taken, by a port that the document names or by an earlier
/// entry, the next ones of the entry's own sequence are tried. So a port moves only if it or its predecessor in a
/// collision changes, and never because something is appended without a port of its own.
pub(super) fn assign(wanted: &[Wanted<'_>], explicit: &BTreeSet<(u16, Protocol)>) -> Vec<Option<u16>> {
    let mut taken = explicit.clone();
    let count = u64::from(AUTOMATIC.end() - AUTOMATIC.start()) + 1;
    let mut out = Vec::with_capacity(wanted.len());
    for want in wanted {
        let hash = mix(fnv1a(&format!(
            "{}/{}/{}/{}",
            want.network, want.service, want.port, want.protocol
        )));
        let first = hash % count;
        // The range has 2768 = 16 * 173 ports: a stride prime to both visits them all.
        let stride = (1..)
            .map(|add| (hash >> 32) % count + add)
            .find(|stride| stride % 2 != 0 && stride % 173 != 0);
        let stride = stride.unwrap_or(1);
        let port = (0..count)
            .map(|step| AUTOMATIC.start() + ((first + step * stride) % count) as u16)
            .find(|port| !taken.contains(&(*port, want.protocol)));
        if let Some(port) = port {
            taken.insert((port, want.protocol));
        }
        out.push(port);
    }
    out
}

/// Id of a network that names none: 24 bits, never 0.
pub(super) fn network_id(name: &str) -> u32 {
    (mix(fnv1a(&format!("network/{name}"))) % u64::from(NETWORK_MAX)) as u32 + 1
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Spreads FNV's weak low bits (the finaliser of SplitMix64).
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[String]) -> Vec<Wanted<'_>> {
        names
            .iter()
            .map(|name| Wanted {
                network: "n",
                service: name,
                port: 80,
                protocol: Protocol::Tcp,
            })
            .collect()
    }

    #[test]
    fn known_values_never_change() {
        // A new version of the agent must derive what the old one derived.
        let names = ["web".to_owned(), "api".to_owned()];
        assert_eq!(
            assign(&wanted(&names), &BTreeSet::new()),
            [Some(KNOWN.0), Some(KNOWN.1)]
        );
        assert_eq!(network_id("shop"), KNOWN.2);
    }

    const KNOWN: (u16, u16, u32) = (31_951, 31_506, 15_054_671);

    #[test]
    fn appending_moves_nothing_and_all_differ() {
        let names: Vec<String> = (0..2_000).map(|i| format!("s{i}")).collect();
        let all = assign(&wanted(&names), &BTreeSet::new());
        for shown in [1, 10, 100, 1_999] {
            assert_eq!(assign(&wanted(&names[..shown]), &BTreeSet::new()), all[..shown]);
        }
        let distinct: BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 2_000);
        assert!(distinct.iter().all(|port| AUTOMATIC.contains(port)));
    }

    #[test]
    fn removing_an_entry_moves_only_what_had_given_way_to_it() {
        let names: Vec<String> = (0..40).map(|i| format!("s{i}")).collect();
        let all = assign(&wanted(&names), &BTreeSet::new());
        let without = assign(&wanted(&names[1..]), &BTreeSet::new());
        for (index, port) in without.iter().enumerate() {
            assert!(*port == all[index + 1] || *port == all[0], "{} moved", names[index + 1]);
        }
    }

    #[test]
    fn explicit_ports_are_left_alone() {
        let names = ["web".to_owned()];
        let first = assign(&wanted(&names), &BTreeSet::new())[0].unwrap();
        let second = assign(&wanted(&names), &BTreeSet::from([(first, Protocol::Tcp)]))[0].unwrap();
        assert_ne!(first, second);
        let other_protocol = assign(&wanted(&names), &BTreeSet::from([(first, Protocol::Udp)]))[0].unwrap();
        assert_eq!(first, other_protocol);
    }

    #[test]
    fn the_whole_range_is_used_before_it_is_used_up() {
        let names: Vec<String> = (0..2_770).map(|i| format!("s{i}")).collect();
        let ports = assign(&wanted(&names), &BTreeSet::new());
        assert_eq!(ports.iter().flatten().collect::<BTreeSet<_>>().len(), 2_768);
        assert_eq!(ports.iter().filter(|port| port.is_none()).count(), 2);
    }

    #[test]
    fn network_ids_have_24_bits_and_are_never_zero() {
        for i in 0..100_000 {
            let id = network_id(&format!("n{i}"));
            assert!((1..=NETWORK_MAX).contains(&id));
        }
    }
}
