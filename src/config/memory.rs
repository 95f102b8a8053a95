//! How much memory this process may use.
//!
//! In a container the control group's limit, else the machine's memory. Read once, at start.

use std::fs;

/// Memory limit in bytes; `None` where the system does not say.
pub fn limit_bytes() -> Option<usize> {
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    match (group, machine) {
        // A group without a limit shows a number larger than any machine.
        (Some(group), Some(machine)) => Some(machine.min(group)),
        (group, machine) => group.or(machine),
    }
}

fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_the_total() {
        let text = "MemFree: 1 kB\nMemTotal:       16384 kB\n";
        assert_eq!(super::total("MemFree: 1 kB"), None);
        assert_eq!(super::total(text.split_once('\n').unwrap().1), Some(16 << 20));
    }
}
