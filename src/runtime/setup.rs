//! Gets the ONNX Runtime library: fetches the pinned wheel with pip, or takes one that is given,
//! checks its hashes, and unpacks the libraries with their licences.
//!
//! Writes only below the target folder, under temporary names until everything is right.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::digest::sha256;
use super::library;
use super::pins::{self, Flavor, Pin};

/// What to set up.
#[derive(Debug, Clone)]
pub struct SetupOptions {
    /// Build.
    pub flavor: Flavor,
    /// Version; `None` for the default.
    pub version: Option<String>,
    /// Target folder; `None` for the user's own.
    pub dir: Option<PathBuf>,
    /// A wheel that is already here, for machines without a network.
    pub wheel: Option<PathBuf>,
}

/// Why the library could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No tested release fits.
    #[error(
        "no tested ONNX Runtime {version} of flavor {flavor} for {arch}; there are: {known}. \
         Another one can be named with --runtime-library"
    )]
    NotPinned {
        /// What was asked for.
        flavor: &'static str,
        /// Version that was asked for.
        version: String,
        /// This machine.
        arch: &'static str,
        /// What there is.
        known: String,
    },
    /// There is no folder to put it in.
    #[error("no home folder to put the library in; name one with --dir")]
    NoDir,
    /// pip is missing or failed.
    #[error("{0}")]
    Pip(String),
    /// A file is not what it should be.
    #[error("{what}: expected SHA-256 {expected}, got {actual}")]
    Hash {
        /// The file.
        what: String,
        /// What is pinned.
        expected: String,
        /// What was found.
        actual: String,
    },
    /// The wheel is no wheel of ONNX Runtime.
    #[error("{path}: {reason}")]
    Wheel {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was to be read or written.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupReport {
    /// Path of the library.
    pub library: PathBuf,
    /// Whether it was there before.
    pub already_there: bool,
}

/// Name of the file that records what a folder holds.
const MANIFEST: &str = "manifest.json";

fn io_error(path: &Path) -> impl Fn(io::Error) -> SetupError {
    let path = path.display().to_string();
    move |source| SetupError::Io { path: path.clone(), source }
}

/// Sets the library up.
///
/// # Errors
/// [`SetupError`], with what to do next.
pub fn setup(options: &SetupOptions) -> Result<SetupReport, SetupError> {
    let arch = std::env::consts::ARCH;
    let pin = pins::find(options.flavor, options.version.as_deref(), arch).ok_or_else(|| {
        SetupError::NotPinned {
            flavor: options.flavor.name(),
            version: options.version.clone().unwrap_or_default(),
            arch,
            known: pins::versions(options.flavor, arch).join(", "),
        }
    })?;
    let user_dir = || library::default_setup_dir().map(|dir| dir.join(options.flavor.name()));
    let dir = options.dir.clone().or_else(user_dir).ok_or(SetupError::NoDir)?;
    let library = dir.join(library_name(pin));
    if library.is_file() && sha256(&library).map_err(io_error(&library))? == pin.library_sha256 {
        write_manifest(&dir, pin)?;
        return Ok(SetupReport { library, already_there: true });
    }
    fs::create_dir_all(&dir).map_err(io_error(&dir))?;
    let downloads = dir.join(".download");
    let wheel = match &options.wheel {
        Some(wheel) => wheel.clone(),
        None => download(pin, &downloads)?,
    };
    check_hash(&format!("wheel {}", wheel.display()), &wheel, pin.wheel_sha256)?;
    unpack(&wheel, pin, &dir)?;
    write_manifest(&dir, pin)?;
    if options.wheel.is_none() {
        fs::remove_dir_all(&downloads).map_err(io_error(&downloads))?;
    }
    Ok(SetupReport { library, already_there: false })
}

fn library_name(pin: &Pin) -> String {
    format!("libonnxruntime.so.{}", pin.version)
}

fn check_hash(what: &str, path: &Path, expected: &str) -> Result<(), SetupError> {
    let actual = sha256(path).map_err(io_error(path))?;
    if actual == expected {
        return Ok(());
    }
    Err(SetupError::Hash { what: what.to_owned(), expected: expected.to_owned(), actual })
}

/// Fetches the wheel with pip, which knows the site's index, proxy and certificates.
fn download(pin: &Pin, folder: &Path) -> Result<PathBuf, SetupError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(io_error(folder))?;
    }
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    let requirements = folder.join("requirements.txt");
    let line = format!("{}=={} --hash=sha256:{}\n", pin.package, pin.version, pin.wheel_sha256);
    fs::write(&requirements, line).map_err(io_error(&requirements))?;
    let child = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes", "--python-version", pins::PYTHON])
        .args(["--platform", pin.platform])
        .arg("--dest")
        .arg(folder)
        .arg("--requirement")
        .arg(&requirements)
        // pip unpacks and buffers here: where the progress can be seen.
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            SetupError::Pip(format!(
                "cannot run python3 ({error}); install Python 3 with pip, or give the wheel \
                 of {} {} with --wheel",
                pin.package, pin.version
            ))
        })?;
    watch(child, folder, pin)?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|end| end == "whl");
    let mut files = fs::read_dir(folder).map_err(io_error(folder))?.flatten();
    let wheel = files.find_map(|file| Some(file.path()).filter(is_wheel));
    wheel.ok_or_else(|| SetupError::Pip("pip left no wheel".to_owned()))
}

