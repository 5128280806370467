//! The process's own numbers, from `/proc/self`, under the names that every exporter uses.

use std::fs;

/// Ticks per second in `/proc`: part of the kernel's ABI, whatever its own timer does.
const USER_HZ: f64 = 100.0;

/// What `/proc/self` says; a value that cannot be read is zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
    pub(super) virtual_memory: u64,
    pub(super) resident_memory: u64,
    pub(super) threads: u64,
    pub(super) start_time: f64,
}

impl Process {
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the name in parentheses and may hold anything.
        let fields: Vec<f64> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
            .unwrap_or_default();
        // Counted from the third field: utime 14, stime 15, starttime 22.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            cpu_seconds: (field(14) + field(15)) / USER_HZ,
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
            max_fds: number(&limits, "Max open files"),
            virtual_memory: number(&status, "VmSize:") * 1024,
            resident_memory: number(&status, "VmRSS:") * 1024,
            threads: number(&status, "Threads:"),
            start_time: number(&boot, "btime") as f64 + field(22) / USER_HZ,
        }
    }
}

/// The first number behind `name` at the beginning of a line.
fn number(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_a_start() {
        let process = Process::read();
        assert!(process.resident_memory > 100_000 && process.resident_memory <= process.virtual_memory);
        assert!(process.threads >= 1);
        assert!(process.open_fds >= 3 && process.open_fds <= process.max_fds);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!(process.start_time > now - 86_400.0 * 365.0 && process.start_time <= now + 1.0);
    }
}
