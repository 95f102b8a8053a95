//! Whether more comes than can be done, and for how long already: values and pure functions.
//!
//! A request that is refused or given up for want of time tells of it, for some full runs.

use std::time::Duration;

use tokio::time::Instant;

use crate::cost::CostModel;

/// Full runs for which a loss tells of an overload.
const LASTING_RUNS: u32 = 4;

/// The last overload, which may be over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overload(Option<Losses>);

/// Losses that followed each other without a pause.
#[derive(Debug, Clone, Copy)]
struct Losses {
    first_at: Instant,
    last_at: Instant,
}

impl Overload {
    /// A request is lost at `now`.
    pub fn lost(&mut self, now: Instant, costs: &CostModel) {
        let first_at = self.lasting(now, costs).map_or(now, |losses| losses.first_at);
        self.0 = Some(Losses { first_at, last_at: now });
    }

    /// Whether it lasts.
    pub fn lasts(&self, now: Instant, costs: &CostModel) -> bool {
        self.lasting(now, costs).is_some()
    }

    /// For how long it has lasted.
    pub fn age(&self, now: Instant, costs: &CostModel) -> Duration {
        let since = |losses: Losses| now.saturating_duration_since(losses.first_at);
        self.lasting(now, costs).map_or(Duration::ZERO, since)
    }

    fn lasting(&self, now: Instant, costs: &CostModel) -> Option<Losses> {
        // Asked for every request that comes: costs are looked up only where there was a loss.
        self.0.filter(|losses| {
            let full = costs.expect(costs.usual_rows(), costs.usual_length());
            now.saturating_duration_since(losses.last_at) <= full * LASTING_RUNS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_in_a_row_are_one_overload_and_a_pause_ends_it() {
        let mut costs = CostModel::new(1, Duration::ZERO);
        costs.set(1, 1, Duration::from_millis(10));
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut overload = Overload::default();
        assert!(!overload.lasts(begin, &costs));
        for millis in [0, 40, 80] {
            overload.lost(at(millis), &costs);
        }
        assert!(overload.lasts(at(120), &costs));
        assert_eq!(overload.age(at(120), &costs), Duration::from_millis(120));
        assert!(!overload.lasts(at(121), &costs));
        assert_eq!(overload.age(at(121), &costs), Duration::ZERO);
        overload.lost(at(200), &costs);
        assert_eq!(overload.age(at(210), &costs), Duration::from_millis(10));
    }
}
