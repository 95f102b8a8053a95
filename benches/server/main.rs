//! `make bench`: the server against its two limits, in one run.
//!
//! The floor is the smallest server that this stack allows and answers a canned tensor; the
//! ceiling is the same model in ONNX Runtime without any server. Server and floor run on one core,
//! the load generator and this process on the other. Loads take turns, so that a machine that
//! becomes slower does so for both sides of a ratio; figures are medians over the rounds, CPU time
//! is that of the server's process. Prints a table with the target of each row, writes
//! `bench-out/results.json` and `bench-out/overhead.svg`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

mod ceiling;
mod figures;
mod floor;
mod models;
mod process;
mod start;
mod table;

use std::process::ExitCode;

/// The server and the floor allocate as the shipped binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|each| each == "--quick");
    let ended = match arguments.first().map(String::as_str) {
        Some("floor") => floor::serve(),
        Some("ceiling") => ceiling::measure(&arguments[1..]),
        Some("rows") => table::measure(quick),
        _ => process::beside_the_load(quick),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
