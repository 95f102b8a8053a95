//! Replays the fuzzing corpus and a few thousand mutations of it: bytes from outside never panic.

use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

/// Mutations of each file.
const MUTATIONS: u64 = 2000;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    assert!(!files.is_empty());
    for file in files {
        let original = std::fs::read(&file).unwrap();
        target(&original);
        for seed in 1..=MUTATIONS {
            target(&mutate(&original, seed));
        }
    }
}

/// Flips, inserts, removes or doubles a few bytes; the same for the same seed.
fn mutate(original: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    let mut bytes = original.to_vec();
    for _ in 0..=next(4) {
        let at = next(bytes.len());
        match next(4) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << next(8),
            1 => bytes.insert(at, u8::try_from(next(256)).unwrap()),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => {
                let end = (at + next(16)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

#[test]
fn messages() {
    replay("decode", targets::decode);
}

/// Otherwise nothing but refusals would be tried.
#[test]
fn every_signature_is_met() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/decode");
    let mut met = [false; 3];
    for entry in std::fs::read_dir(folder).unwrap() {
        let fits = targets::fitting(&std::fs::read(entry.unwrap().path()).unwrap());
        for (met, fits) in met.iter_mut().zip(fits) {
            *met |= fits;
        }
    }
    assert_eq!(met, [true; 3]);
}

#[test]
fn bodies_over_rest() {
    replay("rest_body", targets::rest_body);
}

/// The same for REST.
#[test]
fn every_signature_is_met_over_rest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/rest_body");
    let mut met = [false; 3];
    for entry in std::fs::read_dir(folder).unwrap() {
        let fits = targets::rest_fitting(&std::fs::read(entry.unwrap().path()).unwrap());
        for (met, fits) in met.iter_mut().zip(fits) {
            *met |= fits;
        }
    }
    assert_eq!(met, [true; 3]);
}

#[test]
fn strings() {
    replay("strings", targets::strings);
}

#[test]
fn timeouts() {
    replay("grpc_timeout", targets::grpc_timeout);
}

#[test]
fn model_settings() {
    replay("model_toml", targets::model_toml);
}

#[test]
fn costs_beside_a_model() {
    replay("costs_toml", targets::costs_toml);
}

#[test]
fn tritons_model_settings() {
    replay("config_pbtxt", targets::config_pbtxt);
}

/// Depth alone must not end the process.
#[test]
fn a_config_pbtxt_as_deep_as_it_can_be() {
    for step in ["[a/inference.ModelConfig] {", "input {", "input <", "input [", "dims: [", "{"] {
        targets::config_pbtxt(step.repeat((1 << 20) / step.len()).as_bytes());
    }
}

#[test]
fn access_files() {
    replay("access_toml", targets::access_toml);
}

#[test]
fn credentials() {
    replay("credentials", targets::credentials);
}

/// Otherwise nothing but refusals would be tried.
#[test]
fn some_credentials_are_known() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/credentials");
    let read = |name: &str| targets::known(&std::fs::read(folder.join(name)).unwrap());
    for (name, whose) in
        [("RS256", Some("jwt:svc")), ("PS384", Some("jwt:svc")), ("secret", Some("token:ci"))]
    {
        assert_eq!(read(name).as_deref(), whose, "{name}");
    }
    for name in ["unsigned", "by_the_public_key", "basic"] {
        assert_eq!(read(name), None, "{name}");
    }
}

#[test]
fn lists_of_sums() {
    replay("sums", targets::sums);
}

#[test]
fn model_files() {
    replay("model_file", targets::model_file);
}

#[test]
fn server_settings() {
    replay("onnxd_toml", targets::onnxd_toml);
}
