//! The models in the repository are the files that their lists name.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::harness::{generated, shipped};

/// Compares a `SHA256SUMS` with the files beside it; gives how many it names.
fn check(folder: &Path) -> usize {
    let list = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    for line in list.lines() {
        let (sum, path) = line.split_once("  ").unwrap();
        let content = std::fs::read(folder.join(path)).unwrap();
        let octet = |at: usize| u8::from_str_radix(&sum[at..at + 2], 16).unwrap();
        let listed: Vec<u8> = (0..sum.len()).step_by(2).map(octet).collect();
        assert_eq!(Sha256::digest(&content)[..], listed, "{path}");
    }
    list.lines().count()
}

/// Model files below a folder of models.
fn count(models: &Path) -> usize {
    let folders = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let versions = folders(models).flat_map(|model| folders(&model.path()).collect::<Vec<_>>());
    versions.filter(|version| version.path().join("model.onnx").is_file()).count()
}

#[test]
fn every_model_is_listed_and_is_the_listed_one() {
    assert_eq!(check(&shipped()), count(&shipped()));
    assert_eq!(check(generated().parent().unwrap()), count(&generated()));
}
