//! The point in time after which nobody cares for an answer.
//!
//! Decided when a request arrives, at most shortened by what the request itself asks for, and carried
//! with it; every later stage only compares.
//! Monotonic, so that a jump of the wall clock changes nothing. Pure: `now` is always an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A monotonic point in time after which an answer is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

/// An instant farther away cannot be represented on every platform.
const CENTURY: Duration = Duration::from_hours(24 * 365 * 100);

impl Deadline {
    /// The deadline `limit` after `now`.
    pub fn after(now: Instant, limit: Duration) -> Self {
        Self(now + limit.min(CENTURY))
    }

    /// Time left at `now`; zero when it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it has passed at `now`. The instant itself counts as past.
    pub fn is_past(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// The instant itself, for a timer.
    pub fn instant(self) -> Instant {
        self.0
    }
}
