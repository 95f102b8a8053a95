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
/// for what the estimate does not see: time in sockets, the way back, requests with earlier
/// deadlines that come later. A shorter queue answers as many, only sooner.
const WAITING: f64 = 0.75;

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
    /// Its own run, as it usually takes, and as it hardly ever takes.
    pub own: (Duration, Duration),
    /// Until an instance is free.
    pub free_in: Duration,
    /// Time of instances that goes before it.
    pub ahead: Duration,
    /// Instances.
    pub instances: usize,
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
    /// `free_in`.
    pub fn of<K: Hash + Eq + Clone, T>(
        newcomer: &Newcomer,
        now: Instant,
        pending: &Pending<K, T>,
        costs: &CostModel,
        (instances, free_in): (usize, Duration),
    ) -> Self {
        let Newcomer { rows, parts, length, priority, tenant, deadline, work } = *newcomer;
        let ahead = match pending.jobs() {
            0 => Duration::ZERO,
            _ => pending.ahead(priority, tenant, deadline, work),
        };
        let turns = u32::try_from(parts.div_ceil(instances.max(1))).unwrap_or(1);
        let own = (costs.expect(rows, length) * turns, costs.at_most(rows, length) * turns);
        Self { left: deadline.remaining(now), own, free_in, ahead, instances }
    }

    /// Decides.
    pub fn verdict(&self) -> Verdict {
        let (usual, longest) = self.own;
        if usual > self.left {
            return Verdict::TooLittleTime { needed: usual };
        }
        let instances = u32::try_from(self.instances).unwrap_or(u32::MAX).max(1);
        let wait = self.free_in + self.ahead / instances;
        let bearable = self.left.saturating_sub(longest).mul_f64(WAITING);
        if wait.is_zero() || wait <= bearable {
            return Verdict::Admitted;
        }
        Verdict::Congested { wait, retry_after: wait.saturating_sub(bearable) }
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
        own: (Duration::from_millis(8), Duration::from_millis(10)),
        free_in: Duration::ZERO,
        ahead: Duration::ZERO,
        instances: 1,
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
        // 40 ms are left beside the run: 30 may be waited.
        assert_eq!(Prospect { ahead: ms(30), ..CALM }.verdict(), Verdict::Admitted);
        assert_eq!(
            Prospect { free_in: ms(10), ahead: ms(20), ..CALM }.verdict(),
            Verdict::Admitted
        );
        let full = Prospect { free_in: ms(11), ahead: ms(30), ..CALM };
        let retry_after = ms(11);
        assert_eq!(full.verdict(), Verdict::Congested { wait: ms(41), retry_after });
        assert_eq!(Prospect { instances: 4, ahead: ms(120), ..CALM }.verdict(), Verdict::Admitted);
    }

    #[test]
    fn without_time_for_a_slow_run_nobody_waits() {
        let tight = Prospect { left: ms(9), free_in: ms(1), ..CALM };
        assert_eq!(tight.verdict(), Verdict::Congested { wait: ms(1), retry_after: ms(1) });
    }

    #[test]
    fn nothing_known_refuses_nothing() {
        let own = (Duration::ZERO, Duration::ZERO);
        let blind = Prospect { left: Duration::from_nanos(1), own, ..CALM };
        assert_eq!(blind.verdict(), Verdict::Admitted);
    }
}
