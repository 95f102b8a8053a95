//! Child processes on cores of their own, and what they cost.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use onnxd::bench::cpu_of;
use serde_json::Value;

use crate::row::median;

/// A server in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

/// What one load run showed.
pub(crate) struct Run {
    /// Microseconds of the server's CPU per answer.
    pub(crate) cpu_micros: f64,
    /// Answers a second.
    pub(crate) rate: f64,
    /// Median latency in microseconds.
    pub(crate) p50_micros: f64,
    /// System calls with which the server wrote, per answer.
    pub(crate) writes: f64,
    /// Answers in time, a second.
    pub(crate) goodput: f64,
    /// Whether every request was answered.
    complete: bool,
}

/// The server's core.
pub(crate) const SERVER_CORE: &str = "0";
/// Shares of a core that other processes took during the loads so far.
static OTHERS: Mutex<Vec<f64>> = Mutex::new(Vec::new());

/// Their median.
pub(crate) fn others_share() -> f64 {
    median(OTHERS.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Cores of a server with several instances; the second one is the load generator's, too.
pub(crate) const BOTH_CORES: &str = "0,1";
/// The load generator's core.
const LOAD_CORE: &str = "1";
/// Silences ONNX Runtime in a process that does not see to it by itself.
const DISABLE_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// A command on one core.
fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).stdin(Stdio::null());
    command
}

/// The server under test: the one that the environment names, else the one built beside the bench,
/// which puts on the load in any case.
pub(crate) fn onnxd() -> PathBuf {
    let named = std::env::var_os("ONNXD_BIN").filter(|path| !path.is_empty());
    named.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_onnxd")), PathBuf::from)
}

fn own_binary() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| error.to_string())
}

/// Runs the rows in a process on the load generator's core, so that nothing here disturbs the
/// server.
pub(crate) fn beside_the_load(arguments: &[String]) -> Result<(), String> {
    let mut command = pinned(LOAD_CORE, &own_binary()?);
    command.arg("rows").args(arguments);
    let status =
        command.status().map_err(|error| format!("cannot run taskset (util-linux): {error}"))?;
    if status.success() { Ok(()) } else { Err("not finished".to_owned()) }
}

impl Server {
    /// The server on a repository at an address, in its default configuration. Comes back before
    /// it is ready; its log goes to `log`.
    pub(crate) fn spawn(models: &Path, address: &str, log: &Path) -> Result<Self, String> {
        let mut command = serve(SERVER_CORE, models, address, log)?;
        let child = command.stdout(Stdio::null()).spawn().map_err(|error| error.to_string())?;
        Ok(Self { child, address: address.to_owned() })
    }

    /// The same on a port of the system's choice; comes back once every model was loaded.
    pub(crate) fn start(models: &Path, log: &Path) -> Result<Self, String> {
        Self::start_on(SERVER_CORE, models, log)
    }

    /// The same on these cores.
    pub(crate) fn start_on(cores: &str, models: &Path, log: &Path) -> Result<Self, String> {
        Self::announced(serve(cores, models, "127.0.0.1:0", log)?)
    }

    /// The floor.
    pub(crate) fn floor() -> Result<Self, String> {
        let mut command = pinned(SERVER_CORE, &own_binary()?);
        command.arg("floor");
        Self::announced(command)
    }

