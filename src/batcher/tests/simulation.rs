//! A queue and its workers in virtual time, in the manner of quinn's `Pair`: the real set of
//! waiting requests and the real policy, scripted arrivals, and a service time that is a function
//! of rows. Each step jumps to the next event; nothing sleeps, and a seed repeats exactly.
//!
//! What is checked at every step: with a free worker nothing waits longer than the delay, and no
//! step is idle. What is checked at the end: latency, throughput and sizes of batches.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::dice::Dice;
use crate::batcher::pending::{Entry, Pending};
use crate::batcher::policy::{BatchPolicy, CutReason, Decision, Moment};
use crate::cost::CostModel;
use crate::deadline::Deadline;

/// A request that is going to come.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Duration,
    rows: usize,
    key: u8,
    limit: Duration,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RunLog {
    cut_at: Duration,
    finished_at: Duration,
    requests: Vec<u32>,
    rows: usize,
    reason: CutReason,
}

/// Time of a run by its rows.
type Service = fn(usize) -> Duration;

struct Simulation {
    begun_at: Instant,
    now: Instant,
    policy: BatchPolicy,
    /// Knows nothing: the policy is a fixed one.
    costs: CostModel,
    service: Service,
    arrivals: Vec<Arrival>,
    /// How many of the arrivals have come.
    come: usize,
    pending: Pending<u8, u32>,
    /// When each worker is free again; `None` while it is.
    workers: Vec<Option<Instant>>,
    /// When a worker became free last after all had been busy.
    free_since: Instant,
    log: Vec<RunLog>,
    expired: Vec<u32>,
    steps: usize,
}

impl Simulation {
    fn new(policy: BatchPolicy, workers: usize, service: Service, arrivals: &[Arrival]) -> Self {
        let begun_at = Instant::now();
        Self {
            begun_at,
            now: begun_at,
            policy,
            costs: CostModel::new(64, Duration::ZERO),
            service,
            arrivals: arrivals.to_vec(),
            come: 0,
            pending: Pending::default(),
            workers: vec![None; workers],
            free_since: begun_at,
            log: Vec::new(),
            expired: Vec::new(),
            steps: 0,
        }
    }

    /// Runs until all that came is answered.
    fn run(mut self) -> Self {
        while let Some(instant) = self.next_event() {
            assert!(instant > self.now || self.steps == 0, "a step that takes no time");
            self.now = instant;
            self.steps += 1;
            self.finish_runs();
            self.take_arrivals();
            self.cut();
            self.check_waits();
        }
        assert_eq!(self.pending.jobs(), 0, "nothing happens any more, but something waits");
        // A waiting worker is woken by each arrival and once per batch: more would be spinning.
        assert!(self.steps <= self.arrivals.len() + 2 * self.log.len() + self.expired.len() + 1);
        self
    }

    fn has_free_worker(&self) -> bool {
        self.workers.iter().any(Option::is_none)
    }

    fn decide(&mut self) -> Decision {
        self.pending.decide(&moment(self.now, &self.policy, &self.costs))
    }

    fn next_event(&mut self) -> Option<Instant> {
        let arrival = self.arrivals.get(self.come).map(|arrival| self.begun_at + arrival.at);
        let finish = self.workers.iter().flatten().min().copied();
        let wake = match self.decide() {
            Decision::WaitUntil(instant) if self.has_free_worker() => Some(instant),
            _ => None,
        };
        [arrival, finish, wake].into_iter().flatten().min()
    }

    fn finish_runs(&mut self) {
        if !self.has_free_worker() {
            self.free_since = self.now;
        }
        for worker in &mut self.workers {
            *worker = worker.filter(|finish| *finish > self.now);
        }
    }

    fn take_arrivals(&mut self) {
        while let Some(arrival) = self.arrivals.get(self.come).copied() {
            let enqueued_at = self.begun_at + arrival.at;
            if enqueued_at > self.now {
                break;
            }
            let deadline = Deadline::after(enqueued_at, arrival.limit);
            let payload = u32::try_from(self.come).unwrap();
            let entry = Entry {
                rows: arrival.rows,
                length: 1,
                enqueued_at,
                deadline,
                priority: 1,
                tenant: 0,
                work: Duration::ZERO,
                payload,
            };
            self.pending.push(Some(arrival.key), entry);
            self.come += 1;
        }
    }

    fn cut(&mut self) {
        while let Some(worker) = self.workers.iter().position(Option::is_none) {
            let moment = moment(self.now, &self.policy, &self.costs);
            let Some(cut) = self.pending.cut(&moment) else { break };
            self.expired.extend(cut.expired.iter().map(|entry| entry.payload));
            if cut.riders.is_empty() {
                continue;
            }
            let finish = self.now + (self.service)(cut.rows);
            self.workers[worker] = Some(finish);
            self.log.push(RunLog {
                cut_at: self.now - self.begun_at,
                finished_at: finish - self.begun_at,
                requests: cut.riders.iter().map(|(_, entry)| entry.payload).collect(),
                rows: cut.rows,
                reason: cut.reason,
            });
            for (_, entry) in &cut.riders {
                // After its delay, it waits for nothing but a worker.
                let latest = (entry.enqueued_at + self.policy.max_queue_delay).max(self.free_since);
                let late = self.now - latest.min(self.now);
                assert_eq!(late, Duration::ZERO, "waited with a worker free");
            }
        }
    }

