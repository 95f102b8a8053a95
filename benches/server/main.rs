//! `make bench`: the server against its two limits, in one run.
//!
//! The floor is the smallest server that this stack allows and answers a canned tensor; the
//! ceiling is the same model in ONNX Runtime without any server. Server and floor run on one core,
//! the load generator on the other; figures are medians of several runs, CPU time is that of the
//! server's process. Prints a table with the target of each row, writes `bench-out/results.json`
//! and `bench-out/overhead.svg`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

mod ceiling;
mod floor;
mod models;
mod plot;
mod process;
mod rows;

use std::process::ExitCode;

/// The server and the floor allocate as the shipped binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments.first().map(String::as_str) {
        Some("floor") => floor::serve(),
        Some("ceiling") => ceiling::measure(&arguments[1..]),
        _ => rows::measure(arguments.iter().any(|each| each == "--quick")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
