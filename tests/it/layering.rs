//! The rules of the house, checked on the sources: ranks, names, lengths, first lines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms by rank: a room names only itself and lower ranks.
const RANKS: &[&[&str]] = &[
    &["tensor", "deadline", "runtime", "cost", "reload", "processor"],
    &["model"],
    &["error"],
    &["request", "statistics", "batcher::policy", "batcher::pending", "repository::version_policy"],
    &["job", "config"],
    &["batcher", "cache"],
    &["telemetry"],
    &["worker", "access"],
    &["onnx", "repository"],
    &["pb", "connection"],
    &["grpc"],
    &["http", "admin"],
    &["app", "bench", "simulate"],
    &["cli"],
    &["main"],
];

/// Most lines of a source file, tests aside.
const MAX_LINES: usize = 400;

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 20);
    files
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs")
        || path.ends_with("simulation.rs")
        || path.to_string_lossy().contains("/tests/")
}

/// Path of a module below `src`, for instance `batcher::policy`.
fn module(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inner = path.strip_prefix(root).unwrap().with_extension("");
    inner.to_string_lossy().replace('/', "::")
}

fn rank(module: &str) -> Option<usize> {
    let ranks: BTreeMap<&str, usize> = RANKS
        .iter()
        .enumerate()
        .flat_map(|(rank, rooms)| rooms.iter().map(move |room| (*room, rank)))
        .collect();
    let two: Vec<&str> = module.split("::").take(2).collect();
    ranks.get(two.join("::").as_str()).or_else(|| ranks.get(two[0])).copied()
}

#[test]
fn imports_point_down() {
    for (path, text) in sources() {
        let own = module(&path);
        if is_test(&path) || own == "lib" {
            continue;
        }
        let own_rank = rank(&own).unwrap_or_else(|| panic!("{own} has no rank"));
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let named: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
                let room = named.split("::").next().unwrap();
                if room.is_empty() || own.split("::").next() == Some(room) {
                    continue;
                }
                let named_rank = rank(&named).unwrap_or_else(|| panic!("{own} names {named}"));
                assert!(
                    named_rank < own_rank,
                    "{own} (rank {own_rank}) names {named} ({named_rank})"
                );
            }
        }
    }
}

#[test]
fn only_one_room_names_onnx_runtime_and_only_the_wire_rooms_name_messages() {
    for (path, text) in sources() {
        let own = module(&path);
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = code.collect::<Vec<_>>().join("\n");
        if !own.starts_with("onnx") {
            let names_it = |found: (usize, &str)| {
                !code[..found.0].ends_with(|before: char| before.is_alphanumeric() || before == '_')
            };
            assert!(!code.match_indices("ort::").any(names_it), "{own} names the binding");
        }
        let wire = ["grpc", "http", "pb", "cli", "bench"].iter().any(|room| own.starts_with(room));
        if !wire {
            assert!(
                !code.contains("crate::pb") && !code.contains("tonic::"),
                "{own} names messages"
            );
        }
        if own != "onnx::strings" && own != "processor" {
            assert!(!code.contains("unsafe {"), "{own} has unsafe code");
        }
    }
}

#[test]
fn files_open_with_their_purpose_and_stay_short() {
    for (path, text) in sources() {
        let own = module(&path);
        assert!(text.starts_with("//!"), "{own} has no module documentation");
        assert!(!path.ends_with("mod.rs"), "{own}");
        for word in ["util", "helper", "common", "misc", "manager"] {
            assert!(!own.contains(word), "{own} is called {word}");
        }
        if !is_test(&path) {
            let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
            assert!(lines <= MAX_LINES, "{own} has {lines} lines");
        }
    }
}
