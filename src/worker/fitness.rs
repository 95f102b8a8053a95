//! Whether a model version can be trusted with requests: a pure rule, and what it is held against.
//!
//! A version whose runs all hang, whose executor keeps panicking, or whose device is lost would
//! only collect requests and fail them. It leaves service until that has passed; others serve on.
//! Workers note what happens, `repository::watchdog` looks from time to time and decides.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many panics within [`PANIC_WINDOW`] take a model version out of service.
pub const MOST_PANICS: usize = 5;
/// For how long a panic counts. A version returns when fewer than [`MOST_PANICS`] do.
pub const PANIC_WINDOW: Duration = Duration::from_mins(1);

/// Why a version that is loaded does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// No instance is left whose run has not lasted longer than any run may.
    Hangs,
    /// Its executor panicked too often.
    Panics,
    /// Its device failed in a way that lasts.
    Device,
}

impl Unfit {
    /// What callers and the operator read.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Hangs => "its runs hang; it returns when one of them ends",
            Self::Panics => "it panicked too often within a minute; it is tried again after that",
            Self::Device => "its device failed; the server must be restarted",
        }
    }
}

/// What is known of one version at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Workers.
    pub instances: usize,
    /// Those of them whose run has lasted too long.
    pub hung: usize,
    /// Panics within the last [`PANIC_WINDOW`].
    pub panics: usize,
    /// Whether its device failed for good.
    pub device_lost: bool,
}

impl Condition {
    /// Decides.
    pub const fn verdict(&self) -> Option<Unfit> {
        if self.device_lost {
            Some(Unfit::Device)
        } else if self.hung > 0 && self.hung >= self.instances {
            Some(Unfit::Hangs)
        } else if self.panics >= MOST_PANICS {
            Some(Unfit::Panics)
        } else {
            None
        }
    }
}

/// What workers have noted of one version, and what was decided last.
#[derive(Debug, Default)]
pub struct Fitness {
    faults: Mutex<Faults>,
    /// The verdict, as [`encode`] has it.
    verdict: AtomicU8,
}

#[derive(Debug, Default)]
struct Faults {
    /// The latest, at most [`MOST_PANICS`].
    panics: VecDeque<Instant>,
    device_lost: bool,
}

impl Fitness {
    /// An executor panicked.
    pub fn panicked(&self, now: Instant) {
        let mut faults = self.lock();
        if faults.panics.len() == MOST_PANICS {
            faults.panics.pop_front();
        }
        faults.panics.push_back(now);
    }

    /// The device failed for good.
    pub fn lost_device(&self) {
        self.lock().device_lost = true;
    }

    /// The condition at `now` with `hung` of `instances`.
    pub fn condition(&self, now: Instant, hung: usize, instances: usize) -> Condition {
        let faults = self.lock();
        let counts = |at: &&Instant| now.saturating_duration_since(**at) < PANIC_WINDOW;
        let panics = faults.panics.iter().filter(counts).count();
        Condition { instances, hung, panics, device_lost: faults.device_lost }
    }

    /// What was decided last; cheap.
    pub fn verdict(&self) -> Option<Unfit> {
        // Relaxed: a request more or less that finds it makes no difference.
        match self.verdict.load(Ordering::Relaxed) {
            1 => Some(Unfit::Hangs),
            2 => Some(Unfit::Panics),
            3 => Some(Unfit::Device),
            _ => None,
        }
    }

    /// Takes down what was decided; gives what was before.
    pub fn decide(&self, verdict: Option<Unfit>) -> Option<Unfit> {
        let before = self.verdict();
        self.verdict.store(encode(verdict), Ordering::Relaxed);
        before
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn encode(verdict: Option<Unfit>) -> u8 {
    match verdict {
        None => 0,
        Some(Unfit::Hangs) => 1,
        Some(Unfit::Panics) => 2,
        Some(Unfit::Device) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Condition = Condition { instances: 2, hung: 0, panics: 0, device_lost: false };

    #[test]
    fn a_version_serves_while_one_instance_can() {
        assert_eq!(WELL.verdict(), None);
        assert_eq!(Condition { hung: 1, ..WELL }.verdict(), None);
        assert_eq!(Condition { hung: 2, ..WELL }.verdict(), Some(Unfit::Hangs));
        assert_eq!(Condition { panics: 4, ..WELL }.verdict(), None);
        assert_eq!(Condition { panics: 5, ..WELL }.verdict(), Some(Unfit::Panics));
        assert_eq!(Condition { device_lost: true, ..WELL }.verdict(), Some(Unfit::Device));
    }

    #[test]
    fn panics_count_for_a_minute() {
        let (fitness, begin) = (Fitness::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..7 {
            fitness.panicked(at(10 * second));
        }
        // The latest five: at 20, 30, 40, 50 and 60 s.
        let panics = |seconds| fitness.condition(at(seconds), 0, 1).panics;
        assert_eq!((panics(60), panics(79), panics(80), panics(120)), (5, 5, 4, 0));
    }

    #[test]
    fn what_was_decided_is_what_is_read() {
        let fitness = Fitness::default();
        for verdict in [Some(Unfit::Hangs), Some(Unfit::Panics), Some(Unfit::Device), None] {
            fitness.decide(verdict);
            assert_eq!(fitness.verdict(), verdict);
        }
    }
}
