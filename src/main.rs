//! The `onnxd` process: parse, run, print the last words, exit. The only place that prints.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Requests allocate and free across threads; measured against the system's allocator. It stands in for
/// `malloc` as well, and so for that of ONNX Runtime, which is loaded later.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of mimalloc: how long it keeps what is free, in milliseconds. By its header; the binding has no name
/// for it, but for the next one, and for how many there are.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
const _: () = assert!(libmimalloc_sys::mi_option_use_numa_nodes == PURGE_DELAY + 1);
const _: () = assert!(libmimalloc_sys::_mi_option_last == 47);
/// Instead of a second, in which large requests leave twice what they need. `MIMALLOC_PURGE_DELAY` has
/// the last word.
const PURGE_DELAY_MS: std::ffi::c_long = 10;

/// Settles what the allocator does, before there is a second thread.
#[expect(unsafe_code, reason = "one option of the allocator that no library sets")]
fn settle_allocator() {
    // SAFETY: a number is stored; no other thread is there to read it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}

fn main() -> ExitCode {
    settle_allocator();
    if let Err(error) = onnxd::cli::prepare(std::env::args_os()) {
        complain(&error.to_string());
        return ExitCode::from(onnxd::cli::CANNOT_START);
    }
    let matches = onnxd::cli::command().get_matches();
    let serves = matches.subcommand_name() == Some("serve");
    let outcome = onnxd::cli::run(&matches, if serves { announce } else { print });
    if !outcome.text.is_empty() {
        if outcome.code == 0 {
            print(&outcome.text);
        } else {
            complain(&outcome.text);
        }
    }
    ExitCode::from(outcome.code)
}

/// Tells that a server is up.
fn announce(banner: &str) {
    print(banner);
    give_back();
}

/// Gives back what the start has freed. Models were loaded onto large pages, which is a seventh faster;
/// what comes and goes from now on would hold such pages half empty.
#[expect(unsafe_code, reason = "one call of the allocator that no library makes")]
fn give_back() {
    // Where the system cannot, memory lies on larger pages than it needs.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    // SAFETY: what is given back is in nobody's hands, and the allocator's own locks guard it.
    unsafe { libmimalloc_sys::mi_collect(true) };
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
