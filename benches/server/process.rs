//! Child processes on cores of their own, and what they cost.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::time::Instant;

/// A server in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    /// From the start of the process to its banner, in seconds.
    pub(crate) started_in: f64,
}

/// What one load run showed.
pub(crate) struct Run {
    /// Figures of the load generator.
    pub(crate) figures: Value,
    /// Microseconds of the server's CPU per answer.
    pub(crate) cpu_micros: f64,
}

/// The server's core.
const SERVER_CORE: &str = "0";
/// The load generator's core.
const LOAD_CORE: &str = "1";

/// A command on one core.
pub(crate) fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).stdin(Stdio::null());
    command.env("ORT_DISABLE_TELEMETRY", "1");
    command
}

/// The binary under test.
pub(crate) fn onnxd() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_onnxd"))
}

impl Server {
    /// The server on a repository, with ports of the system's choice.
    pub(crate) fn start(models: &Path, library: &Path, extra: &[&str]) -> Result<Self, String> {
        let mut command = pinned(SERVER_CORE, &onnxd());
        command.arg("serve").arg(models).args(["--log", "error"]);
        command.arg("--runtime-library").arg(library).args(extra);
        for port in ["--grpc-addr", "--http-addr", "--admin-addr"] {
            command.args([port, "127.0.0.1:0"]);
        }
        Self::spawn(command)
    }

    /// The floor.
    pub(crate) fn floor() -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = pinned(SERVER_CORE, &own);
        command.arg("floor");
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<Self, String> {
        let begun_at = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run taskset (util-linux): {error}"))?;
        let stdout = child.stdout.take().ok_or("no output")?;
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| error.to_string())?;
            if let Some(address) = line.trim().strip_prefix("gRPC") {
                let address = address.trim().to_owned();
                let started_in = begun_at.elapsed().as_secs_f64();
                return Ok(Self { child, address, started_in });
            }
        }
        Err("the server ended without a banner".to_owned())
    }

    /// Puts load on it; `arguments` are those of `onnxd bench`.
    pub(crate) fn load(&self, arguments: &[&str]) -> Result<Run, String> {
        let before = self.cpu_seconds()?;
        let mut command = pinned(LOAD_CORE, &onnxd());
        command.arg("bench").args(["--json", "--addr", &self.address]).args(arguments);
        let output = command.output().map_err(|error| error.to_string())?;
        let after = self.cpu_seconds()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let figures: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let answers = figures["answers"].as_f64().unwrap_or(0.0).max(1.0);
        Ok(Run { figures, cpu_micros: (after - before) * 1e6 / answers })
    }

    /// User and system time of the process so far. The clock ticks 100 times a second.
    fn cpu_seconds(&self) -> Result<f64, String> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .map_err(|error| error.to_string())?;
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        Ok((ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let line = text.unwrap_or_default();
        let kib = line.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
        });
        kib.unwrap_or(f64::NAN) / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only this child; one that has ended already is no error.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Microseconds of a run by rows, without a server.
pub(crate) fn ceiling(model: &Path, library: &Path) -> Result<Value, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = pinned(SERVER_CORE, &own)
        .arg("ceiling")
        .args([model, library])
        .output()
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Time that the whole bench took so far, for its progress lines.
pub(crate) fn stamp(begun_at: &Instant) -> String {
    format!("[{:>4.0} s]", begun_at.elapsed().as_secs_f64())
}
