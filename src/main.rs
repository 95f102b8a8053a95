//! The `onnxd` process: parse, run, print the last words, exit. The only place that prints.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Requests allocate and free across threads; measured against the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = onnxd::cli::prepare(std::env::args_os()) {
        complain(&error.to_string());
        return ExitCode::from(onnxd::cli::CANNOT_START);
    }
    let matches = onnxd::cli::command().get_matches();
    let outcome = onnxd::cli::run(&matches, print);
    if !outcome.text.is_empty() {
        if outcome.code == 0 {
            print(&outcome.text);
        } else {
            complain(&outcome.text);
        }
    }
    ExitCode::from(outcome.code)
}

/// A reader that has left, as in `onnxd doctor | head -1`, is no fault.
fn print(text: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        complain(&format!("cannot write: {error}"));
    }
}

/// Nobody can be told where this cannot be written.
fn complain(text: &str) {
    writeln!(std::io::stderr(), "onnxd: {text}").ok();
}
