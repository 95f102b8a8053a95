//! What this machine's processor and GPUs are called, to tell figures of one machine from another's.
//!
//! Read from `/proc`, without a library of the maker's. A name that cannot be found is empty or the
//! architecture's: figures are then compared by all else.

use std::collections::BTreeSet;
use std::fs;

/// Name of the processor.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    processor_in(&text).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Kinds of NVIDIA GPUs in the machine; empty if the driver shows none.
pub fn gpus() -> String {
    let entries = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let texts =
        entries.filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok());
    let kinds: BTreeSet<String> = texts.filter_map(|text| value(&text, "Model")).collect();
    kinds.into_iter().collect::<Vec<_>>().join(", ")
}

/// x86 gives a name; ARM gives numbers of maker and part.
fn processor_in(cpuinfo: &str) -> Option<String> {
    value(cpuinfo, "model name").or_else(|| {
        let maker = value(cpuinfo, "CPU implementer")?;
        let part = value(cpuinfo, "CPU part")?;
        Some(format!("implementer {maker} part {part}"))
    })
}

/// What follows the first `key :` at the start of a line.
fn value(text: &str, key: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(found, _)| found.trim() == key)?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_kernel_writes_them() {
        let x86 = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD  EPYC 9B14\nflags\t: fpu\n";
        assert_eq!(processor_in(x86).as_deref(), Some("AMD EPYC 9B14"));
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n";
        assert_eq!(processor_in(arm).as_deref(), Some("implementer 0x41 part 0xd40"));
        assert_eq!(processor_in("Hardware\t: BCM2835\n"), None);
        let driver = "Model: \t\t NVIDIA T4\nIRQ:   \t\t 37\n";
        assert_eq!(value(driver, "Model").as_deref(), Some("NVIDIA T4"));
        assert!(!processor().is_empty());
    }
}
