//! [`Tables`] over the maps.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_or, atomic_xadd};
use core::mem::size_of;
use core::ptr::{self, NonNull};

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use lb_common::abi::{
    Backend, EndpointKey, Flow, Fragment, FragmentKey, Frontend, Interface, InterfaceKey, Node, NodeAddress, PathMtu,
    Pressure, REPLY_ENDED, Reply, Service, Settings, SlotKey, SourceKey, VipKey, port_mark,
};
use lb_common::address::Address;
use lb_common::flow::{Opening, Step};
use lb_common::pipeline::{Found, Work};
use lb_common::tables::{Env, Insert, Route, Table, Tables};
use lb_common::tuple::Tuple;
use lb_common::verdict::Reason;
use lb_common::way::KeptWay;
use lb_common::wire::parse::Headers;

use crate::entry::{Entry, exchange};
use crate::maps::{self, Scratch};
use crate::open;
use crate::scratch::set_address;

/// The maps, and the context that helpers want to see. `KEEP`: routes may be some ticks old ([`crate::route`]).
pub(crate) struct Maps<const KEEP: bool> {
    pub(crate) context: *mut c_void,
    pub(crate) scratch: *mut Scratch,
    pub(crate) ifindex: u32,
}

/// A function that is given numbers alone works on this too: it must be in memory before, and is read again after.
#[inline(always)]
fn known<T>(value: &mut T) {
    // An instruction that does nothing: none at all would leave two lines of the source at one place, which the kernel refuses.
    // SAFETY: it does nothing.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) ptr::from_mut(value) => _, options(nostack)) }
}

/// Adds a frame to a reason's counter.
#[inline(always)]
pub(crate) fn count(reason: Reason, bytes: usize) {
    if let Some(counter) = maps::counters.get_ptr_mut(u32::from(reason.code())) {
        // SAFETY: the element is this CPU's own.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        }
    }
}

#[inline(always)]
fn inserted(result: Result<(), i32>) -> Insert {
    const EEXIST: i32 = -17;
    match result {
        Ok(()) => Insert::Done,
        Err(EEXIST) => Insert::Exists,
        Err(_) => Insert::Full,
    }
}

#[inline(always)]
fn flags(replace: bool) -> u64 {
    if replace { BPF_ANY as u64 } else { BPF_NOEXIST as u64 }
}

impl<const KEEP: bool> Tables for Maps<KEEP> {
    type Ref<T: Copy + 'static> = &'static T;
    type Entry = Entry;

