//! Which backend takes a new flow.

use crate::abi::{BACKEND_GONE, Service, SlotKey};
use crate::tables::Tables;

/// Outcome of a selection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// The backend's id.
    Backend(u32),
    /// The service has none.
    Empty,
}

/// Takes the service's next number and the backend in the slot that it falls on: over any run of new flows, counts
/// differ by at most one, whatever CPU they arrive on. Weights are in the order of the slots. `avoid`: the backend's id plus
/// one that has just refused the flow, and lets others go before it; or 0.
#[inline(always)]
pub fn in_turn<T: Tables>(tables: &T, service: u32, avoid: u32) -> Selection {
    // The slots of the generation read may be gone a moment later: then the service has flipped, and is read again.
    for turn in 0..4 {
        let Some(entry) = tables.service(service) else {
            return Selection::Empty;
        };
        if entry.count == 0 {
            return Selection::Empty;
        }
        let (generation, count) = (entry.generation, entry.count);
        let Some(ticket) = tables.ticket(service) else {
            return Selection::Empty;
        };
        let index = (ticket % count as u64) as u32;
        if let Some(id) = tables.slot(&SlotKey {
            service,
            generation,
            index,
        }) && let Some(backend) = tables.backend(id)
            && backend.state != BACKEND_GONE
            && (turn > 1 || id + 1 != avoid)
        {
            return Selection::Backend(id);
        }
    }
    Selection::Empty
}

/// Slots among which a hash chooses. A service with more is divided into parts of as many.
pub const PART: u32 = 16;

/// The backend that has the highest score for a hash among those in the slots: rendezvous hashing (D. Thaler and C. Ravishankar,
/// "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking 6, 1998). It depends on nothing
/// that is counted, so it is the same each time; and when a backend goes or comes, only the hashes move that it had or gets.
/// `avoid`: as for [`in_turn`]. Weights do not count here. Of a service with more than [`PART`] slots, hashes of others can move too.
#[inline(always)]
pub fn by_hash<T: Tables>(tables: &T, service: u32, hash: u32, avoid: u32) -> Selection {
    for turn in 0..3 {
        let Some(entry) = tables.service(service) else {
            return Selection::Empty;
        };
        if entry.count == 0 {
            return Selection::Empty;
        }
        let avoid = if turn == 0 { avoid } else { 0 };
        if let Some(id) = highest(tables, service, &entry, hash, avoid) {
            return Selection::Backend(id);
        }
    }
    Selection::Empty
}

#[inline(always)]
fn highest<T: Tables>(tables: &T, service: u32, entry: &Service, hash: u32, avoid: u32) -> Option<u32> {
    let (generation, count) = (entry.generation, entry.count);
    let first = if count > PART {
        mix(hash) % count.div_ceil(PART) * PART
    } else {
        0
    };
    let mut best = None;
    let mut highest = 0;
    for n in 0..PART {
        let index = first + n;
        if index >= count {
            break;
        }
        let Some(id) = tables.slot(&SlotKey {
            service,
            generation,
            index,
        }) else {
            break;
        };
        let score = score(hash, id);
        if score >= highest && id + 1 != avoid && matches!(tables.backend(id), Some(b) if b.state != BACKEND_GONE) {
            highest = score;
            best = Some(id);
        }
    }
    best
}

/// How well a backend suits a hash.
#[inline(always)]
const fn score(hash: u32, id: u32) -> u32 {
    mix(hash ^ mix(id.wrapping_mul(0x9e37_79b1).wrapping_add(1)))
}

/// The finaliser of MurmurHash3.
#[inline(always)]
const fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world::{Case, Place, World};

    const HASHES: u32 = 20_000;

    fn chosen(places: &[Place]) -> std::vec::Vec<u32> {
        let case = Case::ALL[0];
        let tables = World::new().serve(case, places).tables;
        (0..HASHES)
            .map(|n| match by_hash(&tables, case.published_service(), mix(n), 0) {
                Selection::Backend(id) => id,
                Selection::Empty => panic!("there are backends"),
            })
            .collect()
    }

    #[test]
    fn hashes_spread_evenly_and_only_those_of_a_changed_backend_move() {
        let all = [Place::Here, Place::Switched, Place::Unseen, Place::Node2, Place::Node3];
        let with = chosen(&all);
        assert_eq!(with, chosen(&all));
        for place in all {
            let case = Case::ALL[0];
            let id = case.backend_id(place);
            let share = with.iter().filter(|chosen| **chosen == id).count() as u32;
            let fair = HASHES / all.len() as u32;
            assert!(share.abs_diff(fair) < fair / 10, "{share} of {HASHES}");
            let others: std::vec::Vec<Place> = all.into_iter().filter(|other| *other != place).collect();
            for (before, after) in with.iter().zip(chosen(&others)) {
                assert!(*before == id || *before == after, "a hash of another backend has moved");
                assert_ne!(after, id);
            }
        }
    }

    #[test]
    fn every_backend_of_a_large_service_is_chosen() {
        let case = Case::ALL[0];
        let mut world = World::new();
        let id = case.backend_id(Place::Here);
        let slots: std::vec::Vec<u32> = (0..100).map(|n| id + 1000 * n).collect();
        let backend = world.tables.backends[&id];
        for slot in &slots {
            world.tables.backends.insert(*slot, backend);
        }
        world.slots(case.published_service(), &slots);
        let chosen: std::collections::BTreeSet<u32> = (0..HASHES)
            .filter_map(|n| match by_hash(&world.tables, case.published_service(), mix(n), 0) {
                Selection::Backend(id) => Some(id),
                Selection::Empty => None,
            })
            .collect();
        assert_eq!(chosen.len(), slots.len());
    }

    #[test]
    fn a_backend_that_is_gone_is_not_chosen() {
        let case = Case::ALL[0];
        let world =
            World::new()
                .serve(case, &[Place::Here, Place::Switched])
                .backend_state(case, Place::Here, BACKEND_GONE);
        for n in 0..100 {
            let selection = by_hash(&world.tables, case.published_service(), mix(n), 0);
            assert_eq!(selection, Selection::Backend(case.backend_id(Place::Switched)));
        }
        assert_eq!(by_hash(&world.tables, 9_999, 1, 0), Selection::Empty);
    }
}
