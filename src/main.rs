//! The `onnxd` process: parse, run, print the last words, exit. The only place that prints.

use std::process::ExitCode;

/// Requests allocate and free across threads; measured against the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
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

#[expect(clippy::print_stdout, reason = "the process's output")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the process's output")]
fn complain(text: &str) {
    eprintln!("onnxd: {text}");
}
