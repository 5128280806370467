//! What a program has to itself while it runs: the keys that it builds, the place where it works, and the time.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use lb_common::abi::{EndpointKey, FlowKey4, FlowKey6, TICK_SHIFT};
use lb_common::address::Address;
use lb_common::pipeline::Work;
use lb_common::tables::Env;
use lb_common::tuple::Tuple;

use crate::maps::{self, Scratch};
use crate::tables::Maps;

impl<const KEEP: bool> Maps<KEEP> {
    #[inline(always)]
    pub(crate) fn new(context: *mut c_void, ifindex: u32) -> Option<Self> {
        Some(Self {
            context,
            scratch: maps::scratch.get_ptr_mut(0)?,
            ifindex,
        })
    }

    /// For the collector, which the agent runs: on 6.1 packets may interrupt it (`bpf_test_run`, net/bpf/test_run.c, leaves softirqs
    /// on), and must not work where it does.
    #[inline(always)]
    pub(crate) fn collecting(context: *mut c_void) -> Option<Self> {
        Some(Self {
            context,
            scratch: maps::collecting.get_ptr_mut(0)?,
            ifindex: 0,
        })
    }

    #[inline(always)]
    pub(crate) fn key4(&self, t: &Tuple) -> &FlowKey4 {
        // SAFETY: this CPU's own element, and one key at a time.
        unsafe {
            let key = &raw mut (*self.scratch).flow4;
            let (source, destination) = (t.source.words()[3], t.destination.words()[3]);
            ptr::write_volatile(key.cast(), halves(source, destination));
            set_end(
                key.cast(),
                offset_of!(FlowKey4, source_port),
                ports(t),
                t.network_protocol(),
            );
            &*key
        }
    }

    #[inline(always)]
    pub(crate) fn key6(&self, t: &Tuple) -> &FlowKey6 {
        // SAFETY: as in `key4`.
        unsafe {
            let key = &raw mut (*self.scratch).flow6;
            set_address(&raw mut (*key).source, t.source);
            set_address(&raw mut (*key).destination, t.destination);
            set_end(
                key.cast(),
                offset_of!(FlowKey6, source_port),
                ports(t),
                t.network_protocol(),
            );
            &*key
        }
    }

    #[inline(always)]
    pub(crate) fn endpoint(&self, k: &EndpointKey) -> &EndpointKey {
        // SAFETY: as in `key4`.
        unsafe {
            let key = &raw mut (*self.scratch).endpoint;
            set_address(&raw mut (*key).address, k.address);
            let [p0, p1] = k.port.to_ne_bytes();
            let last = u32::from_ne_bytes([p0, p1, k.protocol, k.family]);
            set_end(key.cast(), offset_of!(EndpointKey, network), k.network, last);
            &*key
        }
    }

    /// Where the pipeline works.
    #[inline(always)]
    pub(crate) fn work(&self) -> &'static mut Work {
        // SAFETY: this CPU's own element, asked for once by each program.
        unsafe { &mut (*self.scratch).work }
    }

    /// Now, in ticks. The kernel's coarse clock costs as much as a look-up in a table; `jiffies` are a word in memory, and
    /// that clock says the same until they move.
    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: no arguments; this CPU's own element.
        unsafe {
            let clock = &raw mut (*self.scratch).clock;
            let jiffies = bpf_jiffies64();
            if (*clock).jiffies != jiffies {
                (*clock).now = (bpf_ktime_get_coarse_ns() >> TICK_SHIFT) as u32;
                (*clock).jiffies = jiffies;
            }
            (*clock).now
        }
    }

    #[inline(always)]
    pub(crate) fn env(&self, namespace: u64) -> Env {
        Env {
            now: self.now(),
            ifindex: self.ifindex,
            namespace,
        }
    }
}

/// Two words, as they lie one behind the other.
#[inline(always)]
const fn halves(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// Two ports, as they lie one behind the other.
#[inline(always)]
const fn ports(t: &Tuple) -> u32 {
    if cfg!(target_endian = "little") {
        t.source_port as u32 | (t.destination_port as u32) << 16
    } else {
        (t.source_port as u32) << 16 | t.destination_port as u32
    }
}

const _: () = assert!(
    offset_of!(Scratch, flow4) % 8 == 0
        && offset_of!(Scratch, flow6) % 8 == 0
        && offset_of!(Scratch, endpoint) % 8 == 0
        && offset_of!(FlowKey4, source_port) % 8 == 0
        && offset_of!(FlowKey6, source_port) % 8 == 0
        && offset_of!(EndpointKey, network) % 8 == 0
);

/// Writes the last two words of a key, at `offset`, in one step: who reads a word that was written in parts waits until the parts
/// have left the CPU, and with them all that comes before. A key is read at once, to be hashed.
#[inline(always)]
unsafe fn set_end(key: *mut u8, offset: usize, first: u32, second: u32) {
    // SAFETY: the caller's pointer is good for a key whose last eight bytes, which are aligned, are there.
    unsafe { ptr::write_volatile(key.add(offset).cast(), halves(first, second)) }
}

/// Writes an address word by word: a copy between two pieces of memory would become a call of `memmove`, and zeros one of
/// `memset`, which take a byte at a time; and a call costs the stack 32 bytes on kernels that round frames up.
#[inline(always)]
pub(crate) unsafe fn set_address(to: *mut Address, address: Address) {
    let to = to.cast::<u32>();
    for (index, word) in address.words().into_iter().enumerate() {
        // SAFETY: the caller's pointer is good for an address, which is four aligned words.
        unsafe { ptr::write_volatile(to.add(index), word) }
    }
}
