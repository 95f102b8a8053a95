//! Keeps ONNX Runtime from phoning home.
//!
//! From 1.29 on the official Linux library sends usage data to its maker unless
//! `ORT_DISABLE_TELEMETRY=1` is in the environment before it is loaded; its API switch silences a
//! part only. A process cannot safely change its own environment, so it starts itself once more
//! with the variable set: first of all, as reading the command line and settings twice is a tenth of the
//! time to the first answer. Who allows telemetry, which the settings tell, pays for a third start.
//!
//! Source: ONNX Runtime, "Privacy".

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that ONNX Runtime looks for.
const DISABLE: &str = "ORT_DISABLE_TELEMETRY";
/// Set in all starts but the first, so that they end: to the value of [`DISABLE`] in it.
const STARTED_AGAIN: &str = "ONNXD_STARTED_AGAIN";

/// Why telemetry could not be switched off, or on.
#[derive(Debug, thiserror::Error)]
#[error("cannot start again with {DISABLE}={1}: {0}; set it in the environment")]
pub struct TelemetryError(std::io::Error, &'static str);

/// What to do, from what the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Go,
    /// With this in [`DISABLE`].
    StartAgain(&'static str),
}

/// `allowed` is not known before the settings are read.
fn decide(allowed: Option<bool>, disabled: Option<&str>, started_again: Option<&str>) -> Step {
    match (allowed, disabled, started_again) {
        // Only what was put there by ourselves is taken away.
        (Some(true), Some("1"), Some("1")) => Step::StartAgain("0"),
        (Some(true), ..) | (_, Some("1"), _) | (None, _, Some(_)) | (_, _, Some("1")) => Step::Go,
        _ => Step::StartAgain("1"),
    }
}

/// Silences what this process may load, until settings say otherwise ([`settle`]). To be called before
/// the first thread. Replaces the process by itself if need be, and then does not return.
///
/// # Errors
/// [`TelemetryError`] if the process cannot be replaced.
pub fn silence() -> Result<(), TelemetryError> {
    take(None)
}

/// Makes sure that the variable is set, unless telemetry is `allowed`. To be called before the first
/// thread. Replaces the process by itself if need be, and then does not return.
///
/// # Errors
/// [`TelemetryError`] if the process cannot be replaced.
pub fn settle(allowed: bool) -> Result<(), TelemetryError> {
    take(Some(allowed))
}

fn take(allowed: Option<bool>) -> Result<(), TelemetryError> {
    let told = |name| std::env::var(name).ok();
    let (disabled, again) = (told(DISABLE), told(STARTED_AGAIN));
    let Step::StartAgain(value) = decide(allowed, disabled.as_deref(), again.as_deref()) else {
        return Ok(());
    };
    let executable = std::env::current_exe().map_err(|error| TelemetryError(error, value))?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(executable);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(DISABLE, value).env(STARTED_AGAIN, value);
    Err(TelemetryError(command.exec(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_again_exactly_when_it_must() {
        let again = Step::StartAgain("1");
        for allowed in [None, Some(false)] {
            assert_eq!(decide(allowed, None, None), again);
            assert_eq!(decide(allowed, Some("0"), None), again);
            assert_eq!(decide(allowed, Some("1"), None), Step::Go);
            assert_eq!(decide(allowed, Some("1"), Some("1")), Step::Go);
        }
        // A wish of whoever started it stays.
        for disabled in [None, Some("0"), Some("1")] {
            assert_eq!(decide(Some(true), disabled, None), Step::Go);
        }
    }

    #[test]
    fn who_allows_it_is_started_a_third_time_and_not_a_fourth() {
        assert_eq!(decide(Some(true), Some("1"), Some("1")), Step::StartAgain("0"));
        assert_eq!(decide(None, Some("0"), Some("0")), Step::Go);
        assert_eq!(decide(Some(true), Some("0"), Some("0")), Step::Go);
        // Settings that have changed in between are followed.
        assert_eq!(decide(Some(false), Some("0"), Some("0")), Step::StartAgain("1"));
        // An environment that does not keep the variable ends it, too.
        assert_eq!(decide(Some(false), None, Some("1")), Step::Go);
    }
}