    /// With a worker free, whatever waits is younger than the delay.
    fn check_waits(&mut self) {
        if self.has_free_worker() && self.pending.jobs() > 0 {
            let decision = self.decide();
            let Decision::WaitUntil(instant) = decision else { panic!("{decision:?}") };
            assert!(instant > self.now);
            assert!(instant <= self.now + self.policy.max_queue_delay);
        }
    }

    /// From arrival to answer, per answered request.
    fn latencies(&self) -> Vec<Duration> {
        let of = |run: &RunLog, request: &u32| {
            let came_at = self.arrivals[usize::try_from(*request).unwrap()].at;
            run.finished_at.checked_sub(came_at).unwrap()
        };
        self.log.iter().flat_map(|run| run.requests.iter().map(move |r| of(run, r))).collect()
    }

    fn answered(&self) -> usize {
        self.log.iter().map(|run| run.requests.len()).sum()
    }

    /// Rows per second of virtual time, from the first arrival to the last answer.
    fn throughput(&self) -> f64 {
        let rows: usize = self.log.iter().map(|run| run.rows).sum();
        let end = self.log.iter().map(|run| run.finished_at).max().unwrap_or_default();
        f64::from(u32::try_from(rows).unwrap()) / end.as_secs_f64()
    }

    fn mean_rows(&self) -> f64 {
        let rows: usize = self.log.iter().map(|run| run.rows).sum();
        let count = |number: usize| f64::from(u32::try_from(number).unwrap());
        count(rows) / count(self.log.len())
    }

    /// One line of the printed table: mean and most frequent sizes of batches, latency.
    fn line(&self, what: &str) -> String {
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for run in &self.log {
            *sizes.entry(run.rows).or_default() += 1;
        }
        let mut often: Vec<(usize, usize)> = sizes.into_iter().collect();
        often.sort_by_key(|(rows, runs)| (std::cmp::Reverse(*runs), *rows));
        let mut latencies = self.latencies();
        latencies.sort_unstable();
        let p99 = latencies[latencies.len() * 99 / 100];
        let (mean, throughput) = (self.mean_rows(), self.throughput());
        let mut line = format!("{what:<28}{mean:>7.2}{throughput:>9.0}  {p99:>9.2?}  ");
        for (rows, runs) in often.iter().take(5) {
            write!(line, " {runs}x{rows}").unwrap();
        }
        line
    }
}

