//! The set of waiting requests against a slow model of it: a plain list that is searched anew for
//! every question. Time is an instant plus a number; nothing here waits.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Cut, Entry, JobKey, Pending};
use crate::batcher::policy::{BatchPolicy, CutReason, Decision, Moment};
use crate::cost::CostModel;
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

/// What the model knows of a waiting request; the list is in the order of arrival. Ties between
/// deadlines go to who came first.
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
    /// Knows nothing, and so drops nothing.
    costs: CostModel,
    pending: Pending<u8, u32>,
    waiting: Vec<Waiting>,
    pushed: Vec<(Option<u8>, JobKey)>,
    /// Everything that was handed out, by whichever way.
    handed_out: BTreeSet<u32>,
}

/// What the model expects of one group.
struct Expected {
    key: Option<u8>,
    /// Deadline and number of its first request.
    first: (Deadline, u32),
    /// Why it can be cut now, or when it can be.
    ready: Result<CutReason, Instant>,
}

impl Pair {
    fn new(policy: BatchPolicy) -> Self {
        Self {
            now: Instant::now(),
            policy,
            costs: CostModel::new(8, Duration::ZERO),
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
        let entry = Entry { rows, ..entry(id, self.now, deadline) };
        let job = self.pending.push(key, entry);
        self.pushed.push((key, job));
        self.waiting.push(Waiting { id, key, rows, enqueued_at: self.now, deadline });
    }

    fn remove(&mut self, nth: usize) {
        if self.pushed.is_empty() {
            return;
        }
        let nth = nth % self.pushed.len();
        let id = u32::try_from(nth).unwrap();
        let (_, job) = self.pushed[nth];
        let place = self.waiting.iter().position(|waiting| waiting.id == id);
        let removed = self.pending.remove(job);
        assert_eq!(removed, place.map(|_| id), "whoever waits can leave, nobody else");
        if let Some(place) = place {
            self.waiting.remove(place);
            assert!(self.handed_out.insert(id));
        }
    }

    fn cut(&mut self, draining: bool) -> Option<Cut<u32>> {
        let groups = self.groups(draining);
        let ready = groups.iter().filter(|group| group.ready.is_ok());
        let first = ready.clone().map(|group| group.first).min();
        let Some(cut) = cut(&mut self.pending, self.now, &self.policy, &self.costs, draining)
        else {
            assert_eq!(first, None, "something could have been cut");
            return None;
        };
        let due = first;
        let first = cut.riders.iter().map(|(_, entry)| entry).chain(&cut.expired);
        let first = first.min_by_key(|entry| entry.payload).expect("a cut is never empty").payload;
        let key = self.waiting.iter().find(|waiting| waiting.id == first).unwrap().key;
        let group = groups.iter().find(|group| group.key == key).unwrap();
        assert_eq!(Ok(cut.reason), group.ready);
        assert_eq!(Some(group.first), due, "the tightest of the groups that can be cut");
        self.check_cut(key, &cut);
        Some(cut)
    }

    /// Holds a cut of group `key` against the list and takes it off the list.
    fn check_cut(&mut self, key: Option<u8>, cut: &Cut<u32>) {
        let (mut riders, mut expired, mut rows) = (Vec::new(), Vec::new(), 0);
        let mut members: Vec<&Waiting> = self.waiting.iter().filter(|w| w.key == key).collect();
        members.sort_by_key(|waiting| (waiting.deadline, waiting.id));
        for waiting in members {
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
        assert_eq!(ids, riders, "earliest deadline first, of one group, as many as fit");
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
        let first = members().map(|waiting| (waiting.deadline, waiting.id)).min().unwrap();
        Expected { key, first, ready }
    }

    fn decide(&mut self, draining: bool) -> Decision {
        let (policy, costs) = (&self.policy, &self.costs);
        self.pending.decide(&moment(self.now, policy, costs, draining))
    }

    fn check_decision(&mut self, draining: bool) {
        let groups = self.groups(draining);
        let decision = self.decide(draining);
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
        assert_eq!(self.pending.by_key.len(), keys.len());
        let listed: usize =
            self.pending.groups.iter().map(|(_, group)| group.places().count()).sum();
        assert_eq!(listed, self.waiting.len());
    }
}

/// A request of one row for nobody in particular.
fn entry(payload: u32, enqueued_at: Instant, deadline: Deadline) -> Entry<u32> {
    let work = Duration::from_millis(1);
    Entry { rows: 1, length: 1, enqueued_at, deadline, priority: 1, tenant: 0, work, payload }
}

fn moment<'a>(
    now: Instant,
    policy: &'a BatchPolicy,
    costs: &'a CostModel,
    draining: bool,
) -> Moment<'a> {
    Moment { now, policy, costs, free: 1, draining, overloaded: false, probe: false }
}

