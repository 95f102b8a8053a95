//! Models are tried in a process of their own before they are loaded into the one that serves.
//!
//! A broken model file can end the process that reads it: the runtime is native code, and no signal
//! is caught there. What the child survives, a load and first runs on the processor, the server may
//! load; anything else is the reason why the version is not served, and what served before serves on.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::{Phase, Repository};
use crate::config::{ModelConfig, TryModels};
use crate::worker::{LoadError, ModelSource};

/// How a child process is started: itself, the model's name and version follow as the last two
/// arguments. It prints one line of JSON ([`verdict`]).
#[derive(Debug, Clone)]
pub struct Trial {
    /// Which models are tried.
    pub mode: TryModels,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Longest time of a try.
    pub limit: Duration,
}

/// Longest answer of a child that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

impl Trial {
    /// Runs a child on one version. Blocks.
    ///
    /// # Errors
    /// How the child failed or ended.
    fn survive(&self, source: &ModelSource) -> Result<(), LoadError> {
        let failed = |reason: String| LoadError::new(format!("tried in a child process: {reason}"));
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(source.key.name.as_str())
            .arg(source.key.version.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("it cannot be started: {error}")))?;
        let (said, answer) = mpsc::channel();
        let output = child.stdout.take();
        std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(output) = output {
                // What cannot be read is no answer.
                drop(output.take(MAX_ANSWER).read_to_string(&mut text));
            }
            drop(said.send(text));
        });
        let text = answer.recv_timeout(self.limit);
        // It has closed its output and is about to end, or has had its time.
        if text.is_err() {
            drop(child.kill());
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        let Ok(text) = text else {
            return Err(failed(format!("not done after {} ms", self.limit.as_millis())));
        };
        if let Some(signal) = status.signal() {
            return Err(failed(format!("the model ended it with signal {signal}")));
        }
        match read_verdict(&text) {
            Some(outcome) => outcome.map_err(LoadError::new),
            None => Err(failed(format!("it ended without an answer, {status}"))),
        }
    }
}

/// What a child prints of a try.
pub fn verdict(outcome: &Result<(), LoadError>) -> String {
    let reason = outcome.as_ref().err().map(ToString::to_string);
    serde_json::json!({ "loads": outcome.is_ok(), "reason": reason }).to_string()
}

fn read_verdict(text: &str) -> Option<Result<(), String>> {
    let said: Value = serde_json::from_str(text.trim()).ok()?;
    match (said.get("loads")?.as_bool()?, said.get("reason")) {
        (true, _) => Some(Ok(())),
        (false, Some(Value::String(reason))) => Some(Err(reason.clone())),
        (false, _) => Some(Err("no reason was given".to_owned())),
    }
}

impl Repository {
    /// Tries models as `trial` says from now on. Only the first call counts.
    pub fn try_with(&self, trial: Trial) {
        drop(self.trial.set(trial));
    }

    /// Tries a version in a child process, if it is to be tried.
    pub(super) fn try_out(&self, source: &ModelSource) -> Result<(), LoadError> {
        let Some(trial) = self.trial.get() else { return Ok(()) };
        let is_starting = self.snapshot.load().phase == Phase::Starting;
        match trial.mode {
            TryModels::Off => Ok(()),
            TryModels::Loaded if is_starting => Ok(()),
            TryModels::Loaded | TryModels::Always => trial.survive(source),
        }
    }

    /// Loads a version, warms it up and lets it go again. Blocks.
    ///
    /// # Errors
    /// Why it cannot be served.
    pub fn rehearse(&self, source: &ModelSource, config: ModelConfig) -> Result<(), LoadError> {
        self.load(source, config).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelKey, ModelName, ModelVersion};

    fn shell(script: &str, limit: Duration) -> Result<(), LoadError> {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        let trial = Trial { mode: TryModels::Always, program: "/bin/sh".into(), arguments, limit };
        let key = ModelKey { name: ModelName::new("m").unwrap(), version: ModelVersion::FIRST };
        trial.survive(&ModelSource { key, path: "model.onnx".into(), sha256: None })
    }

    #[test]
    fn only_a_child_that_says_so_has_survived() {
        let long = Duration::from_secs(30);
        assert_eq!(shell("echo '{\"loads\":true}'", long), Ok(()));
        for (script, limit, reason) in [
            ("echo '{\"loads\":false,\"reason\":\"no\"}'", long, "no"),
            ("kill -SEGV $$", long, "signal 11"),
            ("echo '{\"loads\":true}'; kill -KILL $$", long, "signal 9"),
            ("exit 3", long, "without an answer"),
            ("echo yes", long, "without an answer"),
            ("exec sleep 60", Duration::from_millis(50), "not done after 50 ms"),
        ] {
            let error = shell(script, limit).unwrap_err().to_string();
            assert!(error.contains(reason), "{script}: {error}");
        }
        assert!(shell("[ $0 = m ] && [ $1 = 1 ] && echo '{\"loads\":true}'", long).is_ok());
    }

    #[test]
    fn a_verdict_is_read_as_it_was_written() {
        for outcome in [Ok(()), Err(LoadError::new("why \"not\"\n?"))] {
            let read = read_verdict(&verdict(&outcome)).unwrap();
            assert_eq!(read.map_err(LoadError::new), outcome);
        }
    }
}
