//! Ticks: the clock of the programs, read from user space.

use lb_common::abi::TICK_SHIFT;

/// The tick that the programs see now: CLOCK_MONOTONIC_COARSE nanoseconds divided by 2^20, wrapping.
pub fn now() -> u32 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .expect("every Linux has CLOCK_MONOTONIC_COARSE");
    let nanoseconds = (time.tv_sec() as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec() as u64);
    (nanoseconds >> TICK_SHIFT) as u32
}

/// Ticks from `earlier` to `now`, across a wrap (every 52 days). A stamp from another CPU that is a
/// little ahead of `now` counts as zero.
pub const fn since(earlier: u32, now: u32) -> u32 {
    let elapsed = now.wrapping_sub(earlier);
    if elapsed > u32::MAX - (1 << 16) { 0 } else { elapsed }
}

/// A tick count as time.
pub const fn duration(ticks: u32) -> std::time::Duration {
    std::time::Duration::from_nanos((ticks as u64) << TICK_SHIFT)
}

/// Processor time that the calling thread has used.
pub fn of_thread() -> std::time::Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("every Linux has CLOCK_THREAD_CPUTIME_ID");
    std::time::Duration::new(time.tv_sec().cast_unsigned(), time.tv_nsec() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_wraps() {
        assert_eq!(since(10, 25), 15);
        assert_eq!(since(u32::MAX - 4, 5), 10);
        assert_eq!(since(7, 7), 0);
    }

    #[test]
    fn a_stamp_slightly_ahead_is_now() {
        assert_eq!(since(100, 98), 0);
        assert_eq!(since(2, u32::MAX), 0);
    }

    #[test]
    fn now_advances_by_a_millisecond_per_tick() {
        let start = now();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let elapsed = since(start, now());
        assert!((35..1000).contains(&elapsed), "{elapsed}");
    }

    #[test]
    fn duration_inverts_ticks() {
        let ticks = lb_common::abi::ticks(30_000);
        assert!((duration(ticks).as_secs_f64() - 30.0).abs() < 0.002);
    }
}
