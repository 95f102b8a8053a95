//! The set of waiting requests against a slow model of it: a plain list that is searched anew for
//! every question. Time is an instant plus a number; nothing here waits.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Cut, Entry, JobKey, Pending, STALE_KEYS};
use crate::batcher::policy::{BatchPolicy, CutReason, Decision};
use crate::deadline::Deadline;

/// One step of a sequence.
#[derive(Debug, Clone, Copy)]
enum Step {
    Push {
        key: Option<u8>,
        rows: usize,
        limit_ms: u64,
    },
    /// Takes out the request that was pushed as the n-th, modulo the pushed ones; it may be gone.
    Remove {
        nth: usize,
    },
    Cut {
        draining: bool,
    },
    Advance {
        ms: u64,
    },
}

/// What the model knows of a waiting request; the list is in the order of arrival.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: u32,
    key: Option<u8>,
    rows: usize,
    enqueued_at: Instant,
    deadline: Deadline,
}

/// Model and real thing side by side.
struct Pair {
    now: Instant,
    policy: BatchPolicy,
    pending: Pending<u8, u32>,
    waiting: Vec<Waiting>,
    pushed: Vec<(Option<u8>, JobKey)>,
    /// Everything that was handed out, by whichever way.
    handed_out: BTreeSet<u32>,
}

/// What the model expects of one group.
struct Expected {
    key: Option<u8>,
    oldest: Instant,
    /// Why it can be cut now, or when it can be.
    ready: Result<CutReason, Instant>,
}

impl Pair {
    fn new(policy: BatchPolicy) -> Self {
        Self {
            now: Instant::now(),
            policy,
            pending: Pending::default(),
            waiting: Vec::new(),
            pushed: Vec::new(),
            handed_out: BTreeSet::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Push { key, rows, limit_ms } => self.push(key, rows, limit_ms),
            Step::Remove { nth } => self.remove(nth),
            Step::Cut { draining } => drop(self.cut(draining)),
            Step::Advance { ms } => self.now += Duration::from_millis(ms),
        }
        self.check_counts();
        self.check_decision(false);
        self.check_decision(true);
    }

    fn push(&mut self, key: Option<u8>, rows: usize, limit_ms: u64) {
        let id = u32::try_from(self.pushed.len()).unwrap();
        let deadline = Deadline::after(self.now, Duration::from_millis(limit_ms));
        let entry = Entry { rows, enqueued_at: self.now, deadline, priority: 1, payload: id };
        let job = self.pending.push(key.as_ref(), entry);
        self.pushed.push((key, job));
        self.waiting.push(Waiting { id, key, rows, enqueued_at: self.now, deadline });
    }

    fn remove(&mut self, nth: usize) {
        if self.pushed.is_empty() {
            return;
        }
        let nth = nth % self.pushed.len();
        let id = u32::try_from(nth).unwrap();
        let (key, job) = self.pushed[nth];
        let place = self.waiting.iter().position(|waiting| waiting.id == id);
        let removed = self.pending.remove(key.as_ref(), job);
        assert_eq!(removed, place.map(|_| id), "whoever waits can leave, nobody else");
        if let Some(place) = place {
            self.waiting.remove(place);
            assert!(self.handed_out.insert(id));
        }
    }

    fn cut(&mut self, draining: bool) -> Option<Cut<u32>> {
        let groups = self.groups(draining);
        let ready = groups.iter().filter(|group| group.ready.is_ok());
        let oldest = ready.clone().map(|group| group.oldest).min();
        let Some(cut) = self.pending.cut(self.now, &self.policy, draining) else {
            assert_eq!(oldest, None, "something could have been cut");
            return None;
        };
        let first = cut.riders.iter().map(|(_, entry)| entry).chain(&cut.expired);
        let first = first.min_by_key(|entry| entry.payload).expect("a cut is never empty").payload;
        let key = self.waiting.iter().find(|waiting| waiting.id == first).unwrap().key;
        let group = groups.iter().find(|group| group.key == key).unwrap();
        assert_eq!(Ok(cut.reason), group.ready);
        assert_eq!(Some(group.oldest), oldest, "the oldest of the groups that can be cut");
        self.check_cut(key, &cut);
        Some(cut)
    }

