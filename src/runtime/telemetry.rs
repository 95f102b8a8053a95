//! Keeps ONNX Runtime from phoning home.
//!
//! From 1.29 on the official Linux library sends usage data to its maker unless
//! `ORT_DISABLE_TELEMETRY=1` is in the environment before it is loaded; its API switch silences a
//! part only. A process cannot safely change its own environment, so it starts itself once more
//! with the variable set, before it has any thread.
//!
//! Source: ONNX Runtime, "Privacy".

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that ONNX Runtime looks for.
const DISABLE: &str = "ORT_DISABLE_TELEMETRY";
/// Set in the second start, so that there is no third.
const STARTED_AGAIN: &str = "ONNXD_STARTED_AGAIN";

/// Why telemetry could not be switched off.
#[derive(Debug, thiserror::Error)]
#[error("cannot start again with {DISABLE}=1: {0}; set it in the environment")]
pub struct TelemetryError(std::io::Error);

/// What to do, from what the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Go,
    StartAgain,
}

fn decide(allowed: bool, disabled: Option<&str>, started_again: bool) -> Step {
    if allowed || disabled == Some("1") || started_again { Step::Go } else { Step::StartAgain }
}

/// Makes sure that the variable is set, unless telemetry is `allowed`. Replaces the process by
/// itself if need be, and then does not return.
///
/// # Errors
/// [`TelemetryError`] if the process cannot be replaced.
pub fn ensure_disabled(allowed: bool) -> Result<(), TelemetryError> {
    let disabled = std::env::var(DISABLE).ok();
    let again = std::env::var_os(STARTED_AGAIN).is_some();
    if decide(allowed, disabled.as_deref(), again) == Step::Go {
        return Ok(());
    }
    let executable = std::env::current_exe().map_err(TelemetryError)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(executable);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(DISABLE, "1").env(STARTED_AGAIN, "1");
    Err(TelemetryError(command.exec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_again_exactly_when_it_must() {
        assert_eq!(decide(false, None, false), Step::StartAgain);
        assert_eq!(decide(false, Some("0"), false), Step::StartAgain);
        assert_eq!(decide(false, Some("1"), false), Step::Go);
        assert_eq!(decide(true, None, false), Step::Go);
        assert_eq!(decide(false, None, true), Step::Go);
    }
}
