//! The command line: one table of settings, one binary for every job.
//!
//! Flags, environment names and help text of `serve` come from the settings table; each subcommand
//! is a file. Commands return an exit code and never print on their own behalf but through
//! [`Console`], so that `main` stays the only place that touches the process.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done; a server that was asked to stop answered everything first |
//! | 1 | the command's own finding: a check that failed, a call that was refused, a server that is not well |
//! | 2 | flags, environment or files are wrong |
//! | 3 | cannot start: a port, the ONNX Runtime library, the repository, a model when strict |
//! | 4 | stopped, but accepted requests could not be answered within the grace period |
//! | 5 | stopped at once by a second signal |

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::settings::{MODEL, SERVER, Setting};
use crate::config::{Config, ConfigErrors, Origin, Raw, read_file};
use crate::runtime::telemetry::{self, TelemetryError};

mod bench;
mod check;
mod doctor;
mod health;
mod infer;
mod profile;
mod serve;
mod setup;
mod simulate;
mod token;
mod try_model;

/// What a command says and the code that it ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code of the process.
    pub code: u8,
    /// Last words, for standard error when the code is not 0, else for standard output.
    pub text: String,
}

impl Outcome {
    fn ok(text: impl Into<String>) -> Self {
        Self { code: 0, text: text.into() }
    }

    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Where commands print what must be seen before they end.
pub type Console = fn(&str);

const WRONG_SETTINGS: u8 = 2;
/// Exit code of a command that cannot begin what it is for.
pub const CANNOT_START: u8 = 3;
const NOT_DRAINED: u8 = 4;
const KILLED: u8 = 5;

/// The whole command line.
pub fn command() -> Command {
    Command::new("onnxd")
        .about("Serves ONNX models over the Open Inference Protocol (gRPC)")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_settings(Command::new("serve").about("Serve a repository or one model file"))
                .arg(models_argument().required(true)),
        )
        .subcommand(
            with_settings(
                Command::new("check")
                    .about("Check settings and a repository; binds nothing, loads nothing"),
            )
            .arg(models_argument().required(true)),
        )
        .subcommand(with_settings(
            Command::new("doctor").about("Show what this machine and these settings give"),
        ))
        .subcommand(health::command())
        .subcommand(infer::command())
        .subcommand(setup::command())
        .subcommand(bench::command())
        .subcommand(profile::command())
        .subcommand(simulate::command())
        .subcommand(token::command())
        .subcommand(try_model::command())
}

fn models_argument() -> Arg {
    Arg::new("models")
        .value_name("PATH")
        .value_parser(clap::value_parser!(PathBuf))
        .help("A model repository (<name>/<version>/model.onnx) or one .onnx file")
}

fn with_settings(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("ONNXD_CONFIG")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Settings file (TOML); keys are the flags with underscores");
    let mut command = command.arg(config);
    for (heading, settings) in [("Server", SERVER), ("Models (each model.toml may differ)", MODEL)]
    {
        for setting in settings {
            command = command.arg(argument(setting).help_heading(heading));
        }
    }
    command
}

fn argument(setting: &Setting) -> Arg {
    let default = match setting.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let argument = Arg::new(setting.key)
        .long(setting.flag())
        .env(setting.environment())
        .hide_env(true)
        .value_name("VALUE")
        .help(format!("{}{default}", setting.help));
    if matches!(setting.default, "true" | "false") {
        // `--strict` alone means true; a value may follow after `=`.
        let argument = argument.num_args(0..=1).require_equals(true).default_missing_value("true");
        return argument.value_parser(PossibleValuesParser::new([
            "true", "false", "1", "0", "yes", "no", "on", "off",
        ]));
    }
    argument.action(ArgAction::Set).allow_hyphen_values(true)
}

/// To be called before anything else, with the arguments of the process: what loads ONNX Runtime keeps
/// it from phoning home, for which the process may replace itself.
///
/// # Errors
/// [`TelemetryError`] if the process cannot be replaced.
pub fn prepare(mut arguments: impl Iterator<Item = OsString>) -> Result<(), TelemetryError> {
    match arguments.nth(1) {
        Some(name) if LOAD_RUNTIME.iter().any(|command| name == *command) => telemetry::silence(),
        _ => Ok(()),
    }
}

/// Commands that load ONNX Runtime.
const LOAD_RUNTIME: [&str; 4] = ["serve", "doctor", "profile", try_model::NAME];

/// Runs the command that `matches` holds.
pub fn run(matches: &ArgMatches, console: Console) -> Outcome {
    match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches, console),
        Some(("check", matches)) => check::run(matches),
        Some(("doctor", matches)) => doctor::run(matches),
        Some(("bench", matches)) => bench::run(matches),
        Some(("simulate", matches)) => simulate::run(matches),
        Some(("health", matches)) => health::run(matches),
        Some(("infer", matches)) => infer::run(matches),
        Some(("profile", matches)) => profile::run(matches, console),
        Some(("setup", matches)) => setup::run(matches),
        Some(("token", matches)) => token::run(matches),
        Some((try_model::NAME, matches)) => try_model::run(matches),
        _ => Outcome::new(WRONG_SETTINGS, "no such command"),
    }
}

/// Settings with their texts and origins.
struct Layers {
    values: Vec<(&'static str, String, Origin)>,
}

impl Layers {
    /// Flag, then environment, then file.
    fn read(matches: &ArgMatches) -> Result<Self, ConfigErrors> {
        let file = match matches.get_one::<PathBuf>("config") {
            None => Vec::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    ConfigErrors::one(&path.display().to_string(), error.to_string())
                })?;
                read_file(&text)?
            }
        };
        let mut values = Vec::new();
        for setting in SERVER.iter().chain(MODEL) {
            let given = matches.get_one::<String>(setting.key).cloned();
            let origin = match matches.value_source(setting.key) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                _ => Origin::Environment,
            };
            let filed = || file.iter().find(|(key, _)| key == setting.key);
            if let Some(text) = given {
                values.push((setting.key, text, origin));
            } else if let Some((_, text)) = filed() {
                values.push((setting.key, text.clone(), Origin::File));
            }
        }
        Ok(Self { values })
    }

    fn raw(&self, key: &str) -> Option<Raw> {
        let found = self.values.iter().find(|(known, _, _)| *known == key);
        found.map(|(_, text, origin)| (text.clone(), *origin))
    }

    fn resolve(&self) -> Result<Config, ConfigErrors> {
        Config::resolve(|key| self.raw(key))
    }
}

fn models_path(matches: &ArgMatches) -> PathBuf {
    matches.get_one::<PathBuf>("models").cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn a_flag_wins_over_the_file_and_a_bare_switch_is_true() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "instances = 3\nmax_batch_size = 9\n").unwrap();
        let config = file.path().to_str().unwrap();
        let line = ["onnxd", "serve", "models", "--strict", "--instances", "2", "--config", config];
        let matches = super::command().try_get_matches_from(line).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let config = super::Layers::read(matches).unwrap().resolve().unwrap();
        assert!(config.strict && config.reflection);
        assert_eq!((config.model.instances, config.model.max_batch_size), (2, 9));
    }
}
