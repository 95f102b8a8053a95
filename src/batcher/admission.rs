//! Whether a request is taken, by the time that it will take: a pure function.
//!
//! A queue that is bounded by count alone fills with requests that are dead when their turn comes,
//! and a server that runs those answers nothing in time. So a request that cannot be answered before
//! its deadline is refused when it comes, which costs next to nothing, and is told when to come back.

use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::pending::Pending;
use crate::cost::CostModel;
use crate::deadline::Deadline;

/// Share of the time left, after its own run, that a request may wait by the estimate. The rest is
/// for what the estimate does not see, above all requests with earlier deadlines that come later.
const WAITING: f64 = 0.95;
/// The same in an overload that lasts. A long queue helps over a burst; after that it only makes
/// all answers late by its length, and the smallest delay that nobody sees (requests that wait in
/// sockets, a processor that is taken away) makes them too late.
/// Source: Nichols and Jacobson, "Controlling Queue Delay" (ACM Queue, 2012), on standing queues.
const STANDING: f64 = 0.7;
/// An overload lasts, for a request, if it is older than so many times the time that it has left.
const LASTING: u32 = 10;
/// Runs that may go before it all the same: fewer would leave instances without full runs.
const ENOUGH: f64 = 2.0;

/// A request that comes.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer {
    /// Rows, of its largest part if it is split.
    pub rows: usize,
    /// Parts that it is split into.
    pub parts: usize,
    /// Its length, as costs are known by ([`crate::cost`]).
    pub length: usize,
    /// Urgency; the lowest number goes first.
    pub priority: u64,
    /// Whose it is.
    pub tenant: u64,
    /// When it is worth nothing any more.
    pub deadline: Deadline,
    /// Time of an instance that it takes, at best.
    pub work: Duration,
}

/// What is known when a request comes.
#[derive(Debug, Clone, Copy)]
pub struct Prospect {
    /// Time to its deadline.
    pub left: Duration,
    /// Its own run, as it usually takes.
    pub usual: Duration,
    /// Its own run, as it hardly ever takes, alone.
    pub alone: Duration,
    /// Its own run, as it hardly ever takes, with the company that it will have.
    pub together: Duration,
    /// Until an instance is free.
    pub free_in: Duration,
    /// Time of instances that goes before it.
    pub ahead: Duration,
    /// Instances.
    pub instances: usize,
    /// For how long requests have been lost without a pause.
    pub overloaded: Duration,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Admitted,
    /// Even an idle server would be too late.
    TooLittleTime {
        /// What it takes.
        needed: Duration,
    },
    /// The queue is too long for it.
    Congested {
        /// How long it would wait.
        wait: Duration,
        /// When a request with as much time will find the queue short enough, if no more come.
        retry_after: Duration,
    },
}

impl Prospect {
    /// What `newcomer` can expect at `now` if `pending` waits and the first of `instances` is free in
    /// `free_in`, where requests have been `overloaded` for so long.
    pub fn of<K: Hash + Eq + Clone, T>(
        newcomer: &Newcomer,
        now: Instant,
        pending: &Pending<K, T>,
        costs: &CostModel,
        (instances, free_in, overloaded): (usize, Duration, Duration),
    ) -> Self {
        let Newcomer { rows, parts, length, priority, tenant, deadline, work } = *newcomer;
        let ahead = match pending.jobs() {
            0 => Duration::ZERO,
            _ => pending.ahead(priority, tenant, deadline, work),
        };
        let turns = u32::try_from(parts.div_ceil(instances.max(1))).unwrap_or(1);
        // Whoever waits with others rides with others.
        let riding = costs.best_rows(length, pending.rows() + rows).max(rows);
        Self {
            left: deadline.remaining(now),
            usual: costs.expect(rows, length) * turns,
            alone: costs.at_most(rows, length) * turns,
            together: costs.at_most(riding, length) * turns,
            free_in,
            ahead,
            instances,
            overloaded,
        }
    }

