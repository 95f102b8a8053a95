//! What the server is built from: no version below a floor, nothing from elsewhere, no loose build.

use std::collections::BTreeMap;
use std::path::Path;

use onnxd::runtime::pins::{Flavor, PINS};

/// Lowest versions that are safe, by package. The reasons are known faults: RUSTSEC-2024-0376 and later
/// repairs of accept loop and drain (tonic), RUSTSEC-2026-0258 and flow control (h2), limits of HTTP/2
/// (hyper, hyper-util), RUSTSEC-2024-0336 and -0399 (rustls), RUSTSEC-2026-0049, -0098, -0099, -0104
/// (rustls-webpki), RUSTSEC-2026-0007 (bytes), RUSTSEC-2025-0055 (tracing-subscriber),
/// RUSTSEC-2025-0024 (crossbeam-channel), completion of asynchronous runs (ort).
const FLOORS: [(&str, &str); 10] = [
    ("tonic", "0.14.9"),
    ("h2", "0.4.20"),
    ("hyper", "1.12.0"),
    ("hyper-util", "0.1.21"),
    ("rustls", "0.23.18"),
    ("rustls-webpki", "0.103.13"),
    ("bytes", "1.11.1"),
    ("tracing-subscriber", "0.3.20"),
    ("crossbeam-channel", "0.5.15"),
    ("ort", "2.0.0-rc.15"),
];
/// The oldest ONNX Runtime that is fetched: repairs of memory safety end there. For CUDA 12 its makers
/// build none that is newer than 1.26.
const RUNTIME_FLOOR: [u32; 3] = [1, 30, 1];
/// The only place that packages come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Numbers of a version, those of a pre-release last.
fn numbers(version: &str) -> Vec<u32> {
    let digits = version.split(['.', '-', '+']).map(|part| part.trim_start_matches("rc"));
    digits.filter_map(|part| part.parse().ok()).collect()
}

/// What is wrong with a lock file.
fn faults(lock: &str) -> Vec<String> {
    let lock: toml::Table = lock.parse().unwrap();
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let mut faults = Vec::new();
    for package in lock["package"].as_array().unwrap() {
        let text = |key: &str| package.get(key).and_then(toml::Value::as_str);
        let (name, version) = (text("name").unwrap(), text("version").unwrap());
        if text("source").is_some_and(|source| source != REGISTRY) {
            faults.push(format!("{name} comes from elsewhere"));
        }
        if text("source").is_some() && text("checksum").is_none() {
            faults.push(format!("{name} has no checksum"));
        }
        if let Some(floor) = floors.get(name)
            && numbers(version) < numbers(floor)
        {
            faults.push(format!("{name} is {version}, below {floor}"));
        }
        if name == "openssl-sys" {
            faults.push("openssl-sys: TLS is rustls's".to_owned());
        }
    }
    faults
}

#[test]
fn no_package_is_below_its_floor_or_from_elsewhere() {
    let lock = file("Cargo.lock");
    assert_eq!(faults(&lock), Vec::<String>::new());
    for (name, _) in FLOORS.iter().filter(|(name, _)| *name != "crossbeam-channel") {
        assert!(lock.contains(&format!("name = \"{name}\"\n")), "{name} is not there any more");
    }
}

/// The check itself is checked: what it must find is planted.
#[test]
fn what_is_planted_is_found() {
    let package = |name: &str, version: &str, rest: &str| {
        format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{rest}\n")
    };
    let sum = format!("source = \"{REGISTRY}\"\nchecksum = \"00\"");
    for (planted, wanted) in [
        (package("h2", "0.4.19", &sum), "h2 is 0.4.19, below 0.4.20"),
        (package("ort", "2.0.0-rc.13", &sum), "ort is 2.0.0-rc.13, below 2.0.0-rc.15"),
        (package("x", "1.0.0", "source = \"git+https://host/x\""), "x comes from elsewhere"),
        (package("x", "1.0.0", &format!("source = \"{REGISTRY}\"")), "x has no checksum"),
        (package("openssl-sys", "0.9.1", &sum), "openssl-sys: TLS is rustls's"),
    ] {
        let found = faults(&(file("Cargo.lock") + "\n" + &planted));
        assert!(found.iter().any(|fault| fault == wanted), "{wanted}: {found:?}");
    }
}

#[test]
fn builds_are_locked_and_the_runtime_is_pinned_by_its_sum() {
    for line in file("Makefile").lines().map(str::trim) {
        let builds = ["cargo build", "cargo test", "cargo bench", "cargo clippy", "cargo doc"];
        let is_build = builds.iter().any(|build| line.contains(build)) && !line.contains("##");
        assert!(!is_build || line.contains("--locked"), "{line}");
    }
    for pin in PINS {
        // Older ones are there for those who bring them; none is fetched unasked.
        let is_default = PINS.iter().find(|it| (it.flavor, it.arch) == (pin.flavor, pin.arch));
        let has_newer = pin.flavor != Flavor::Cuda12;
        if has_newer && is_default.is_some_and(|it| std::ptr::eq(it, pin)) {
            let version = numbers(pin.version);
            assert!(version >= RUNTIME_FLOOR.to_vec(), "{} is too old", pin.version);
        }
        for sum in [pin.wheel_sha256, pin.library_sha256] {
            assert!(sum.len() == 64 && sum.bytes().all(|digit| digit.is_ascii_hexdigit()));
        }
    }
}