fn cut(
    pending: &mut Pending<u8, u32>,
    now: Instant,
    policy: &BatchPolicy,
    costs: &CostModel,
    draining: bool,
) -> Option<Cut<u32>> {
    pending.cut(&moment(now, policy, costs, draining))
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
        deadline_margin: ms(margin),
        ..patient(max_rows, ms(delay))
    })
}

/// A fixed policy that waits for company.
fn patient(max_rows: usize, max_queue_delay: Duration) -> BatchPolicy {
    BatchPolicy { max_queue_delay, ..BatchPolicy::eager(max_rows) }
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

    /// A crowd comes, most of it leaves in any order, some of it is cut: nothing of the departed is
    /// left, and those that stay keep their order.
    #[test]
    fn departed_requests_leave_little_behind(
        leaving in prop::collection::vec((any::<usize>(), prop::bool::weighted(0.01)), 100..700),
        one_group in any::<bool>(),
    ) {
        let policy = patient(40, ms(5));
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
        }
        pair.check_counts();
        while pair.cut(true).is_some() {}
        prop_assert_eq!(pair.handed_out.len(), pair.pushed.len());
    }

    /// `clear` hands out what waits, once, and the queue can be used again.
    #[test]
    fn clear_hands_out_the_rest(steps in prop::collection::vec(step(), 1..60)) {
        let policy = patient(4, ms(5));
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

#[test]
fn a_key_finds_its_request_only_and_never_the_next_in_its_place() {
    let now = Instant::now();
    let deadline = Deadline::after(now, ms(1000));
    let mut pending = Pending::default();
    let first = pending.push(Some(0_u8), entry(0, now, deadline));
    assert_eq!(pending.remove(first), Some(0));
    let next = pending.push(Some(0), entry(7, now, deadline));
    assert_eq!(next.slot, first.slot, "the place is used again");
    assert_eq!(pending.remove(first), None);
    assert_eq!(pending.jobs(), 1);
    assert_eq!(pending.remove(next), Some(7));
}

#[test]
fn a_departed_front_does_not_age_its_group() {
    let now = Instant::now();
    let policy = patient(8, ms(10));
    let mut pair = Pair::new(policy);
    pair.now = now;
    pair.push(Some(0), 1, 1000);
    pair.now = now + ms(6);
    pair.push(Some(0), 1, 1000);
    assert_eq!(pair.decide(false), Decision::WaitUntil(now + ms(10)));
    pair.remove(0);
    assert_eq!(pair.decide(false), Decision::WaitUntil(now + ms(16)));
}

#[test]
fn a_group_that_cannot_be_cut_does_not_hold_up_one_that_can() {
    let policy = patient(4, ms(10));
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
    let policy = patient(4, ms(0));
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
        let entry = Entry { priority: *priority, ..entry(id, enqueued_at, deadline) };
        pending.push(Some(*key), entry)
    });
    let jobs = jobs.collect();
    (pending, jobs)
}

/// Everything, cut after cut, with a policy that takes what is there.
fn cuts(pending: &mut Pending<u8, u32>, max_rows: usize, now: Instant) -> Vec<Vec<u32>> {
    let (policy, costs) = (BatchPolicy::eager(max_rows), CostModel::new(8, Duration::ZERO));
    std::iter::from_fn(|| cut(pending, now, &policy, &costs, false)).map(|cut| ids(&cut)).collect()
}

fn ids(cut: &Cut<u32>) -> Vec<u32> {
    cut.riders.iter().map(|(_, entry)| entry.payload).collect()
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
    assert_eq!(cuts(&mut pending, 8, now), [vec![2], vec![3, 1], vec![0, 4]]);
}

#[test]
fn an_urgent_request_that_leaves_takes_its_urgency_along() {
    let now = Instant::now();
    let (mut pending, jobs) = ranked(&[(0, 100), (1, 100), (1, 1)], now);
    assert_eq!(pending.remove(jobs[2]), Some(2));
    assert_eq!(cuts(&mut pending, 8, now), [vec![0], vec![1]]);
}

