//! The server as a process of its own, for what only a whole process shows.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::library;

/// `onnxd serve` that is up.
pub(crate) struct Process {
    child: Child,
    /// The operator's port.
    pub(crate) admin: SocketAddr,
}

/// A subcommand, without settings from the environment.
fn onnxd(subcommand: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONNXD_") {
            command.env_remove(name);
        }
    }
    command.arg(subcommand).arg("--runtime-library").arg(library());
    command.args(["--log-format", "text"]);
    command
}

/// A command that serves `models` on ports of the system's choice.
fn command(models: &Path, flags: &[&str]) -> Command {
    let mut command = onnxd("serve");
    command.arg(models);
    for port in ["--grpc-addr", "--http-addr", "--admin-addr"] {
        command.args([port, "127.0.0.1:0"]);
    }
    command.args(flags);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    /// Starts it and waits for the last line of its banner.
    pub(crate) fn start(models: &Path, flags: &[&str]) -> Self {
        let mut child = command(models, flags).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let admin = lines.map(Result::unwrap).find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("admin")).then(|| words.next().unwrap().parse().unwrap())
        });
        let unknown = SocketAddr::from(([0; 4], 0));
        let process = Self { child, admin: admin.unwrap_or(unknown) };
        assert!(admin.is_some(), "{}", process.stop());
        process
    }

    /// Memory that it holds now, in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
    }

    /// Ends it; gives its log.
    pub(crate) fn stop(mut self) -> String {
        self.child.kill().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        self.child.wait().unwrap();
        log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `stop` it has ended, which is what is wanted here.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `onnxd profile`: its exit code, what it prints and what it complains of.
pub(crate) fn profile(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = onnxd("profile").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs a server that does not start: its exit code and what it says.
pub(crate) fn refused(models: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let output = command(models, flags).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
