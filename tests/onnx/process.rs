//! The server as a process of its own, for what only a whole process shows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::library;

/// Longest wait for anything; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// `onnxd serve` that is up.
pub(crate) struct Process {
    child: Child,
    /// Data port.
    pub(crate) grpc: SocketAddr,
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
        let mut ports = lines.map(Result::unwrap).filter_map(|line| {
            let mut words = line.split_whitespace();
            let is_port = ["gRPC", "REST", "admin"].contains(&words.next()?);
            is_port.then(|| words.next()?.parse().ok()).flatten()
        });
        let unknown = SocketAddr::from(([0; 4], 0));
        let [grpc, _, admin] = [(); 3].map(|()| ports.next().unwrap_or(unknown));
        let process = Self { child, grpc, admin };
        assert_ne!(admin, unknown, "{}", process.stop());
        process
    }

    /// Memory that it holds now, in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
    }

    /// Asks the operator's port until the answer holds these words.
    pub(crate) fn until(&self, path: &str, words: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut socket = TcpStream::connect(self.admin).unwrap();
            let question = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            socket.write_all(question.as_bytes()).unwrap();
            let mut heard = String::new();
            socket.read_to_string(&mut heard).unwrap();
            if heard.contains(words) {
                return;
            }
            assert!(Instant::now() < end, "{path}: no {words:?} in {heard}");
        }
    }

    /// Asks it to stop; a second time it stops at once.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end; gives its exit code and its log.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
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