    /// Decides.
    pub fn verdict(&self) -> Verdict {
        if self.usual > self.left {
            return Verdict::TooLittleTime { needed: self.usual };
        }
        let ahead = self.ahead / u32::try_from(self.instances).unwrap_or(u32::MAX).max(1);
        // What goes before it fills whole runs, but for what rides with it in its own.
        let runs = ahead.as_nanos() / self.together.as_nanos().max(1);
        let runs = self.together.saturating_mul(u32::try_from(runs).unwrap_or(u32::MAX));
        // Or it rides in a smaller one, after all of it.
        let ways = [(runs, self.together), (ahead, self.alone)];
        let lacks = ways.map(|(wait, own)| {
            let wait = self.free_in.saturating_add(wait);
            (wait.saturating_sub(self.patience(own)), wait)
        });
        let [one, other] = lacks;
        let (retry_after, wait) = one.min(other);
        if wait.is_zero() || retry_after.is_zero() {
            return Verdict::Admitted;
        }
        Verdict::Congested { wait, retry_after }
    }

    /// How long it may wait for a run that takes `own`.
    fn patience(&self, own: Duration) -> Duration {
        let spare = self.left.saturating_sub(own);
        let most = spare.mul_f64(WAITING);
        if self.overloaded <= self.left * LASTING {
            return most;
        }
        most.min(spare.mul_f64(STANDING).max(self.together.mul_f64(ENOUGH)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    const CALM: Prospect = Prospect {
        left: Duration::from_millis(50),
        usual: Duration::from_millis(8),
        alone: Duration::from_millis(10),
        together: Duration::from_millis(10),
        free_in: Duration::ZERO,
        ahead: Duration::ZERO,
        instances: 1,
        overloaded: Duration::ZERO,
    };

    #[test]
    fn an_idle_server_takes_what_it_can_usually_answer() {
        assert_eq!(CALM.verdict(), Verdict::Admitted);
        assert_eq!(Prospect { left: ms(8), ..CALM }.verdict(), Verdict::Admitted);
        let late = Prospect { left: ms(7), ..CALM };
        assert_eq!(late.verdict(), Verdict::TooLittleTime { needed: ms(8) });
    }

    #[test]
    fn waiting_is_bounded_by_a_share_of_the_time_left() {
        // 40 ms are left beside the run: 38 may be waited.
        assert_eq!(Prospect { ahead: ms(38), ..CALM }.verdict(), Verdict::Admitted);
        assert_eq!(
            Prospect { free_in: ms(10), ahead: ms(28), ..CALM }.verdict(),
            Verdict::Admitted
        );
        let full = Prospect { free_in: ms(11), ahead: ms(30), ..CALM };
        let retry_after = ms(3);
        assert_eq!(full.verdict(), Verdict::Congested { wait: ms(41), retry_after });
        assert_eq!(Prospect { instances: 4, ahead: ms(152), ..CALM }.verdict(), Verdict::Admitted);
    }

    #[test]
    fn an_overload_that_lasts_makes_the_queue_short_but_not_shorter_than_full_runs() {
        let lasting = Prospect { overloaded: ms(501), ..CALM };
        // 40 ms are left beside the run: 28 of them may be waited, and 38 in one that is young.
        let waits = |prospect: Prospect, ahead| Prospect { ahead: ms(ahead), ..prospect }.verdict();
        assert_eq!(waits(lasting, 20), Verdict::Admitted);
        let (wait, retry_after) = (ms(30), ms(2));
        assert_eq!(waits(lasting, 30), Verdict::Congested { wait, retry_after });
        assert_eq!(waits(Prospect { overloaded: ms(500), ..CALM }, 38), Verdict::Admitted);
        // Two runs may go before it in any case, as far as there is time for them.
        let short = Prospect { left: ms(35), overloaded: ms(501), ..CALM };
        assert_eq!(waits(short, 20), Verdict::Admitted);
        let shorter = Prospect { left: ms(20), overloaded: ms(501), ..CALM };
        assert_eq!(waits(shorter, 9), Verdict::Admitted);
        assert!(matches!(waits(shorter, 10), Verdict::Congested { .. }));
    }

    #[test]
    fn without_time_for_a_slow_run_nobody_waits() {
        let tight = Prospect { left: ms(9), free_in: ms(1), ..CALM };
        assert_eq!(tight.verdict(), Verdict::Congested { wait: ms(1), retry_after: ms(1) });
    }

    #[test]
    fn nothing_known_refuses_nothing() {
        let (usual, alone, together) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let left = Duration::from_nanos(1);
        let blind = Prospect { left, usual, alone, together, ..CALM };
        assert_eq!(blind.verdict(), Verdict::Admitted);
    }
}
