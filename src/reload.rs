//! Files that are looked at again and again while the server runs.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Looks go on as long as this is there.
#[derive(Debug)]
pub struct Reload {
    _stop: mpsc::Sender<()>,
}

/// Calls `look` every so often, on a thread of that name, until the answer is dropped.
///
/// # Errors
/// The system's, if there can be no thread.
pub fn every(
    interval: Duration,
    name: &str,
    mut look: impl FnMut() + Send + 'static,
) -> io::Result<Reload> {
    let (stop, stopped) = mpsc::channel();
    let looks = move || {
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            look();
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(looks)?;
    Ok(Reload { _stop: stop })
}
