//! What this process takes of its machine, as the system tells it.
//!
//! Read anew at every question, from files that are no files: nothing here waits for a disk.
//!
//! Source: `proc(5)`; control groups v2, `cpu.max`; v1, `cpu.cfs_quota_us`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the process takes now. What the system does not tell is left out.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Memory that it has in the machine's, in bytes.
    pub resident_bytes: Option<u64>,
    /// Memory that it has addresses for, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub open_files: Option<u64>,
    /// Descriptors that it may open.
    pub most_files: Option<u64>,
    /// Time of processors since its start.
    pub processor_time: Duration,
}

impl Usage {
    /// Looks.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |key| Some(number(&status, key)?.saturating_mul(1024));
        let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(spent.tv_sec).unwrap_or(0);
        Self {
            resident_bytes: bytes("VmRSS:"),
            virtual_bytes: bytes("VmSize:"),
            threads: number(&status, "Threads:"),
            // One of them is the listing itself.
            open_files: files.map(|files| files.saturating_sub(1)),
            most_files: getrlimit(Resource::Nofile).current,
            processor_time: Duration::new(seconds, u32::try_from(spent.tv_nsec).unwrap_or(0)),
        }
    }
}

fn number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processors that the process may use at a time, with the fraction that a control group grants.
pub fn processors() -> f64 {
    let granted = quota(Path::new("/sys/fs/cgroup"));
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^52 processors")]
    let there = there as f64;
    // The library rounds a fraction down, to one at least.
    granted.filter(|granted| *granted < there + 1.0).unwrap_or(there)
}

/// What the group below `root` grants; `None` for all.
fn quota(root: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    if let Some(both) = read("cpu.max") {
        return ratio(both.split_whitespace());
    }
    let quota = read("cpu/cpu.cfs_quota_us")?;
    let period = read("cpu/cpu.cfs_period_us")?;
    ratio([quota.trim(), period.trim()].into_iter())
}

fn ratio<'a>(mut numbers: impl Iterator<Item = &'a str>) -> Option<f64> {
    let mut next = || numbers.next()?.parse::<f64>().ok();
    let (quota, period) = (next()?, next()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_threads_files_and_time() {
        let usage = Usage::now();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{usage:?}");
        assert!(usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads.is_some_and(|threads| threads >= 1));
        let held: Vec<_> = (0..3).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(Usage::now().open_files.unwrap() >= held.len() as u64);
        assert!(usage.most_files >= usage.open_files);
        assert!(Usage::now().processor_time >= usage.processor_time);
    }

    #[test]
    fn a_group_grants_a_fraction_or_all() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path();
        assert_eq!(quota(group), None);
        fs::write(group.join("cpu.max"), "150000 100000\n").unwrap();
        assert_eq!(quota(group), Some(1.5));
        fs::write(group.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota(group), None);
        fs::remove_file(group.join("cpu.max")).unwrap();
        fs::create_dir(group.join("cpu")).unwrap();
        fs::write(group.join("cpu/cpu.cfs_quota_us"), "-1\n").unwrap();
        fs::write(group.join("cpu/cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota(group), None);
        fs::write(group.join("cpu/cpu.cfs_quota_us"), "50000\n").unwrap();
        assert_eq!(quota(group), Some(0.5));
        assert!(processors() > 0.0);
    }
}
