//! Where the ONNX Runtime library is.
//!
//! The first that exists wins: what the operator named, then beside the server, then what
//! `onnxd setup` fetched, then a Python environment, then the system. A name that the operator gave
//! is used or is an error, never passed over.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where to look, read once from the process.
#[derive(Debug, Clone, Default)]
pub struct SearchPlaces {
    /// From a flag, the environment's `ONNXD_RUNTIME_LIBRARY`, or the settings file.
    pub explicit: Option<PathBuf>,
    /// `ORT_DYLIB_PATH`.
    pub dylib_path: Option<PathBuf>,
    /// Folder of the executable.
    pub executable_dir: Option<PathBuf>,
    /// Where `onnxd setup` puts libraries: one folder per flavor inside.
    pub setup_dir: Option<PathBuf>,
    /// Root of the active Python environment.
    pub python_prefix: Option<PathBuf>,
    /// Folders of the system's loader.
    pub system_dirs: Vec<PathBuf>,
}

/// How a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Named by the operator.
    Explicit,
    /// Named in `ORT_DYLIB_PATH`.
    DylibPath,
    /// Beside the executable.
    Executable,
    /// Fetched by `onnxd setup`.
    Setup,
    /// In the active Python environment.
    Python,
    /// Among the system's libraries.
    System,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "the settings",
            Self::DylibPath => "ORT_DYLIB_PATH",
            Self::Executable => "beside the executable",
            Self::Setup => "onnxd setup",
            Self::Python => "the Python environment",
            Self::System => "the system",
        })
    }
}

/// A library that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLibrary {
    /// Its path.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
}

/// Why there is no library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// The operator's name leads nowhere.
    #[error("no ONNX Runtime library at {} (from {origin})", .path.display())]
    Missing {
        /// The name.
        path: PathBuf,
        /// Who gave it.
        origin: Origin,
    },
    /// It is nowhere.
    #[error("no ONNX Runtime library found; `onnxd setup` fetches it. Looked in: {}", .0.join(", "))]
    Nowhere(Vec<String>),
}

const FILE_STEM: &str = "libonnxruntime.so";

impl SearchPlaces {
    /// Reads the places of this process.
    pub fn from_process(explicit: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let executable = std::env::current_exe().ok();
        let system = [
            "/usr/local/lib",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/usr/lib64",
            "/usr/lib",
        ];
        Self {
            explicit,
            dylib_path: variable("ORT_DYLIB_PATH"),
            executable_dir: executable.as_deref().and_then(Path::parent).map(Path::to_owned),
            setup_dir: default_setup_dir(),
            python_prefix: variable("VIRTUAL_ENV").or_else(|| variable("CONDA_PREFIX")),
            system_dirs: system.iter().map(PathBuf::from).collect(),
        }
    }

    /// Folders to look in, in order.
    fn folders(&self) -> Vec<(PathBuf, Origin)> {
        let mut folders = Vec::new();
        if let Some(dir) = &self.executable_dir {
            for inner in ["", "onnxruntime", "../lib/onnxd"] {
                folders.push((dir.join(inner), Origin::Executable));
            }
        }
        if let Some(dir) = &self.setup_dir {
            for flavor in ["cuda13", "cuda12", "cpu"] {
                folders.push((dir.join(flavor), Origin::Setup));
            }
        }
        if let Some(prefix) = &self.python_prefix {
            let pythons = std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
            let inner = "site-packages/onnxruntime/capi";
            folders.extend(pythons.map(|each| (each.path().join(inner), Origin::Python)));
        }
        folders.extend(self.system_dirs.iter().map(|dir| (dir.clone(), Origin::System)));
        folders
    }
}

/// Where `onnxd setup` puts libraries unless it is told another place.
pub fn default_setup_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    data.map(|data| data.join("onnxd/onnxruntime"))
}

/// Finds the library.
///
/// # Errors
/// [`LibraryError`].
pub fn find(places: &SearchPlaces) -> Result<FoundLibrary, LibraryError> {
    let named = [(&places.explicit, Origin::Explicit), (&places.dylib_path, Origin::DylibPath)];
    for (path, origin) in named {
        let Some(path) = path else { continue };
        let path =
            if path.is_dir() { newest_in(path) } else { path.is_file().then(|| path.clone()) };
        let missing = || LibraryError::Missing {
            path: if origin == Origin::Explicit { &places.explicit } else { &places.dylib_path }
                .clone()
                .unwrap_or_default(),
            origin,
        };
        return path.map(|path| FoundLibrary { path, origin }).ok_or_else(missing);
    }
    let folders = places.folders();
    let found = folders
        .iter()
        .find_map(|(dir, origin)| Some(FoundLibrary { path: newest_in(dir)?, origin: *origin }));
    found.ok_or_else(|| {
        LibraryError::Nowhere(folders.iter().map(|(dir, _)| dir.display().to_string()).collect())
    })
}

/// The library with the highest version in a folder.
fn newest_in(dir: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let version = |path: &PathBuf| -> Option<Vec<u64>> {
        let rest = path.file_name()?.to_str()?.strip_prefix(FILE_STEM)?;
        if rest.is_empty() {
            return Some(Vec::new());
        }
        rest.strip_prefix('.')?.split('.').map(|part| part.parse().ok()).collect()
    };
    let libraries = files.filter(|path| path.is_file());
    let versioned = libraries.filter_map(|path| Some((version(&path)?, path)));
    versioned.max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn the_order_is_as_documented() {
        let root = tempfile::tempdir().unwrap();
        let at = |inner: &str| root.path().join(inner);
        let mut places = SearchPlaces {
            executable_dir: Some(at("bin")),
            setup_dir: Some(at("data")),
            python_prefix: Some(at("venv")),
            system_dirs: vec![at("system")],
            ..SearchPlaces::default()
        };
        let error = find(&places).unwrap_err().to_string();
        assert!(error.contains("onnxd setup") && error.contains("/system"), "{error}");
        let inner = "venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.28.0";
        for (file, origin) in [
            ("system/libonnxruntime.so", Origin::System),
            (inner, Origin::Python),
            ("data/cpu/libonnxruntime.so.1.31.1", Origin::Setup),
            ("bin/../lib/onnxd/libonnxruntime.so.1", Origin::Executable),
            ("bin/onnxruntime/libonnxruntime.so.1.9.0", Origin::Executable),
        ] {
            let path = touch(at(file));
            let found = find(&places).unwrap();
            assert_eq!((found.path, found.origin), (path, origin));
        }
        // Versions compare as numbers.
        let newer = touch(at("bin/onnxruntime/libonnxruntime.so.1.31.1"));
        touch(at("bin/onnxruntime/libonnxruntime_providers_shared.so"));
        assert_eq!(find(&places).unwrap().path, newer);

        places.dylib_path = Some(touch(at("own/lib.so")));
        assert_eq!(find(&places).unwrap().origin, Origin::DylibPath);
        places.explicit = Some(at("absent.so"));
        let error = find(&places).unwrap_err();
        assert!(matches!(error, LibraryError::Missing { origin: Origin::Explicit, .. }));
        places.explicit = Some(at("bin/onnxruntime"));
        assert_eq!(find(&places).unwrap().path, newer);
    }
}
