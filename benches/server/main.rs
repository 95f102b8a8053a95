//! `make bench`: the server against its targets, in one run.
//!
//! The floor is the smallest server that this stack allows and answers a canned tensor; the
//! ceiling is the same model in ONNX Runtime without any server. Server and floor run on one core,
//! the load generator and this process on the other. Loads take turns, so that a machine that
//! becomes slower does so for both sides of a ratio ([`turns`]); figures are medians over the rounds,
//! CPU time is that of the server's process.
//!
//! | rows | file | what |
//! | --- | --- | --- |
//! | 1, 2, 3, 6, 11 | [`limits`] | against the floor and the ceiling |
//! | 4, 5, 13 | [`batching`] | the default against settings by hand, and against runs of one row |
//! | 7 | [`overload`] | more load than the server can take, and after it |
//! | 8, 9, 10 | [`process`] | start, memory, size |
//! | 12 | [`cores`] | two instances on two cores |
//!
//! Prints a table with the target and the verdict of each row and writes `bench-out/results.json`
//! and `bench-out/rows.svg`. `--rows 1,7` takes only those, `--quick` one short round of each,
//! `--compare FILE` shows the figures of an earlier `results.json` beside the new ones, and whether
//! both agree: the noise of a figure is the range of its rounds.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

mod batching;
mod ceiling;
mod cores;
mod floor;
mod limits;
mod models;
mod overload;
mod process;
mod row;
mod run;
mod setting;
mod start;
mod table;
mod turns;

use std::process::ExitCode;

/// The allocator of the shipped binary, for the floor and for runs without a server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|each| each != "--bench").collect();
    let ended = match arguments.first().map(String::as_str) {
        Some("floor") => floor::serve(),
        Some("ceiling") => ceiling::measure(&arguments[1..]),
        Some("rows") => table::measure(&arguments[1..]),
        _ => run::beside_the_load(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