    fn announced(mut command: Command) -> Result<Self, String> {
        let child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        // From here on the child ends with this value.
        let mut server = Self { child, address: String::new() };
        let stdout = server.child.stdout.take().ok_or("no output")?;
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| error.to_string())?;
            if let Some(address) = line.trim().strip_prefix("gRPC") {
                address.trim().clone_into(&mut server.address);
                return Ok(server);
            }
        }
        Err("the server ended without a banner; see bench-out/server.log".to_owned())
    }

    /// Puts load on it; `arguments` are those of `onnxd bench`. A load with failed requests gives
    /// no figure.
    pub(crate) fn load(&self, arguments: &[&str]) -> Result<Run, String> {
        let run = self.overload(arguments)?;
        if run.complete {
            return Ok(run);
        }
        Err(format!("load {arguments:?}: not every request was answered"))
    }

    /// The same; requests may be refused.
    pub(crate) fn overload(&self, arguments: &[&str]) -> Result<Run, String> {
        let (before, machine_before) = (self.cpu_seconds()?, machine_seconds());
        let writes_before = self.writes();
        let mut command = pinned(LOAD_CORE, Path::new(env!("CARGO_BIN_EXE_onnxd")));
        command.arg("bench").args(["--json", "--addr", &self.address]).args(arguments);
        let output = command.output().map_err(|error| error.to_string())?;
        let (after, machine_after) = (self.cpu_seconds()?, machine_seconds());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let figures: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let codes = figures["codes"].as_object();
        let complete = codes.is_some_and(|codes| codes.len() == 1 && codes.contains_key("0"));
        let number = |figure: &Value| figure.as_f64().unwrap_or(f64::NAN);
        let generator_share = number(&figures["generator"]["cpu_share"]);
        let seconds = number(&figures["seconds"]);
        let answers = number(&figures["answers"]);
        let others = machine_after - machine_before - (after - before);
        let mut shares = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
        shares.push(others / seconds - generator_share);
        Ok(Run {
            cpu_micros: (after - before) * 1e6 / answers,
            writes: (self.writes() - writes_before) / answers,
            rate: number(&figures["answers_per_second"]),
            p50_micros: number(&figures["latency_us"]["p50"]),
            goodput: (answers - number(&figures["late"])) / seconds,
            complete,
        })
    }

    fn cpu_seconds(&self) -> Result<f64, String> {
        let cpu = cpu_of(self.child.id()).ok_or("the server has ended")?;
        Ok(cpu.as_secs_f64())
    }

    /// System calls with which the process wrote so far.
    fn writes(&self) -> f64 {
        self.entry("io", "syscw:")
    }

    /// Resident memory in MB.
    pub(crate) fn resident_mb(&self) -> f64 {
        self.entry("status", "VmRSS:") * 1024.0 / 1e6
    }

    /// The number behind `key` in a file that the system keeps about the process.
    fn entry(&self, file: &str, key: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()));
        let text = text.unwrap_or_default();
        let rest = text.lines().find_map(|line| line.strip_prefix(key));
        let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.unwrap_or(f64::NAN)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only this child; one that has ended already is no error.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Seconds that processes of the machine took so far, and that the machine below took away. Without
/// interrupts: those of the network are the load's own, and charged to nobody.
fn machine_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let fields: Vec<f64> =
        first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, stolen] = [0, 1, 2, 7].map(|index| fields.get(index).unwrap_or(&0.0));
    (user + nice + system + stolen) / 100.0
}

/// The command of a server in its default configuration. What silences ONNX Runtime is its own
/// duty, and a part of its start.
fn serve(cores: &str, models: &Path, address: &str, log: &Path) -> Result<Command, String> {
    // Others may be writing to it.
    let log = std::fs::File::options().create(true).append(true).open(log);
    let log = log.map_err(|error| error.to_string())?;
    let mut command = pinned(cores, &onnxd());
    command.env_remove(DISABLE_TELEMETRY).stderr(log).arg("serve").arg(models);
    command.args(["--grpc-addr", address]);
    command.args(["--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
    Ok(command)
}

/// Runs of a model without a server; see [`crate::ceiling`].
pub(crate) fn ceiling(model: &Path, library: &Path, more: &[&str]) -> Result<Value, String> {
    let output = pinned(SERVER_CORE, &own_binary()?)
        .env(DISABLE_TELEMETRY, "1")
        .arg("ceiling")
        .args([model, library])
        .args(more)
        .output()
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
}
