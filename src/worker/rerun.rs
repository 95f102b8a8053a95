//! How often a failed batch may be split and run again to find the request that made it fail.
//!
//! A run that succeeds earns a tenth of a run; a split costs the runs that it adds. So reruns add
//! at most a tenth to the load over time, and a burst allows one large batch to be searched.
//! Source: the retry budgets of Finagle and linkerd.

use std::sync::atomic::{AtomicI64, Ordering};

/// Budget of one model version, in tenths of a run.
#[derive(Debug)]
pub(crate) struct RerunBudget(AtomicI64);

/// Tenths that a run costs.
const RUN: i64 = 10;
/// Most that can be saved: enough to find one guilty request among 64, twice.
const BURST: i64 = 28 * RUN;

impl Default for RerunBudget {
    fn default() -> Self {
        Self(AtomicI64::new(BURST))
    }
}

impl RerunBudget {
    /// A run succeeded.
    pub(crate) fn earn(&self) {
        // Relaxed: a budget need not be exact between threads.
        if self.0.load(Ordering::Relaxed) < BURST {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Pays for splitting a batch in two; false if the budget does not reach.
    pub(crate) fn pay_split(&self) -> bool {
        let before = self.0.fetch_sub(2 * RUN, Ordering::Relaxed);
        if before >= 2 * RUN {
            return true;
        }
        self.0.fetch_add(2 * RUN, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_tenth() {
        let budget = RerunBudget::default();
        let burst = (0..1000).take_while(|_| budget.pay_split()).count();
        assert_eq!(burst, 14);
        for _ in 0..19 {
            budget.earn();
            assert!(!budget.pay_split());
        }
        budget.earn();
        assert!(budget.pay_split());
    }
}
