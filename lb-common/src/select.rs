//! Which backend takes a new flow.

use crate::abi::{BACKEND_GONE, SlotKey};
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
pub fn select<T: Tables>(tables: &T, service: u32, avoid: u32) -> Selection {
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
