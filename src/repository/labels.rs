//! Names of the values of an output, one a line, from a file in the model's folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use crate::worker::LoadError;

/// Labels of each output that has some.
pub(super) type Labels = BTreeMap<String, Vec<String>>;

/// Largest file, in bytes: a million labels of 16 letters.
const MAX_BYTES: u64 = 16 << 20;

/// Reads the files that the settings of a model name, by output.
///
/// # Errors
/// A path that leads out of `folder`, a file that cannot be read, is too large or is not text.
pub(super) fn read(files: &BTreeMap<String, String>, folder: &Path) -> Result<Labels, LoadError> {
    let mut labels = Labels::new();
    for (output, file) in files {
        let text = text(&folder.join(file), file).map_err(|reason| {
            LoadError::new(format!("labels of output `{output}`: {file}: {reason}"))
        })?;
        labels.insert(output.clone(), text.lines().map(|line| line.trim().to_owned()).collect());
    }
    Ok(labels)
}

fn text(path: &Path, file: &str) -> Result<String, String> {
    let is_inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside {
        return Err("expected a path inside the model's folder".to_owned());
    }
    let mut text = String::new();
    let opened = File::open(path).map_err(|error| error.to_string())?;
    let read = opened.take(MAX_BYTES + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 <= MAX_BYTES => Ok(text),
        Ok(_) => Err(format!("longer than {MAX_BYTES} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(file: &str, folder: &Path) -> Result<Labels, String> {
        let files = BTreeMap::from([("y".to_owned(), file.to_owned())]);
        read(&files, folder).map_err(|error| error.to_string())
    }

    #[test]
    fn one_a_line_from_inside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("labels.txt"), "cat\r\ndog \n").unwrap();
        let read = labels("labels.txt", folder.path()).unwrap();
        assert_eq!(read["y"], ["cat", "dog"]);
        for outside in ["../labels.txt", "/etc/hostname", "a/../../b"] {
            let refused = labels(outside, folder.path()).unwrap_err();
            assert!(refused.ends_with("expected a path inside the model's folder"), "{refused}");
        }
        assert!(labels("absent", folder.path()).unwrap_err().contains("labels of output `y`"));
        std::fs::write(folder.path().join("binary"), b"\xff").unwrap();
        assert!(labels("binary", folder.path()).is_err());
    }
}