    #[inline(always)]
    fn settings(&self) -> Option<&'static Settings> {
        maps::settings.get(0)
    }

    #[inline(always)]
    fn interface(&self, key: InterfaceKey) -> Option<&'static Interface> {
        // SAFETY: as in `key4`; an element replaced meanwhile stays readable until the program ends (RCU).
        unsafe {
            (*self.scratch).interface = key;
            let key = &(*self.scratch).interface;
            maps::interfaces.get(key)
        }
    }

    #[inline(always)]
    fn recent_interface(&self, key: InterfaceKey) -> Option<&'static Interface> {
        self.find_interface(key)
    }

    #[inline(always)]
    fn publishes(&self, protocol: u8, port: u16) -> bool {
        let (element, bit) = port_mark(protocol, port);
        maps::marks.get(element).is_some_and(|bits| bits & bit != 0)
    }

    #[inline(always)]
    fn knows_port(&self, protocol: u8, port: u16) -> bool {
        let (element, bit) = port_mark(protocol, port);
        maps::ports.get(element).is_some_and(|bits| bits & bit != 0)
    }

    #[inline(always)]
    fn note_port(&self, protocol: u8, port: u16) {
        let (element, bit) = port_mark(protocol, port);
        if let Some(bits) = maps::ports.get_ptr_mut(element) {
            // SAFETY: an aligned element of the map, which other CPUs add bits to as well.
            unsafe {
                if ptr::read_volatile(bits) & bit == 0 {
                    atomic_or::<u64, u64, { AtomicOrdering::AcqRel }>(bits, bit);
                }
            }
        }
    }

    #[inline(always)]
    fn frontend(&self, key: &EndpointKey) -> Option<&'static Frontend> {
        // SAFETY: as in `key4` and in `interface`.
        unsafe {
            let key = self.endpoint(key);
            maps::frontends.get(key)
        }
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&'static Service> {
        // SAFETY: as in `interface`.
        unsafe { maps::services.get(id) }
    }

    #[inline(always)]
    fn slot(&self, key: &SlotKey) -> Option<u32> {
        // SAFETY: as in `interface`.
        unsafe { maps::slots.get(key) }.copied()
    }

    #[inline(always)]
    fn ticket(&self, service: u32) -> Option<u64> {
        let cursor = maps::cursors.get_ptr_mut(service)?;
        // SAFETY: an aligned element of the map. Acquire-release, because a relaxed add whose result is used is
        // compiled, silently, to one that fetches nothing.
        Some(unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(cursor, 1) })
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&'static Backend> {
        maps::backends.get(id)
    }

    #[inline(always)]
    fn local_backend(&self, key: &EndpointKey) -> Option<u32> {
        // SAFETY: as in `key4` and in `interface`.
        unsafe {
            let key = self.endpoint(key);
            maps::local_backends.get(key).copied()
        }
    }

    #[inline(always)]
    fn node(&self, id: u32) -> Option<&'static Node> {
        maps::nodes.get(id)
    }

    #[inline(always)]
    fn address(&self, address: &Address) -> Option<&'static NodeAddress> {
        // SAFETY: as in `interface`.
        unsafe { maps::addresses.get(address) }
    }

    #[inline(always)]
    fn is_vip(&self, address: &Address, network: u32) -> bool {
        // SAFETY: as in `key4` and in `interface`.
        unsafe {
            (*self.scratch).vip = VipKey {
                address: *address,
                network,
            };
            let key = &(*self.scratch).vip;
            maps::vips.get(key).is_some()
        }
    }

    #[inline(always)]
    fn source(&self, service: u32, client: &Address) -> u32 {
        // SAFETY: as in `key4`.
        let key = unsafe {
            let key = &raw mut (*self.scratch).source;
            (*key).bits = SourceKey::WHOLE;
            (*key).service = service;
            set_address(&raw mut (*key).address, *client);
            &*key.cast()
        };
        maps::sources.get(key).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn flow(&self, tuple: &Tuple, table: Table) -> Option<Entry> {
        match (tuple.v6, table) {
            (true, Table::Main) => maps::flows6.get_ptr_mut(self.key6(tuple)),
            (false, Table::Main) => maps::flows4.get_ptr_mut(self.key4(tuple)),
            (true, Table::Overflow) => maps::overflow6.get_ptr_mut(self.key6(tuple)),
            (false, Table::Overflow) => maps::overflow4.get_ptr_mut(self.key4(tuple)),
        }
        .and_then(NonNull::new)
        .map(Entry)
    }

    #[inline(always)]
    fn insert_flow(&self, tuple: &Tuple, flow: &Flow, replace: bool, table: Table) -> Insert {
        let flags = flags(replace);
        inserted(match (tuple.v6, table) {
            (true, Table::Main) => maps::flows6.insert(self.key6(tuple), flow, flags),
            (false, Table::Main) => maps::flows4.insert(self.key4(tuple), flow, flags),
            (true, Table::Overflow) => maps::overflow6.insert(self.key6(tuple), flow, flags),
            (false, Table::Overflow) => maps::overflow4.insert(self.key4(tuple), flow, flags),
        })
    }

    #[inline(always)]
    fn remove_flow(&self, tuple: &Tuple, table: Table) {
        let _ = match (tuple.v6, table) {
            (true, Table::Main) => maps::flows6.remove(self.key6(tuple)),
            (false, Table::Main) => maps::flows4.remove(self.key4(tuple)),
            (true, Table::Overflow) => maps::overflow6.remove(self.key6(tuple)),
            (false, Table::Overflow) => maps::overflow4.remove(self.key4(tuple)),
        };
    }

    #[inline(always)]
    fn reply(&self, tuple: &Tuple, table: Table) -> Option<&'static Reply> {
        // SAFETY: as in `interface`.
        let found = unsafe {
            match (tuple.v6, table) {
                (true, Table::Main) => maps::replies6.get(self.key6(tuple)),
                (false, Table::Main) => maps::replies4.get(self.key4(tuple)),
                (true, Table::Overflow) => maps::overflow_replies6.get(self.key6(tuple)),
                (false, Table::Overflow) => maps::overflow_replies4.get(self.key4(tuple)),
            }
        }?;
        // One place for all of them, or the verifier would follow what comes after for each table anew; and what gives way
        // to another does not change under us.
        // SAFETY: this CPU's own element. The kernel aligns values to eight bytes.
        unsafe {
            let to = (&raw mut (*self.scratch).reply.0).cast::<u64>();
            let from = ptr::from_ref(found).cast::<u64>();
            for index in 0..size_of::<Reply>() / 8 {
                ptr::write_volatile(to.add(index), ptr::read_volatile(from.add(index)));
            }
            let copied = &(*self.scratch).reply.0;
            // Of the copy: somebody may end the reply while it is copied, and who went on with that would end it once more, and
            // take what has replaced it meanwhile for what he may remove.
            if copied.kind == REPLY_ENDED { None } else { Some(copied) }
        }
    }

    #[inline(always)]
    fn insert_reply(&self, tuple: &Tuple, reply: &Reply, replace: bool, table: Table) -> Insert {
        let flags = flags(replace);
        inserted(match (tuple.v6, table) {
            (true, Table::Main) => maps::replies6.insert(self.key6(tuple), reply, flags),
            (false, Table::Main) => maps::replies4.insert(self.key4(tuple), reply, flags),
            (true, Table::Overflow) => maps::overflow_replies6.insert(self.key6(tuple), reply, flags),
            (false, Table::Overflow) => maps::overflow_replies4.insert(self.key4(tuple), reply, flags),
        })
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<&'static Fragment> {
        // SAFETY: as in `interface`.
        unsafe { maps::fragments.get(key) }
    }

    #[inline(always)]
    fn note_fragment(&self, key: &FragmentKey, fragment: &Fragment) {
        let _ = maps::fragments.insert(key, fragment, BPF_ANY as u64);
    }

    #[inline(always)]
    fn end_reply(&self, tuple: &Tuple, seen: &Reply, table: Table) -> bool {
        let found = match (tuple.v6, table) {
            (true, Table::Main) => maps::replies6.get_ptr_mut(self.key6(tuple)),
            (false, Table::Main) => maps::replies4.get_ptr_mut(self.key4(tuple)),
            (true, Table::Overflow) => maps::overflow_replies6.get_ptr_mut(self.key6(tuple)),
            (false, Table::Overflow) => maps::overflow_replies4.get_ptr_mut(self.key4(tuple)),
        };
        let Some(found) = found else { return false };
        let word = |kind: u32| u64::from(kind) | u64::from(seen.bound) << 32;
        // SAFETY: eight aligned bytes of a map value.
        let before = unsafe { exchange((&raw mut (*found).kind).cast(), word(seen.kind), word(REPLY_ENDED)) };
        before == word(seen.kind)
    }

    #[inline(always)]
    fn remove_reply(&self, tuple: &Tuple, table: Table) {
        let _ = match (tuple.v6, table) {
            (true, Table::Main) => maps::replies6.remove(self.key6(tuple)),
            (false, Table::Main) => maps::replies4.remove(self.key4(tuple)),
            (true, Table::Overflow) => maps::overflow_replies6.remove(self.key6(tuple)),
            (false, Table::Overflow) => maps::overflow_replies4.remove(self.key4(tuple)),
        };
    }

    #[inline(always)]
    fn pressure(&self) -> Option<&'static Pressure> {
        maps::pressure.get(0)
    }

    #[inline(always)]
    fn set_full(&self, tick: u32) {
        if let Some(pressure) = maps::pressure.get_ptr_mut(0) {
            // SAFETY: an aligned word of the map; whichever CPU writes last is right.
            unsafe { ptr::write_volatile(&raw mut (*pressure).full, tick) }
        }
    }

    #[inline(always)]
    fn set_used(&self, tick: u32) {
        if let Some(pressure) = maps::pressure.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { ptr::write_volatile(&raw mut (*pressure).used, tick) }
        }
    }

    #[inline(always)]
    fn path_mtu(&self, node: u32) -> Option<&'static PathMtu> {
        maps::path_mtus.get(node)
    }

    #[inline(always)]
    fn note_path_mtu(&self, node: u32, path: PathMtu) {
        if let Some(found) = maps::path_mtus.get_ptr_mut(node) {
            // SAFETY: eight aligned bytes of the map, written at once.
            unsafe { ptr::write_volatile(found.cast::<u64>(), u64::from(path.mtu) | u64::from(path.since) << 32) }
        }
    }

    #[inline(always)]
    fn open(&self, env: &Env, h: &mut Headers, opening: &mut Opening, step: Step) -> Option<Reason> {
        known(h);
        known(opening);
        let reason = open::call(env.now, step);
        known(h);
        known(opening);
        reason
    }

    #[inline(always)]
    fn find(&self, env: &Env, work: &mut Work) -> Found {
        known(work);
        let found = open::find(env.now);
        known(work);
        found
    }

    #[inline(always)]
    fn count_lost(&self, reason: Reason, packets: u16) {
        if let Some(counter) = maps::counters.get_ptr_mut(u32::from(reason.code())) {
            // SAFETY: the element is this CPU's own.
            unsafe { (*counter).packets += u64::from(packets) };
        }
    }

    #[inline(always)]
    fn count_service(&self, service: u32, flows: u32, bytes: usize, reply: bool) {
        let Some(counter) = maps::service_counters.get_ptr_mut(service) else {
            return;
        };
        // SAFETY: the element is this CPU's own.
        unsafe {
            (*counter).flows += u64::from(flows);
            if bytes == 0 {
                return;
            }
            if reply {
                (*counter).reply_packets += 1;
                (*counter).reply_bytes += bytes as u64;
            } else {
                (*counter).packets += 1;
                (*counter).bytes += bytes as u64;
            }
        }
    }

    #[inline(always)]
    fn kept_way(&self, node: u32) -> Option<&'static KeptWay> {
        self.find_way(node)
    }

    #[inline(always)]
    fn keep_way(&self, node: u32, way: &KeptWay) {
        self.set_way(node, way);
    }

    #[inline(always)]
    fn route(&self, source: &Address, destination: &Address, v6: bool) -> Route {
        self.find_route(source, destination, v6)
    }
}