/// Queues one-row requests of these callers and time limits; payloads are their positions.
fn crowd(requests: &[(u64, u64)], now: Instant) -> Pending<u8, u32> {
    let mut pending = Pending::default();
    for ((tenant, limit), id) in requests.iter().zip(0..) {
        let deadline = Deadline::after(now, ms(*limit));
        let entry = Entry { tenant: *tenant, ..entry(id, now, deadline) };
        pending.push(Some(0), entry);
    }
    pending
}

#[test]
fn the_earliest_deadline_goes_first_whoever_it_belongs_to() {
    let now = Instant::now();
    let one = [(1, 900), (1, 50), (1, 400), (1, 50)];
    assert_eq!(cuts(&mut crowd(&one, now), 3, now), [vec![1, 3, 2], vec![0]]);
    let each = [(1, 900), (2, 50), (3, 400), (4, 60)];
    assert_eq!(cuts(&mut crowd(&each, now), 3, now), [vec![1, 3, 2], vec![0]]);
}

#[test]
fn a_greedy_caller_gets_what_the_others_leave() {
    let now = Instant::now();
    // Twelve of one caller wait when two of another come, with later deadlines.
    let mut requests = vec![(1, 100); 12];
    requests.extend([(2, 500), (2, 500)]);
    let order = cuts(&mut crowd(&requests, now), 2, now);
    let of_the_other = order.iter().position(|cut| cut.contains(&12)).unwrap();
    assert!(of_the_other <= 1, "one round of the greedy one at most: {order:?}");
    // Both have much: they take turns.
    let mut requests = vec![(1, 100); 8];
    requests.extend(vec![(2, 500); 8]);
    let order: Vec<u32> = cuts(&mut crowd(&requests, now), 2, now).concat();
    for turn in order.chunks(4) {
        assert_eq!(turn.iter().filter(|id| **id < 8).count(), 2, "{order:?}");
    }
}

#[test]
fn nobody_saves_up_by_staying_away() {
    let now = Instant::now();
    let mut pending = crowd(&[(1, 100); 20], now);
    let (policy, costs) = (BatchPolicy::eager(1), CostModel::new(1, Duration::ZERO));
    for _ in 0..10 {
        cut(&mut pending, now, &policy, &costs, false);
    }
    for id in 100..110 {
        let entry = Entry { tenant: 2, ..entry(id, now, Deadline::after(now, ms(50))) };
        pending.push(Some(0), entry);
    }
    let order: Vec<u32> = cuts(&mut pending, 1, now).concat();
    let newcomer = order[..8].iter().filter(|id| **id >= 100).count();
    assert!((4..=5).contains(&newcomer), "a half, not all: {order:?}");
}

#[test]
fn what_goes_before_a_request_is_what_will_be_served_before_it() {
    let now = Instant::now();
    let mut requests = vec![(1, 100); 6];
    requests.extend([(2, 100), (2, 100), (3, 500)]);
    let pending = crowd(&requests, now);
    let due = |limit| Deadline::after(now, ms(limit));
    let ahead = |priority, tenant, limit| pending.ahead(priority, tenant, due(limit), ms(1));
    // Each request takes 1 ms. A new caller waits for one of everybody's.
    assert_eq!(ahead(1, 9, 100), ms(3));
    // The greedy one waits for its own six, and for all of the others'.
    assert_eq!(ahead(1, 1, 100), ms(6 + 2 + 1));
    // With an earlier deadline it waits for one of the others'.
    assert_eq!(ahead(1, 1, 50), ms(2));
    assert_eq!(ahead(0, 1, 100), ms(0), "nothing is more urgent");
    assert_eq!(ahead(2, 9, 100), ms(9), "everything is");
    assert_eq!(pending.work(), ms(9));
}

#[test]
fn a_full_queue_makes_room_for_those_with_a_better_right() {
    let now = Instant::now();
    let mut pending = crowd(&[(1, 100), (1, 300), (1, 200), (2, 100)], now);
    assert_eq!(pending.displace(1, 1), None, "the greedy one itself");
    assert_eq!(pending.displace(1, 2), Some(1), "has one, where another has three");
    assert_eq!(pending.displace(1, 2), None, "has one, where another has two");
    assert_eq!(pending.displace(1, 3), Some(2), "has none, where another has two");
    assert_eq!(pending.displace(1, 3), None, "everybody has one");
    assert!(pending.displace(0, 1).is_some(), "more urgent");
    assert_eq!(pending.displace(2, 4), None, "less urgent");
    assert_eq!(pending.jobs(), 1);
}

