//! Times in what the programs write.
//!
//! The programs keep the coarse clock for as long as `jiffies` stand still (`Maps::now` in lb-ebpf). The kernel moves
//! `jiffies` a moment before it moves that clock (`tick_do_update_jiffies64` in `kernel/time/tick-sched.c`): a CPU that
//! reads both in this moment has the new count and the old time, and keeps it for one jiffy. A virtual CPU may be stopped in
//! this moment: then the old time is older by as much.

use std::collections::BTreeMap;

use lb_common::abi::TICK_SHIFT;
use nix::time::{ClockId, clock_getres};

use crate::kernel::State;
use crate::require::slowness;

/// How far the programs' clock may be behind: one jiffy, in ticks, rounded up; on a slow machine as many as it is slower.
///
/// # Panics
/// If the kernel does not tell how often it moves the coarse clock.
pub fn lag() -> u32 {
    let each = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).expect("the coarse clock's resolution");
    let nanoseconds = each.tv_sec() as u64 * 1_000_000_000 + each.tv_nsec() as u64;
    nanoseconds.div_ceil(1 << TICK_SHIFT) as u32 * slowness()
}

/// `pure` with the kernel's times where they are at most `lag` ticks older.
pub fn aligned(mut pure: State, kernel: &State, lag: u32) -> State {
    let align = |time: &mut u32, kernels: u32| {
        if time.wrapping_sub(kernels) <= lag {
            *time = kernels;
        }
    };
    let flows = [(&mut pure.flows, &kernel.flows), (&mut pure.overflow, &kernel.overflow)];
    for (flow, other) in flows.into_iter().flat_map(|(pure, kernel)| pairs(pure, kernel)) {
        align(&mut flow.created, other.created);
        align(&mut flow.last_seen, other.last_seen);
    }
    let replies = [
        (&mut pure.replies, &kernel.replies),
        (&mut pure.overflow_replies, &kernel.overflow_replies),
    ];
    for (reply, other) in replies.into_iter().flat_map(|(pure, kernel)| pairs(pure, kernel)) {
        align(&mut reply.bound, other.bound);
    }
    for (fragment, other) in pairs(&mut pure.fragments, &kernel.fragments) {
        align(&mut fragment.seen, other.seen);
    }
    align(&mut pure.pressure.full, kernel.pressure.full);
    align(&mut pure.pressure.used, kernel.pressure.used);
    pure
}

/// What both have, by key.
fn pairs<'a, K: Ord, V>(
    pure: &'a mut BTreeMap<K, V>,
    kernel: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a mut V, &'a V)> {
    pure.iter_mut()
        .filter_map(|(key, value)| Some((value, kernel.get(key)?)))
}

#[cfg(test)]
mod tests {
    use lb_common::abi::Flow;
    use lb_common::tuple::Tuple;

    use super::*;

    fn seen(last_seen: u32, service: u32) -> State {
        let flow = Flow {
            last_seen,
            service,
            ..Flow::default()
        };
        State {
            flows: BTreeMap::from([(Tuple::default(), flow)]),
            ..State::default()
        }
    }

    #[test]
    fn a_time_that_is_a_jiffy_older_is_the_same() {
        for ticks in 0..=4 {
            let kernel = seen(100 - ticks, 1);
            assert_eq!(aligned(seen(100, 1), &kernel, 4), kernel, "{ticks}");
        }
    }

    #[test]
    fn any_other_difference_stays() {
        for (last_seen, service) in [(95, 1), (101, 1), (96, 2)] {
            let kernel = seen(last_seen, service);
            assert_ne!(aligned(seen(100, 1), &kernel, 4), kernel, "{last_seen} {service}");
        }
    }

    #[test]
    fn a_jiffy_is_between_one_and_ten_milliseconds() {
        let jiffy = lag() / slowness();
        assert!((1..=10).contains(&jiffy), "{jiffy}");
    }
}