    /// Holds a cut of group `key` against the list and takes it off the list.
    fn check_cut(&mut self, key: Option<u8>, cut: &Cut<u32>) {
        let (mut riders, mut expired, mut rows) = (Vec::new(), Vec::new(), 0);
        for waiting in self.waiting.iter().filter(|waiting| waiting.key == key) {
            if waiting.deadline.is_past(self.now) {
                expired.push(waiting.id);
                continue;
            }
            let company = !riders.is_empty();
            if company && (key.is_none() || rows + waiting.rows > self.policy.max_rows) {
                break;
            }
            riders.push(waiting.id);
            rows += waiting.rows;
        }
        let ids: Vec<u32> = cut.riders.iter().map(|(_, entry)| entry.payload).collect();
        assert_eq!(ids, riders, "first in, first out, of one group, as many as fit");
        let late: Vec<u32> = cut.expired.iter().map(|entry| entry.payload).collect();
        assert_eq!(late, expired);
        for (job, entry) in &cut.riders {
            assert_eq!(*job, self.pushed[usize::try_from(entry.payload).unwrap()].1);
            assert!(!entry.deadline.is_past(self.now), "an expired request rides");
        }
        assert_eq!(cut.rows, cut.riders.iter().map(|(_, entry)| entry.rows).sum::<usize>());
        assert!(cut.rows <= self.policy.max_rows || cut.riders.len() == 1);
        assert!(key.is_some() || cut.riders.len() <= 1, "alone is alone");
        for id in ids.into_iter().chain(late) {
            assert!(self.handed_out.insert(id), "request {id} is handed out twice");
            self.waiting.retain(|waiting| waiting.id != id);
        }
    }

    /// Every group of the list, with when it can be cut and why.
    fn groups(&self, draining: bool) -> Vec<Expected> {
        let keys: BTreeSet<Option<u8>> = self.waiting.iter().map(|waiting| waiting.key).collect();
        keys.into_iter().map(|key| self.group(key, draining)).collect()
    }

    fn group(&self, key: Option<u8>, draining: bool) -> Expected {
        let members = || self.waiting.iter().filter(move |waiting| waiting.key == key);
        let oldest = members().map(|waiting| waiting.enqueued_at).min().unwrap();
        let earliest = members().map(|waiting| waiting.deadline.instant()).min().unwrap();
        let rows: usize = members().map(|waiting| waiting.rows).sum();
        let patience = oldest + self.policy.max_queue_delay;
        let latest = earliest - self.policy.deadline_margin;
        let ready = if rows >= self.policy.max_rows || key.is_none() {
            Ok(CutReason::Full)
        } else if draining {
            Ok(CutReason::Draining)
        } else if self.policy.max_queue_delay.is_zero() {
            Ok(CutReason::WorkerFree)
        } else if self.now >= patience {
            Ok(CutReason::DelayElapsed)
        } else if self.now >= latest {
            Ok(CutReason::DeadlineNear)
        } else {
            Err(patience.min(latest))
        };
        Expected { key, oldest, ready }
    }

    fn check_decision(&self, draining: bool) {
        let groups = self.groups(draining);
        let decision = self.pending.decide(self.now, &self.policy, draining);
        if groups.is_empty() {
            return assert_eq!(decision, Decision::Idle);
        }
        if groups.iter().any(|group| group.ready.is_ok()) {
            return assert!(matches!(decision, Decision::Cut(_)), "{decision:?}");
        }
        assert!(!draining, "a drained queue does not wait");
        assert!(!self.policy.max_queue_delay.is_zero(), "a queue without delay does not wait");
        let Decision::WaitUntil(instant) = decision else { panic!("{decision:?}") };
        assert!(instant > self.now, "a wait that is over already");
        let soonest = groups.iter().filter_map(|group| group.ready.err()).min();
        assert_eq!(Some(instant), soonest);
        for waiting in &self.waiting {
            assert!(instant <= waiting.enqueued_at + self.policy.max_queue_delay);
            assert!(instant <= waiting.deadline.instant() - self.policy.deadline_margin);
        }
    }

    fn check_counts(&self) {
        assert_eq!(self.pending.jobs(), self.waiting.len());
        let rows: usize = self.waiting.iter().map(|waiting| waiting.rows).sum();
        assert_eq!(self.pending.rows(), rows);
        assert_eq!(self.handed_out.len() + self.waiting.len(), self.pushed.len(), "one is lost");
        let keys: BTreeSet<Option<u8>> = self.waiting.iter().map(|waiting| waiting.key).collect();
        assert_eq!(self.pending.groups.len(), keys.len(), "empty groups are gone");
        check_fifos(&self.pending);
    }
}