/// Costs of 1 ms and 0.1 ms per row, up to 16 rows.
fn pays() -> CostModel {
    let mut costs = CostModel::new(16, Duration::ZERO);
    costs.set(1, 1, Duration::from_micros(1100));
    costs.set(16, 1, Duration::from_micros(2600));
    costs
}

fn measured(max_rows: usize) -> BatchPolicy {
    let answering = Duration::from_micros(200);
    BatchPolicy { measured: true, answering, ..BatchPolicy::eager(max_rows) }
}

#[test]
fn the_tightest_rider_decides_how_many_ride() {
    let now = Instant::now();
    let mut requests = vec![(1, 1000); 15];
    requests.push((1, 2));
    let mut pending = crowd(&requests, now);
    let (policy, costs) = (measured(16), pays());
    let first = cut(&mut pending, now, &policy, &costs, false).unwrap();
    assert_eq!(first.riders[0].1.payload, 15);
    let took = costs.at_most(first.rows, 1);
    assert!(took < ms(2) && first.rows > 4, "{} rows in {took:?}", first.rows);
    let rest = cut(&mut pending, now, &policy, &costs, false).unwrap();
    assert_eq!(rest.rows, 16 - first.rows);
}

#[test]
fn a_turn_is_as_long_as_a_batch_that_pays() {
    let now = Instant::now();
    // Each row costs the same: a run has one, whatever it may have.
    let mut costs = CostModel::new(16, Duration::ZERO);
    costs.set(1, 1, ms(1));
    costs.set(16, 1, ms(16));
    let mut requests = vec![(1, 1000); 12];
    requests.extend(vec![(2, 2000); 4]);
    let mut pending = crowd(&requests, now);
    let mut order = Vec::new();
    while let Some(cut) = cut(&mut pending, now, &measured(16), &costs, false) {
        order.extend(ids(&cut));
    }
    let modest: Vec<bool> = order[..8].iter().map(|id| *id >= 12).collect();
    assert_eq!(modest, [false, true].repeat(4), "{order:?}");
}

#[test]
fn who_cannot_be_in_time_does_not_run_unless_nothing_has_run_for_long() {
    let now = Instant::now();
    let (policy, costs) = (measured(16), pays());
    let mut pending = crowd(&[(1, 1), (1, 1000)], now);
    let done = cut(&mut pending, now, &policy, &costs, false).unwrap();
    assert_eq!(ids(&done), [1]);
    assert_eq!(done.hopeless[0].0.payload, 0);
    assert!(done.hopeless[0].1 > ms(1), "it is told what it lacked");
    let mut pending = crowd(&[(1, 1)], now);
    let probing = Moment { probe: true, ..moment(now, &policy, &costs, false) };
    assert_eq!(ids(&pending.cut(&probing).unwrap()), [0]);
}

#[test]
fn lengths_that_are_near_ride_together() {
    let now = Instant::now();
    let deadline = Deadline::after(now, ms(60_000));
    // A row costs 1 ms for each 10 of its length; two rows together cost a quarter less.
    let mut costs = CostModel::new(8, Duration::ZERO);
    for length in [10, 20, 40, 80, 160] {
        for rows in [1, 2, 4, 8] {
            let per_row = 0.75 + 0.25 / f64::from(u32::try_from(rows).unwrap());
            let millis = f64::from(u32::try_from(rows * length / 10).unwrap());
            costs.set(rows, length, Duration::from_secs_f64(millis * per_row / 1e3));
        }
    }
    let mut pending = Pending::default();
    for (length, id) in [80_usize, 10, 84, 160, 12, 81].into_iter().zip(0..) {
        let work = costs.per_row(length);
        let entry = Entry { length, work, ..entry(id, now, deadline) };
        pending.push(Some(0_u8), entry);
    }
    let policy = measured(8);
    let cuts: Vec<Vec<u32>> = std::iter::from_fn(|| cut(&mut pending, now, &policy, &costs, false))
        .map(|cut| ids(&cut))
        .collect();
    assert_eq!(cuts, [vec![0, 5, 2], vec![1, 4], vec![3]]);
}
