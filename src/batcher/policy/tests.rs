//! When to cut, as a table: each line is one queue at one moment, and what a free worker should do.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::time::Instant;

use super::{BatchPolicy, CutReason, Decision, Moment, QueueView, queue_jobs};
use crate::cost::CostModel;
use crate::deadline::Deadline;

/// One queue, in milliseconds: ages and waits are counted from `now`.
#[derive(Debug, Clone, Copy)]
struct Case {
    what: &'static str,
    delay: u64,
    rows: usize,
    /// How long the oldest request has waited; `None` for an empty group.
    age: Option<u64>,
    /// Time that is left to the earliest deadline.
    left: Option<u64>,
    draining: bool,
    preferred: &'static [usize],
    wanted: Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Idle,
    Wait(u64),
    Cut(CutReason),
}

const MAX_ROWS: usize = 8;
const MARGIN: u64 = 3;

/// A queue of half a batch that waited 4 of 10 ms, far from any deadline: everything else is told
/// as a difference to it.
const CALM: Case = Case {
    what: "half a batch waits for company",
    delay: 10,
    rows: 4,
    age: Some(4),
    left: Some(1000),
    draining: false,
    preferred: &[],
    wanted: Wanted::Wait(6),
};

fn cases() -> Vec<Case> {
    use CutReason::{DeadlineNear, DelayElapsed, Draining, Full, Preferred, WorkerFree};
    use Wanted::{Cut, Idle, Wait};
    let calm = CALM;
    let empty = Case { rows: 0, age: None, left: None, ..calm };
    let eager = Case { delay: 0, ..calm };
    vec![
        calm,
        Case { what: "nothing to run", wanted: Idle, ..empty },
        Case { what: "nothing to drain", draining: true, wanted: Idle, ..empty },
        Case { what: "nothing, no delay", delay: 0, wanted: Idle, ..empty },
        Case { what: "a preferred size", preferred: &[2, 4, 6], wanted: Cut(Preferred), ..calm },
        Case { what: "more than a preferred", preferred: &[3], wanted: Cut(Preferred), ..calm },
        Case { what: "less than a preferred", preferred: &[6], wanted: Wait(6), ..calm },
        Case { what: "one row short of full", rows: 7, wanted: Wait(6), ..calm },
        Case { what: "exactly full", rows: 8, wanted: Cut(Full), ..calm },
        Case { what: "more than full", rows: 9, wanted: Cut(Full), ..calm },
        Case { what: "full comes before late", rows: 8, age: Some(99), wanted: Cut(Full), ..calm },
        Case { what: "full while draining", rows: 8, draining: true, wanted: Cut(Full), ..calm },
        Case { what: "full without delay", rows: 8, wanted: Cut(Full), ..eager },
        Case { what: "no delay: whatever is there", wanted: Cut(WorkerFree), ..eager },
        Case { what: "no delay, just come", age: Some(0), wanted: Cut(WorkerFree), ..eager },
        Case { what: "no delay, draining", draining: true, wanted: Cut(Draining), ..eager },
        Case { what: "draining never waits", draining: true, wanted: Cut(Draining), ..calm },
        Case { what: "just come", age: Some(0), wanted: Wait(10), ..calm },
        Case { what: "a moment before the delay", age: Some(9), wanted: Wait(1), ..calm },
        Case { what: "exactly the delay", age: Some(10), wanted: Cut(DelayElapsed), ..calm },
        Case { what: "beyond the delay", age: Some(11), wanted: Cut(DelayElapsed), ..calm },
        Case { what: "no deadline known", left: None, wanted: Wait(6), ..calm },
        Case { what: "deadline after the delay", left: Some(9), wanted: Wait(6), ..calm },
        Case { what: "deadline before the delay", left: Some(8), wanted: Wait(5), ..calm },
        Case { what: "a moment before the margin", left: Some(4), wanted: Wait(1), ..calm },
        Case { what: "exactly at the margin", left: Some(3), wanted: Cut(DeadlineNear), ..calm },
        Case { what: "inside the margin", left: Some(1), wanted: Cut(DeadlineNear), ..calm },
        Case { what: "expired", left: Some(0), wanted: Cut(DeadlineNear), ..calm },
    ]
}