/// A group holds few keys of requests that have left, and none of them at its front.
fn check_fifos(pending: &Pending<u8, u32>) {
    for group in &pending.groups {
        let keys = group.keys().count();
        assert!(keys <= 2 * group.jobs + STALE_KEYS + 1, "{keys} keys");
        assert!(group.levels.is_sorted_by_key(|level| level.priority));
        assert!(group.levels.iter().all(|level| !level.fifo.is_empty()));
        let front = group.front().expect("a group has a front");
        assert!(pending.slots.get(front.slot).is_some_and(|found| found.serial == front.serial));
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![3 => (0_u8..3).prop_map(Some), 1 => Just(None)];
    prop_oneof![
        6 => (key, 1_usize..7, 0_u64..60)
            .prop_map(|(key, rows, limit_ms)| Step::Push { key, rows, limit_ms }),
        3 => any::<usize>().prop_map(|nth| Step::Remove { nth }),
        3 => prop::bool::weighted(0.2).prop_map(|draining| Step::Cut { draining }),
        2 => (1_u64..12).prop_map(|ms| Step::Advance { ms }),
    ]
}

fn policy() -> impl Strategy<Value = BatchPolicy> {
    let delay = prop_oneof![Just(0_u64), Just(5), Just(20)];
    let margin = prop_oneof![Just(0_u64), Just(2), Just(10)];
    (1_usize..12, delay, margin).prop_map(|(max_rows, delay, margin)| BatchPolicy {
        max_rows,
        max_queue_delay: ms(delay),
        deadline_margin: ms(margin),
    })
}

proptest! {
    /// Whatever happens in whatever order, list and real thing agree after each step, and the rest
    /// comes out when the queue is drained.
    #[test]
    fn agrees_with_a_plain_list(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::new(policy);
        for step in steps {
            pair.apply(step);
        }
        while pair.cut(true).is_some() {
            pair.check_counts();
        }
        prop_assert_eq!(pair.pending.jobs(), 0);
        prop_assert_eq!(pair.handed_out.len(), pair.pushed.len());
    }

    /// A crowd comes, most of it leaves in any order, some of it is cut: keys of the departed do
    /// not pile up, and those that stay keep their order.
    #[test]
    fn departed_requests_leave_little_behind(
        leaving in prop::collection::vec((any::<usize>(), prop::bool::weighted(0.01)), 100..700),
        one_group in any::<bool>(),
    ) {
        let policy =
            BatchPolicy { max_rows: 40, max_queue_delay: ms(5), deadline_margin: ms(0) };
        let mut pair = Pair::new(policy);
        for place in 0..400_u16 {
            let key = if one_group { 0 } else { place % 3 };
            pair.push(Some(u8::try_from(key).unwrap()), 1, 1000);
        }
        for (nth, cut) in leaving {
            pair.remove(nth);
            if cut {
                pair.cut(false);
            }
            check_fifos(&pair.pending);
        }
        pair.check_counts();
        while pair.cut(true).is_some() {}
        prop_assert_eq!(pair.handed_out.len(), pair.pushed.len());
    }

    /// `clear` hands out what waits, once, and the queue can be used again.
    #[test]
    fn clear_hands_out_the_rest(steps in prop::collection::vec(step(), 1..60)) {
        let policy = BatchPolicy { max_rows: 4, max_queue_delay: ms(5), deadline_margin: ms(0) };
        let mut pair = Pair::new(policy);
        for step in steps {
            pair.apply(step);
        }
        let mut cleared = pair.pending.clear();
        cleared.sort_unstable();
        let waited: Vec<u32> = pair.waiting.drain(..).map(|waiting| waiting.id).collect();
        prop_assert_eq!(&cleared, &waited);
        pair.handed_out.extend(cleared);
        for nth in 0..pair.pushed.len() {
            pair.remove(nth);
        }
        pair.apply(Step::Push { key: Some(1), rows: 2, limit_ms: 50 });
        prop_assert!(pair.cut(true).is_some());
    }
}

/// Queues `count` requests of one row each in one group.
fn crowd(count: u32, now: Instant) -> (Pending<u8, u32>, Vec<JobKey>) {
    let mut pending = Pending::default();
    let deadline = Deadline::after(now, ms(1000));
    let entry = |id| Entry { rows: 1, enqueued_at: now, deadline, priority: 1, payload: id };
    let jobs = (0..count).map(|id| pending.push(Some(&0), entry(id))).collect();
    (pending, jobs)
}

#[test]
fn a_cut_that_leaves_mostly_departed_requests_sweeps_them() {
    let now = Instant::now();
    let (mut pending, jobs) = crowd(300, now);
    for job in &jobs[151..] {
        assert!(pending.remove(Some(&0), *job).is_some());
    }
    let policy = BatchPolicy { max_rows: 150, max_queue_delay: ms(5), deadline_margin: ms(0) };
    assert_eq!(pending.cut(now, &policy, false).unwrap().riders.len(), 150);
    assert_eq!(pending.jobs(), 1);
    check_fifos(&pending);
}

#[test]
fn a_key_finds_its_request_only_and_never_the_next_in_its_place() {
    let now = Instant::now();
    let (mut pending, jobs) = crowd(1, now);
    assert_eq!(pending.remove(Some(&0), jobs[0]), Some(0));
    let deadline = Deadline::after(now, ms(1000));
    let entry = Entry { rows: 1, enqueued_at: now, deadline, priority: 1, payload: 7 };
    let next = pending.push(Some(&0), entry);
    assert_eq!(next.slot, jobs[0].slot, "the place is used again");
    assert_eq!(pending.remove(Some(&0), jobs[0]), None);
    assert_eq!(pending.jobs(), 1);
    assert_eq!(pending.remove(Some(&0), next), Some(7));
}

#[test]
fn a_departed_front_does_not_age_its_group() {
    let now = Instant::now();
    let policy = BatchPolicy { max_rows: 8, max_queue_delay: ms(10), deadline_margin: ms(0) };
    let mut pair = Pair::new(policy);
    pair.now = now;
    pair.push(Some(0), 1, 1000);
    pair.now = now + ms(6);
    pair.push(Some(0), 1, 1000);
    assert_eq!(pair.pending.decide(pair.now, &policy, false), Decision::WaitUntil(now + ms(10)));
    pair.remove(0);
    assert_eq!(pair.pending.decide(pair.now, &policy, false), Decision::WaitUntil(now + ms(16)));
}

#[test]
fn a_group_that_cannot_be_cut_does_not_hold_up_one_that_can() {
    let policy = BatchPolicy { max_rows: 4, max_queue_delay: ms(10), deadline_margin: ms(0) };
    let mut pair = Pair::new(policy);
    pair.push(Some(0), 1, 1000);
    pair.apply(Step::Advance { ms: 1 });
    pair.push(Some(1), 4, 1000);
    let cut = pair.cut(false).expect("the younger group is full");
    assert_eq!(cut.riders[0].1.payload, 1);
    assert!(pair.cut(false).is_none());
}

#[test]
fn a_request_above_the_limit_runs_by_itself() {
    let policy = BatchPolicy { max_rows: 4, max_queue_delay: ms(0), deadline_margin: ms(0) };
    let mut pair = Pair::new(policy);
    for rows in [3, 9, 1] {
        pair.push(Some(0), rows, 1000);
    }
    let cuts: Vec<usize> = std::iter::from_fn(|| pair.cut(false)).map(|cut| cut.rows).collect();
    assert_eq!(cuts, [3, 9, 1]);
}

/// Queues one-row requests of these groups and priorities; payloads are their positions.
fn ranked(requests: &[(u8, u64)], now: Instant) -> (Pending<u8, u32>, Vec<JobKey>) {
    let mut pending = Pending::default();
    let deadline = Deadline::after(now, ms(1000));
    let jobs = requests.iter().zip(0..).map(|((key, priority), id)| {
        let enqueued_at = now + ms(u64::from(id));
        let entry = Entry { rows: 1, enqueued_at, deadline, priority: *priority, payload: id };
        pending.push(Some(key), entry)
    });
    let jobs = jobs.collect();
    (pending, jobs)
}

fn cuts(pending: &mut Pending<u8, u32>, max_rows: usize, now: Instant) -> Vec<Vec<u32>> {
    let policy = BatchPolicy { max_rows, max_queue_delay: ms(0), deadline_margin: ms(0) };
    std::iter::from_fn(|| pending.cut(now, &policy, false))
        .map(|cut| cut.riders.iter().map(|(_, entry)| entry.payload).collect())
        .collect()
}

#[test]
fn the_urgent_go_first_and_the_others_fill_the_batch() {
    let now = Instant::now();
    let requests = [(0, 100), (0, 100), (0, 7), (0, 1), (0, 7), (0, 100)];
    let (mut pending, _) = ranked(&requests, now);
    assert_eq!(cuts(&mut pending, 4, now), [vec![3, 2, 4, 0], vec![1, 5]]);
}

#[test]
fn the_group_with_the_most_urgent_request_goes_first() {
    let now = Instant::now();
    let (mut pending, _) = ranked(&[(0, 100), (1, 100), (2, 5), (1, 5), (0, 100)], now);
    assert_eq!(cuts(&mut pending, 8, now), [vec![3, 1], vec![2], vec![0, 4]]);
}

#[test]
fn an_urgent_request_that_leaves_takes_its_urgency_along() {
    let now = Instant::now();
    let (mut pending, jobs) = ranked(&[(0, 100), (1, 100), (1, 1)], now);
    assert_eq!(pending.remove(Some(&1), jobs[2]), Some(2));
    check_fifos(&pending);
    assert_eq!(cuts(&mut pending, 8, now), [vec![0], vec![1]]);
}
