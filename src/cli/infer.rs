//! `onnxd infer`: a client for a first look at a running server.
//!
//! For two of the models that are shipped it knows how a file becomes tensors and what the answer
//! means: [`magika`] and [`silero`]. With any other it takes numbers from the command line
//! ([`any`]). Talks to any server of the Open Inference Protocol; needs no ONNX Runtime.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{CANNOT_START, Outcome, WRONG_SETTINGS};
use client::Client;
use credentials::Credentials;

mod any;
mod client;
mod credentials;
mod magika;
mod plot;
mod segments;
mod silero;
mod values;

/// Address of a server that was started with the defaults.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8001";

/// What one call of this command is about.
struct Target {
    address: String,
    model: String,
    /// Empty: the server's choice.
    version: String,
    credentials: Credentials,
}

/// The subcommand.
pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let command = Command::new("infer")
        .about("Ask a running server: type of a file, speech in a recording, or plain numbers")
        .after_help(
            "Examples:\n  \
             onnxd infer magika --file README.md\n  \
             onnxd infer silero-vad --file models/silero-vad/sample.wav\n  \
             onnxd infer MODEL                       shows the inputs and outputs\n  \
             onnxd infer MODEL --input x=1,2,3,4     a single value fills the whole shape\n  \
             onnxd infer MODEL --input 'x[2,2]=1,2,3,4'",
        )
        .arg(Arg::new("model").value_name("MODEL").required(true).help("Name of the model"))
        .arg(
            text("addr", "HOST:PORT", "Address of the server's gRPC port")
                .default_value(DEFAULT_ADDRESS),
        )
        .arg(text("model-version", "NUMBER", "Version of the model [default: the server's choice]"))
        .arg(
            text("file", "FILE", "magika: any file. silero-vad: a WAV file, 16 kHz, mono, 16 bits")
                .value_parser(clap::value_parser!(PathBuf))
                .conflicts_with("input"),
        )
        .arg(
            text(
                "input",
                "NAME=V1,V2,…",
                "Values of an input, once for each; NAME[2,3]= gives a shape",
            )
            .action(ArgAction::Append),
        )
        .arg(
            text("timeout-ms", "MS", "Deadline of the call [default: the server's]")
                .value_parser(clap::value_parser!(u64).range(1..)),
        );
    credentials::flags(command)
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let credentials = match Credentials::read(matches) {
        Ok(credentials) => credentials,
        Err(outcome) => return outcome,
    };
    let target = Target {
        address: text("addr"),
        model: text("model"),
        version: text("model-version"),
        credentials,
    };
    let inputs: Vec<String> = matches.get_many("input").into_iter().flatten().cloned().collect();
    let timeout = matches.get_one("timeout-ms").copied().map(Duration::from_millis);
    let file = matches.get_one::<PathBuf>("file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::new(CANNOT_START, error.to_string()),
    };
    let asked = runtime.block_on(ask(&target, file.map(PathBuf::as_path), &inputs, timeout));
    asked.map_or_else(|outcome| outcome, Outcome::ok)
}

async fn ask(
    target: &Target,
    file: Option<&Path>,
    inputs: &[String],
    timeout: Option<Duration>,
) -> Result<String, Outcome> {
    // Files are read first: a wrong one needs no server to be told.
    match (target.model.as_str(), file) {
        ("magika", Some(file)) => {
            let prepared = magika::prepare(file).map_err(wrong)?;
            magika::identify(file, prepared, async || Client::new(target, timeout).await).await
        }
        ("silero-vad", Some(file)) => {
            let samples = silero::read(file).map_err(wrong)?;
            silero::listen(Client::new(target, timeout).await?, file, &samples).await
        }
        (model, Some(_)) => Err(wrong(format!(
            "no file can be made into inputs of `{model}`: that is known for magika and \
             silero-vad; others take --input"
        ))),
        (_, None) => any::ask(Client::new(target, timeout).await?, target, inputs).await,
    }
}

/// A mistake in what the caller gave.
fn wrong(text: impl Into<String>) -> Outcome {
    Outcome::new(WRONG_SETTINGS, text)
}

/// A call that was refused, or an answer that makes no sense.
fn refused(text: impl Into<String>) -> Outcome {
    Outcome::new(1, text)
}