fn decide(case: &Case) -> Wanted {
    let ms = Duration::from_millis;
    let begun_at = Instant::now();
    let now = begun_at + ms(1_000_000);
    let policy = BatchPolicy {
        max_queue_delay: ms(case.delay),
        deadline_margin: ms(MARGIN),
        preferred: case.preferred.into(),
        ..BatchPolicy::eager(MAX_ROWS)
    };
    let view = QueueView {
        rows: case.rows,
        oldest_enqueued_at: case.age.map(|age| now - ms(age)),
        earliest_deadline: case.left.map(|left| Deadline::after(now, ms(left))),
        draining: case.draining,
    };
    match policy.decide(now, &view) {
        Decision::Idle => Wanted::Idle,
        Decision::Cut(reason) => Wanted::Cut(reason),
        Decision::WaitUntil(instant) => {
            let wait = instant.duration_since(now);
            let whole = u64::try_from(wait.as_millis()).unwrap();
            assert_eq!(ms(whole), wait, "{}", case.what);
            Wanted::Wait(whole)
        }
    }
}

#[test]
fn a_queue_has_room_for_some_full_runs_of_each_instance() {
    assert_eq!(queue_jobs(None, 1, 64), 4096);
    assert_eq!(queue_jobs(None, 8, 256), 8 * 256 * 8);
    assert_eq!(queue_jobs(None, usize::MAX, 2), usize::MAX);
    assert_eq!(queue_jobs(NonZeroUsize::new(7), 8, 256), 7);
}

#[test]
fn every_line_of_the_table() {
    for case in cases() {
        assert_eq!(decide(&case), case.wanted, "{}", case.what);
    }
}

#[test]
fn labels_and_places_of_reasons_are_their_own() {
    for (index, reason) in CutReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index, "metrics find a reason by its place");
        let same = CutReason::ALL.into_iter().filter(|other| other.label() == reason.label());
        assert_eq!(same.count(), 1, "{}", reason.label());
    }
}

/// Rows of the batch that is cut from `waiting` rows, due in `left` milliseconds, where a run takes
/// 1 ms and 0.1 ms per row.
fn target(policy: &BatchPolicy, waiting: usize, free: usize, left: u64) -> usize {
    let mut costs = CostModel::new(policy.max_rows, Duration::ZERO);
    costs.set(1, 1, Duration::from_micros(1100));
    costs.set(100, 1, Duration::from_millis(11));
    let now = Instant::now();
    let moment = Moment {
        now,
        policy,
        costs: &costs,
        free,
        draining: false,
        overloaded: false,
        probe: false,
    };
    moment.target(waiting, 1, Deadline::after(now, Duration::from_millis(left)))
}

#[test]
fn the_size_follows_from_costs_deadlines_and_free_instances() {
    let answering = Duration::from_micros(200);
    let measured = BatchPolicy { measured: true, answering, ..BatchPolicy::eager(64) };
    assert_eq!(target(&measured, 10, 1, 1000), 10, "what is there");
    assert!((50..=64).contains(&target(&measured, 500, 1, 1000)), "what pays");
    assert!((24..=28).contains(&target(&measured, 500, 1, 4)), "in time: 1 + 2.8 + 0.2 ms");
    assert_eq!(target(&measured, 500, 1, 1), 1);
    assert_eq!(target(&measured, 40, 4, 1000), 10, "others are free: 2 ms instead of 5");
    assert_eq!(target(&measured, 4, 4, 1000), 1, "1.1 ms instead of 1.4");
    assert_eq!(target(&measured, 3, 2, 1000), 3, "sharing would gain next to nothing");
}

#[test]
fn a_fixed_size_is_the_largest_preferred_one_or_the_largest() {
    let fixed = BatchPolicy { preferred: [4, 8].into(), ..BatchPolicy::eager(16) };
    assert_eq!([3, 4, 7, 8, 15, 40].map(|rows| target(&fixed, rows, 1, 1)), [16, 4, 4, 8, 8, 8]);
    assert_eq!(target(&BatchPolicy::eager(16), 40, 4, 1), 16);
}
