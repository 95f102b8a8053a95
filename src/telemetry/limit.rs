//! At most so many log lines a second, and a count of those left out.
//!
//! For lines that a client can provoke: a stream of bad requests must not fill the disk or hide
//! everything else.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines of one kind that are written in a second.
pub const LINES_PER_SECOND: u32 = 10;

const WINDOW: Duration = Duration::from_secs(1);

/// Counts lines of one kind.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    begun_at: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether a line may be written at `now`, and if so how many were left out since the last one.
    pub fn allow(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.begun_at.is_none_or(|begun_at| now.saturating_duration_since(begun_at) >= WINDOW)
        {
            window.begun_at = Some(now);
            window.written = 0;
        }
        if window.written == LINES_PER_SECOND {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_a_count_of_the_rest() {
        let (limit, begin) = (LogLimit::default(), Instant::now());
        let written = (0..30_000).filter_map(|_| limit.allow(begin)).collect::<Vec<_>>();
        assert_eq!(written, [0; 10]);
        assert_eq!(limit.allow(begin + Duration::from_millis(999)), None);
        let next = begin + WINDOW;
        assert_eq!(limit.allow(next), Some(29_991));
        assert_eq!(limit.allow(next), Some(0));
    }
}
