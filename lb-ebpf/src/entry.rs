//! A flow in its map, which other CPUs work on too.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{self, NonNull};

use lb_common::abi::{FLOW_ENDED, Flow};
use lb_common::tables::FlowEntry;

/// A flow's place in its map.
#[derive(Clone, Copy)]
pub(crate) struct Entry(pub(crate) NonNull<Flow>);

impl FlowEntry for Entry {
    #[inline(always)]
    fn load(&self) -> Flow {
        // SAFETY: a map value stays valid until the program ends. Other CPUs may write single fields meanwhile.
        unsafe { ptr::read(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn set_last_seen(&self, tick: u32) {
        // SAFETY: as above; an aligned word.
        unsafe { ptr::write_volatile(&raw mut (*self.0.as_ptr()).last_seen, tick) }
    }

    #[inline(always)]
    fn wake(&self, seen: &Flow, tick: u32) -> bool {
        let new = word(&Flow {
            last_seen: tick,
            ..*seen
        });
        let found = self.exchange(word(seen), new);
        // Another packet of the flow may have come in between: then it is awake.
        found == word(seen) || found >> STATE & 0xff != u64::from(FLOW_ENDED)
    }

    #[inline(always)]
    fn end(&self, seen: &Flow) -> bool {
        let new = word(&Flow {
            state: FLOW_ENDED,
            ..*seen
        });
        self.exchange(word(seen), new) == word(seen)
    }

    #[inline(always)]
    fn set_state(&self, state: u8, flags: u8, timeout: u32) {
        // SAFETY: as above.
        unsafe {
            ptr::write_volatile(&raw mut (*self.0.as_ptr()).timeout, timeout);
            ptr::write_volatile(&raw mut (*self.0.as_ptr()).state, state);
            ptr::write_volatile(&raw mut (*self.0.as_ptr()).flags, flags);
        }
    }
}

/// Bit at which a flow's state is in [`word`].
const STATE: u64 = 48;

/// The last eight bytes of a flow as one number: when it was seen last, source port, state, flags.
#[inline(always)]
const fn word(flow: &Flow) -> u64 {
    flow.last_seen as u64 | (flow.source_port as u64) << 32 | (flow.state as u64) << STATE | (flow.flags as u64) << 56
}

impl Entry {
    /// Puts `new` in the place of `old`, if that is there. Returns what was there.
    #[inline(always)]
    fn exchange(&self, old: u64, new: u64) -> u64 {
        // SAFETY: eight aligned bytes of a map value (lb-common/src/abi.rs asserts where they are).
        unsafe { exchange((&raw mut (*self.0.as_ptr()).last_seen).cast(), old, new) }
    }
}

/// # Safety
/// `at` is good for eight aligned bytes.
#[inline(always)]
pub(crate) unsafe fn exchange(at: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: as the caller says.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, old, new).0 }
}
