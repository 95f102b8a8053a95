//! What the files of a model looked like when they were last read, to see when they change.
//!
//! Compared are resolved path, length, time of change and inode, of the model file, whatever lies
//! beside it (weights kept apart) and the model's settings. The resolved path shows a swapped
//! symbolic link even where the new file has the old one's length and time, as Kubernetes makes
//! them. Contents are not read: a model may have gigabytes.
//!
//! Measured costs beside a model ([`super::costs`]) are passed over. They change no answer, and a
//! model that runs has learned what its runs cost itself: loading it anew for them would hold its
//! weights twice for a while and forget that. They are read when the model is loaded next.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::costs::is_costs;
use super::layout::FoundModel;
use crate::model::{ModelName, ModelVersion};

/// What one file looked like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FileMark {
    path: PathBuf,
    length: u64,
    changed_at: Option<SystemTime>,
    inode: u64,
}

impl FileMark {
    /// `None` for what is no file, or is gone.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            path: fs::canonicalize(path).ok()?,
            length: metadata.len(),
            changed_at: metadata.modified().ok(),
            inode: metadata.ino(),
        })
    }
}

/// What the files of one version and the model's settings looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VersionMark(Vec<FileMark>);

/// What all versions of a model looked like.
pub(super) type ModelMark = BTreeMap<ModelVersion, VersionMark>;

/// Most files beside a model that are compared.
const MAX_FILES: usize = 4096;

/// Looks at the files of a model now.
pub(super) fn of(model: &FoundModel) -> ModelMark {
    let config = model.config.as_deref().and_then(FileMark::of);
    let mark = |path: &PathBuf| {
        let beside = path.parent().filter(|_| !model.is_single_file);
        let entries = beside.and_then(|folder| fs::read_dir(folder).ok());
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let paths = paths.filter(|path| !is_costs(path));
        let mut files: Vec<FileMark> =
            paths.take(MAX_FILES).filter_map(|path| FileMark::of(&path)).collect();
        files.extend(FileMark::of(path));
        files.sort_unstable();
        files.extend(config.clone());
        VersionMark(files)
    };
    model.versions.iter().map(|(version, path)| (*version, mark(path))).collect()
}

/// What a look at the repository asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Models that are new or look different, and looked the same the last time.
    pub(super) changed: Vec<ModelName>,
    /// Models that are gone, and were gone the last time.
    pub(super) gone: Vec<ModelName>,
    /// Something looks different from the last time: it may still be being written.
    pub(super) is_unsettled: bool,
}

/// Compares what the models look like now with what they looked like when they were last acted on
/// and when they were last looked at. Two looks that agree are asked for, so that no file is read
/// while it is being copied.
pub(super) fn compare(
    acted_on: &BTreeMap<ModelName, ModelMark>,
    last: &BTreeMap<ModelName, ModelMark>,
    now: &BTreeMap<ModelName, ModelMark>,
) -> Changes {
    let mut changes = Changes::default();
    for (name, mark) in now {
        if acted_on.get(name) == Some(mark) {
            continue;
        }
        if last.get(name) == Some(mark) {
            changes.changed.push(name.clone());
        } else {
            changes.is_unsettled = true;
        }
    }
    for name in acted_on.keys().filter(|name| !now.contains_key(*name)) {
        if last.contains_key(name) {
            changes.is_unsettled = true;
        } else {
            changes.gone.push(name.clone());
        }
    }
    changes.changed.sort_unstable();
    changes.gone.sort_unstable();
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::layout;

    fn look(root: &Path) -> BTreeMap<ModelName, ModelMark> {
        let listing = layout::list(root).unwrap();
        listing.models.iter().map(|model| (model.name.clone(), of(model))).collect()
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(names: &[&str]) -> Vec<ModelName> {
        names.iter().map(|name| ModelName::new(name).unwrap()).collect()
    }

    #[test]
    fn a_change_counts_when_it_was_seen_twice() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("a/1/model.onnx"), "one");
        let before = look(root.path());
        assert_eq!(compare(&before, &before, &look(root.path())), Changes::default());

        write(&root.path().join("a/1/model.onnx"), "other");
        let after = look(root.path());
        let first = compare(&before, &before, &after);
        assert_eq!(first, Changes { is_unsettled: true, ..Changes::default() });
        let second = compare(&before, &after, &look(root.path()));
        assert_eq!(second, Changes { changed: names(&["a"]), ..Changes::default() });
    }

    #[test]
    fn weights_and_settings_count_too() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("a/1/model.onnx"), "one");
        for file in ["a/1/weights.bin", "a/model.toml", "a/2/model.onnx"] {
            let before = look(root.path());
            write(&root.path().join(file), "x");
            let after = look(root.path());
            assert_eq!(compare(&before, &after, &after).changed, names(&["a"]), "{file}");
        }
    }

    #[test]
    fn costs_beside_a_model_are_no_change() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("a/1/model.onnx"), "one");
        let before = look(root.path());
        for file in ["costs.toml", "costs.toml.partial", "net.costs.toml"] {
            write(&root.path().join("a/1").join(file), "x");
            assert_eq!(look(root.path()), before, "{file}");
        }
        write(&root.path().join("a/1/mycosts.toml"), "x");
        assert_ne!(look(root.path()), before, "another's file may be a part of the model");
    }

    #[test]
    fn a_model_is_gone_when_it_was_missed_twice() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("a/1/model.onnx"), "one");
        let before = look(root.path());
        fs::remove_dir_all(root.path().join("a")).unwrap();
        let after = look(root.path());
        let first = compare(&before, &before, &after);
        assert_eq!(first, Changes { is_unsettled: true, ..Changes::default() });
        assert_eq!(compare(&before, &after, &after).gone, names(&["a"]));
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let root = tempfile::tempdir().unwrap();
        for data in ["first", "second"] {
            write(&root.path().join(".store").join(data).join("1/model.onnx"), "same");
        }
        let link = root.path().join("a");
        std::os::unix::fs::symlink(root.path().join(".store/first"), &link).unwrap();
        let before = look(root.path());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(root.path().join(".store/second"), &link).unwrap();
        let after = look(root.path());
        assert_eq!(compare(&before, &after, &after).changed, names(&["a"]));
    }
}