/// Shows how many bytes have come, until pip ends.
fn watch(child: Child, folder: &Path, pin: &Pin) -> Result<(), SetupError> {
    let style = "fetching {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
    let bar =
        ProgressBar::new(pin.wheel_bytes).with_message(format!("{} {}", pin.package, pin.version));
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let folder = folder.to_owned();
    let (done, ended) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        done.send(()).ok();
        output
    });
    while ended.recv_timeout(Duration::from_millis(100)).is_err() {
        if waiter.is_finished() {
            break;
        }
        bar.set_position(bytes_below(&folder).min(pin.wheel_bytes));
    }
    bar.finish_and_clear();
    let output = waiter.join().map_err(|_| SetupError::Pip("pip was lost".to_owned()))?;
    let output = output.map_err(|error| SetupError::Pip(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason");
    Err(SetupError::Pip(format!(
        "pip could not fetch {} {}: {last}; without a network, give the wheel with --wheel",
        pin.package, pin.version
    )))
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Texts that must stay with the library.
const LICENCES: [&str; 3] = ["LICENSE", "ThirdPartyNotices.txt", "Privacy.md"];

/// Libraries of the GPU builds, which must lie beside the main one.
const PROVIDERS: [&str; 3] = [
    "libonnxruntime_providers_shared.so",
    "libonnxruntime_providers_cuda.so",
    "libonnxruntime_providers_tensorrt.so",
];

/// Takes the libraries and their licences out of a wheel.
fn unpack(wheel: &Path, pin: &Pin, dir: &Path) -> Result<(), SetupError> {
    let refuse = |reason: String| SetupError::Wheel { path: wheel.display().to_string(), reason };
    let file = File::open(wheel).map_err(io_error(wheel))?;
    let mut archive =
        zip::ZipArchive::new(file).map_err(|error| refuse(format!("not a wheel: {error}")))?;
    let library = library_name(pin);
    let mut found = false;
    for index in 0..archive.len() {
        let mut entry =
            archive.by_index(index).map_err(|error| refuse(format!("damaged: {error}")))?;
        let path = entry.name().to_owned();
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let wanted = match folder {
            "onnxruntime/capi" => name == library || PROVIDERS.contains(&name),
            "onnxruntime" => LICENCES.contains(&name),
            _ => false,
        };
        if !wanted {
            continue;
        }
        // The name was compared or has no slash, so it stays inside `dir`.
        let (target, partial) = (dir.join(name), dir.join(format!("{name}.partial")));
        let mut out = File::create(&partial).map_err(io_error(&partial))?;
        io::copy(&mut entry, &mut out).map_err(io_error(&partial))?;
        if name == library {
            check_hash(name, &partial, pin.library_sha256)?;
            found = true;
        }
        fs::rename(&partial, &target).map_err(io_error(&target))?;
    }
    if found { Ok(()) } else { Err(refuse(format!("holds no {library}"))) }
}

fn write_manifest(dir: &Path, pin: &Pin) -> Result<(), SetupError> {
    let manifest: Value = json!({
        "name": "onnxruntime",
        "version": pin.version,
        "flavor": pin.flavor.name(),
        "arch": pin.arch,
        "library": library_name(pin),
        "sha256": pin.library_sha256,
    });
    let path = dir.join(MANIFEST);
    fs::write(&path, format!("{manifest:#}\n")).map_err(io_error(&path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn options(dir: &Path, wheel: PathBuf) -> SetupOptions {
        SetupOptions {
            flavor: Flavor::Cpu,
            version: None,
            dir: Some(dir.to_owned()),
            wheel: Some(wheel),
        }
    }

    fn pin() -> &'static Pin {
        pins::find(Flavor::Cpu, None, std::env::consts::ARCH).unwrap()
    }

    fn wheel(folder: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("x.whl");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, contents) in entries {
            archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(contents).unwrap();
        }
        archive.finish().unwrap();
        path
    }

    #[test]
    fn a_wheel_with_another_hash_is_refused_with_both() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), &[("onnxruntime/LICENSE", b"MIT")]);
        let error = setup(&options(&folder.path().join("a"), wheel)).unwrap_err().to_string();
        assert!(error.contains(pin().wheel_sha256) && error.contains("got "), "{error}");
        assert!(!folder.path().join("a/LICENSE").exists());
    }

    #[test]
    fn a_library_with_another_hash_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let library = library_name(pin());
        let name = format!("onnxruntime/capi/{library}");
        let wheel = wheel(folder.path(), &[(&name, b"something else")]);
        let error = unpack(&wheel, pin(), folder.path()).unwrap_err().to_string();
        assert!(error.contains(pin().library_sha256), "{error}");
        assert!(!folder.path().join(library).exists());
    }

    #[test]
    fn what_is_no_wheel_of_onnx_runtime_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let empty = wheel(folder.path(), &[("onnxruntime/LICENSE", b"MIT")]);
        let error = unpack(&empty, pin(), folder.path()).unwrap_err().to_string();
        assert!(error.contains("holds no libonnxruntime.so"), "{error}");
        let text = folder.path().join("text.whl");
        fs::write(&text, "hello").unwrap();
        let error = unpack(&text, pin(), folder.path()).unwrap_err().to_string();
        assert!(error.contains("not a wheel"), "{error}");
    }

    #[test]
    fn an_unknown_version_lists_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = SetupOptions {
            version: Some("0.9.9".into()),
            ..options(folder.path(), PathBuf::new())
        };
        let error = setup(&wanted).unwrap_err().to_string();
        assert!(error.contains("0.9.9") && error.contains("1.31.1"), "{error}");
    }
}