/// `count` requests of 1 to `max_rows` rows in `keys` groups, at random moments, on average
/// `per_second` of them.
fn poisson(seed: u64, count: usize, per_second: f64, max_rows: u32, keys: u32) -> Vec<Arrival> {
    let mut dice = Dice(seed);
    let mut at = Duration::ZERO;
    let mut arrival = |_| {
        at += Duration::from_secs_f64(-dice.unit().ln() / per_second);
        let rows = usize::try_from(1 + dice.below(max_rows)).unwrap();
        let key = u8::try_from(dice.below(keys)).unwrap();
        Arrival { at, rows, key, limit: Duration::from_hours(1) }
    };
    (0..count).map(&mut arrival).collect()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn policy(max_rows: usize, delay: Duration) -> BatchPolicy {
    let deadline_margin = ms(2);
    BatchPolicy { max_queue_delay: delay, deadline_margin, ..BatchPolicy::eager(max_rows) }
}

fn moment<'a>(now: Instant, policy: &'a BatchPolicy, costs: &'a CostModel) -> Moment<'a> {
    Moment { now, policy, costs, free: 1, draining: false, overloaded: false, probe: false }
}

/// Most of the time goes into the run as such: 1 ms and 50 µs per row.
fn pays(rows: usize) -> Duration {
    ms(1) + Duration::from_micros(50) * u32::try_from(rows).unwrap()
}

/// Each row costs as much as the first.
fn does_not_pay(rows: usize) -> Duration {
    ms(1) * u32::try_from(rows).unwrap()
}

#[test]
fn waits_stay_within_the_delay_and_sizes_are_printed() {
    println!("{:<28}{:>7}{:>9}  {:>9}   runs x rows", "", "mean", "rows/s", "p99");
    for (workers, per_second) in [(1, 200.0), (1, 2000.0), (1, 8000.0), (4, 2000.0)] {
        for delay in [Duration::ZERO, ms(1), ms(5)] {
            for seed in 0..5 {
                let arrivals = poisson(seed, 2000, per_second, 3, 2);
                let done = Simulation::new(policy(16, delay), workers, pays, &arrivals).run();
                assert_eq!(done.answered(), 2000);
                assert!(done.log.iter().all(|run| run.rows <= 16));
                if seed == 0 {
                    let what = format!("{workers} workers {per_second:.0}/s {delay:?}");
                    println!("{}", done.line(&what));
                }
            }
        }
    }
}

#[test]
fn a_seed_repeats_exactly() {
    let run = |seed| {
        let arrivals = poisson(seed, 1000, 2000.0, 4, 3);
        Simulation::new(policy(8, ms(2)), 2, pays, &arrivals).run().log
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn throughput_grows_with_batching_when_the_curve_pays() {
    let arrivals = poisson(1, 4000, 1e6, 1, 1);
    let throughput = |max_rows, service| {
        Simulation::new(policy(max_rows, Duration::ZERO), 1, service, &arrivals).run().throughput()
    };
    let alone = throughput(1, pays);
    let sizes = [2, 4, 8, 16, 32].map(|max_rows| throughput(max_rows, pays) / alone);
    assert!(sizes.is_sorted(), "{sizes:?}");
    // 32 rows alone take 32 x 1.05 ms, together 2.6 ms.
    assert!((12.0..13.0).contains(&sizes[4]), "{sizes:?}");
    let flat = throughput(32, does_not_pay) / throughput(1, does_not_pay);
    assert!((0.99..1.01).contains(&flat), "{flat}");
}

#[test]
fn without_delay_an_idle_server_adds_nothing() {
    let arrivals: Vec<Arrival> = (0..50)
        .map(|index| Arrival { at: ms(10 * index), rows: 1, key: 0, limit: ms(1000) })
        .collect();
    let done = Simulation::new(policy(16, Duration::ZERO), 1, pays, &arrivals).run();
    assert!(done.latencies().iter().all(|latency| *latency == pays(1)));
    assert!(done.log.iter().all(|run| run.reason == CutReason::WorkerFree));
    let patient = Simulation::new(policy(16, ms(5)), 1, pays, &arrivals).run();
    assert!(patient.latencies().iter().all(|latency| *latency == ms(5) + pays(1)));
    assert!(patient.log.iter().all(|run| run.reason == CutReason::DelayElapsed));
}

#[test]
fn a_full_batch_does_not_wait_for_its_delay() {
    let arrivals: Vec<Arrival> = (0..64)
        .map(|index| Arrival { at: ms(index / 8 * 20), rows: 1, key: 0, limit: ms(1000) })
        .collect();
    let done = Simulation::new(policy(8, ms(10)), 1, pays, &arrivals).run();
    assert_eq!(done.log.len(), 8);
    assert!(done.log.iter().all(|run| run.reason == CutReason::Full));
    assert!(done.latencies().iter().all(|latency| *latency == pays(8)));
}

#[test]
fn with_a_free_worker_and_enough_margin_no_deadline_is_missed() {
    for seed in 0..10 {
        let mut dice = Dice(seed);
        let mut arrivals = poisson(seed, 500, 300.0, 2, 2);
        for arrival in &mut arrivals {
            arrival.limit = ms(3) + ms(1) * dice.below(40);
        }
        let done = Simulation::new(policy(8, ms(20)), 16, pays, &arrivals).run();
        assert_eq!(done.free_since, done.begun_at, "a worker was free all the time");
        assert_eq!(done.expired, Vec::<u32>::new());
        for run in &done.log {
            for request in &run.requests {
                let arrival = arrivals[usize::try_from(*request).unwrap()];
                assert!(run.finished_at <= arrival.at + arrival.limit, "request {request}");
            }
        }
        let near = done.log.iter().filter(|run| run.reason == CutReason::DeadlineNear).count();
        assert!(near > 50, "deadlines were not what cut: {near}");
    }
}

#[test]
fn in_overload_expired_requests_are_never_run() {
    let mut arrivals = poisson(3, 2000, 4000.0, 1, 1);
    for arrival in &mut arrivals {
        arrival.limit = ms(10);
    }
    let done = Simulation::new(policy(2, Duration::ZERO), 1, pays, &arrivals).run();
    assert!(!done.expired.is_empty(), "it is an overload");
    assert_eq!(done.answered() + done.expired.len(), arrivals.len());
    for run in &done.log {
        for request in &run.requests {
            let arrival = arrivals[usize::try_from(*request).unwrap()];
            assert!(run.cut_at < arrival.at + arrival.limit, "request {request} rode expired");
        }
    }
}

#[test]
fn groups_take_turns_by_age() {
    // Two groups, both always too long for one batch: neither may starve.
    let arrivals: Vec<Arrival> = (0..400)
        .map(|index| Arrival {
            at: Duration::from_micros(100 * index),
            rows: 1,
            key: u8::from(index % 4 == 0),
            limit: ms(60_000),
        })
        .collect();
    let done = Simulation::new(policy(4, ms(1)), 1, pays, &arrivals).run();
    let firsts: Vec<u32> = done.log.iter().map(|run| run.requests[0]).collect();
    // The rarer group's batches hold requests of a longer span: 16 arrivals at most.
    assert!(firsts.windows(2).all(|pair| pair[1] + 16 > pair[0]), "{firsts:?}");
    let worst = done.latencies().into_iter().max().unwrap();
    let end = done.log.last().unwrap().finished_at;
    assert!(worst + arrivals[399].at <= end + ms(4), "{worst:?} of {end:?}");
}
