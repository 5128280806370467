//! What finds and opens a flow, in functions that the kernel verifies by themselves, once for each program: functions with a
//! symbol of their own (`BTF_FUNC_GLOBAL`), to which only numbers are given. They find what they work on where the program has
//! it too, in this CPU's scratch.

use core::ptr;

use lb_common::abi::NAMESPACE_NODE;
use lb_common::flow::{self, Step};
use lb_common::pipeline::{self, Found};
use lb_common::tables::Env;
use lb_common::verdict::Reason;

use crate::tables::Maps;

/// Takes a step with what is in the scratch.
#[inline(always)]
pub(crate) fn call(now: u32, step: Step) -> Option<Reason> {
    let code = match step {
        Step::Choose => choose_backend(now),
        Step::Write => open_flow(now),
        Step::Overflow => open_overflow(now),
    };
    match code {
        0 => None,
        // SAFETY: what `run` has made of a reason.
        code => Some(unsafe { core::mem::transmute::<u8, Reason>(code as u8) }),
    }
}

/// Looks for the flow or the frontend of the packet in the scratch.
#[inline(always)]
pub(crate) fn find(now: u32) -> Found {
    let code = find_flow(now);
    // SAFETY: what `find_flow` has made of one.
    Found::from_code(code, unsafe { core::mem::transmute::<u8, Reason>((code >> 8) as u8) })
}

// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn find_flow(now: u32) -> u32 {
    let Some(maps) = maps() else {
        return Found::NOTHING.code();
    };
    pipeline::find(&maps, &env(now), maps.work()).code()
}

/// Nothing here asks for a route.
#[inline(always)]
fn maps() -> Option<Maps<false>> {
    Maps::new(ptr::null_mut(), 0)
}

#[inline(always)]
fn env(now: u32) -> Env {
    Env {
        now,
        ifindex: 0,
        namespace: NAMESPACE_NODE,
    }
}

#[inline(always)]
fn run(now: u32, step: Step) -> u32 {
    let Some(maps) = maps() else {
        return u32::from(Reason::DropFlowTableFull.code());
    };
    let (env, work) = (env(now), maps.work());
    match flow::step(&maps, &env, &mut work.headers, &mut work.opening, step) {
        Some(reason) => u32::from(reason.code()),
        None => 0,
    }
}

macro_rules! global {
    ($($name:ident $step:ident;)*) => { $(
        // SAFETY: nothing else has this name.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(now: u32) -> u32 {
            run(now, Step::$step)
        }
    )* };
}

global! {
    choose_backend Choose;
    open_flow Write;
    open_overflow Overflow;
}
