//! [`Tables`] over the maps.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::size_of;
use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_ktime_get_coarse_ns};
use lb_common::abi::{
    Backend, EndpointKey, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, Frontend, Interface, InterfaceKey, Node,
    NodeAddress, Reply, Service, Settings, SlotKey, SourceKey, TICK_SHIFT, VipKey,
};
use lb_common::address::Address;
use lb_common::pipeline::Work;
use lb_common::tables::{Env, FlowEntry, Insert, NextHop, Route, Tables};
use lb_common::tuple::Tuple;
use lb_common::verdict::Reason;

use crate::maps::{self, RouteQuery, Scratch};

/// The maps, and the context that helpers want to see.
pub(crate) struct Maps {
    context: *mut c_void,
    scratch: *mut Scratch,
    ifindex: u32,
}

/// A flow's place in its map.
pub(crate) struct Entry(*mut Flow);

impl Maps {
    #[inline(always)]
    pub(crate) fn new(context: *mut c_void, ifindex: u32) -> Option<Self> {
        Some(Self {
            context,
            scratch: maps::scratch.get_ptr_mut(0)?,
            ifindex,
        })
    }

    #[inline(always)]
    fn key4(&self, t: &Tuple) -> &FlowKey4 {
        // SAFETY: this CPU's own element, and one key at a time.
        unsafe {
            (*self.scratch).flow4 = FlowKey4 {
                source: t.source.v4_bytes(),
                destination: t.destination.v4_bytes(),
                source_port: t.source_port,
                destination_port: t.destination_port,
                network_protocol: t.network_protocol(),
            };
            &(*self.scratch).flow4
        }
    }

    #[inline(always)]
    fn key6(&self, t: &Tuple) -> &FlowKey6 {
        // SAFETY: as in `key4`.
        unsafe {
            let key = &raw mut (*self.scratch).flow6;
            set_address(&raw mut (*key).source, t.source);
            set_address(&raw mut (*key).destination, t.destination);
            (*key).source_port = t.source_port;
            (*key).destination_port = t.destination_port;
            (*key).network_protocol = t.network_protocol();
            &*key
        }
    }

    /// Where the pipeline works.
    #[inline(always)]
    pub(crate) fn work(&self) -> &'static mut Work {
        // SAFETY: this CPU's own element, asked for once by each program.
        unsafe { &mut (*self.scratch).work }
    }

    #[inline(always)]
    pub(crate) fn env(&self, namespace: u64) -> Env {
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_coarse_ns() };
        Env {
            now: (now >> TICK_SHIFT) as u32,
            ifindex: self.ifindex,
            namespace,
        }
    }
}

/// Writes an address word by word: a copy between two pieces of memory would become a call of `memmove`, and a call costs
/// the stack 32 bytes on kernels that round frames up.
#[inline(always)]
unsafe fn set_address(to: *mut Address, address: Address) {
    let to = to.cast::<u32>();
    for (index, word) in address.words().into_iter().enumerate() {
        // SAFETY: the caller's pointer is good for an address, which is four aligned words.
        unsafe { ptr::write_volatile(to.add(index), word) }
    }
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

impl FlowEntry for Entry {
    #[inline(always)]
    fn load(&self) -> Flow {
        // SAFETY: a map value stays valid until the program ends. Other CPUs may write single fields meanwhile.
        unsafe { ptr::read(self.0) }
    }

    #[inline(always)]
    fn set_last_seen(&self, tick: u32) {
        // SAFETY: as above; an aligned word.
        unsafe { ptr::write_volatile(&raw mut (*self.0).last_seen, tick) }
    }

    #[inline(always)]
    fn set_state(&self, state: u8, flags: u8, timeout: u32) {
        // SAFETY: as above.
        unsafe {
            ptr::write_volatile(&raw mut (*self.0).timeout, timeout);
            ptr::write_volatile(&raw mut (*self.0).state, state);
            ptr::write_volatile(&raw mut (*self.0).flags, flags);
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

impl Tables for Maps {
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
    fn frontend(&self, key: &EndpointKey) -> Option<&'static Frontend> {
        // SAFETY: as in `key4` and in `interface`.
        unsafe {
            (*self.scratch).endpoint = *key;
            let key = &(*self.scratch).endpoint;
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
            (*self.scratch).endpoint = *key;
            let key = &(*self.scratch).endpoint;
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
    fn flow(&self, tuple: &Tuple) -> Option<Entry> {
        if tuple.v6 {
            maps::flows6.get_ptr_mut(self.key6(tuple))
        } else {
            maps::flows4.get_ptr_mut(self.key4(tuple))
        }
        .map(Entry)
    }

    #[inline(always)]
    fn insert_flow(&self, tuple: &Tuple, flow: &Flow, replace: bool) -> Insert {
        inserted(if tuple.v6 {
            maps::flows6.insert(self.key6(tuple), flow, flags(replace))
        } else {
            maps::flows4.insert(self.key4(tuple), flow, flags(replace))
        })
    }

    #[inline(always)]
    fn remove_flow(&self, tuple: &Tuple) {
        let _ = if tuple.v6 {
            maps::flows6.remove(self.key6(tuple))
        } else {
            maps::flows4.remove(self.key4(tuple))
        };
    }

    #[inline(always)]
    fn reply(&self, tuple: &Tuple) -> Option<&'static Reply> {
        // SAFETY: as in `interface`.
        unsafe {
            if tuple.v6 {
                maps::replies6.get(self.key6(tuple))
            } else {
                maps::replies4.get(self.key4(tuple))
            }
        }
    }

    #[inline(always)]
    fn insert_reply(&self, tuple: &Tuple, reply: &Reply, replace: bool) -> Insert {
        inserted(if tuple.v6 {
            maps::replies6.insert(self.key6(tuple), reply, flags(replace))
        } else {
            maps::replies4.insert(self.key4(tuple), reply, flags(replace))
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
    fn route(&self, source: &Address, destination: &Address, v6: bool) -> Route {
        let (mut from, mut to) = (source.words(), destination.words());
        if !v6 {
            (from, to) = ([from[3], 0, 0, 0], [to[3], 0, 0, 0]);
        }
        // SAFETY: this CPU's own element, written whole before the helper reads it.
        let query = unsafe { &mut (*self.scratch).route };
        *query = RouteQuery {
            family: if v6 { AF_INET6 } else { AF_INET },
            ifindex: self.ifindex,
            source: from,
            destination: to,
            ..RouteQuery::default()
        };
        let size = size_of::<RouteQuery>() as i32;
        // SAFETY: the context is the program's own.
        let code = unsafe { bpf_fib_lookup(self.context, (&raw mut *query).cast(), size, 0) };
        let hop = match code {
            0 => NextHop::Resolved,
            NOT_FORWARDED => NextHop::Local,
            NO_NEIGHBOUR | FRAGMENTATION_NEEDED => NextHop::Unresolved,
            _ => NextHop::None,
        };
        Route {
            hop,
            ifindex: query.ifindex,
            source: query.source_mac,
            destination: query.destination_mac,
        }
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_NOT_FWDED`.
const NOT_FORWARDED: i64 = 4;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`.
const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const FRAGMENTATION_NEEDED: i64 = 8;
