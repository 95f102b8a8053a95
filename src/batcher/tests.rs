//! The handle: what is admitted, refused, handed out, answered and given back, with real threads
//! as workers. Threads are ordered by channels and by what the queue says of itself, never by time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::job::Answer;
use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::request::{InferRequest, InferResponse, NamedTensor, validate};
use crate::tensor::{DataType, Shape, Tensor};

mod accounting;
mod deadlines;
mod dice;
#[cfg(onnxd_loom)]
mod interleavings;
mod leaving;
mod mixed_lengths;
mod simulation;
mod threads;

/// Bytes of one row of a request of width 1.
const ROW_BYTES: usize = 8;
/// Longer than any test.
const HOUR: Duration = Duration::from_hours(1);
/// How long a test waits for what must happen before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// `x INT64 [rows, width]` to `y` of the same shape.
fn spec() -> ModelSpec {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DataType::Int64,
        dims: vec![Dim::Dynamic(Some("rows".into())), Dim::Dynamic(Some("width".into()))],
        batch_axis: Some(0),
        reshape: None,
        ragged: None,
    };
    ModelSpec { inputs: vec![tensor("x")], outputs: vec![tensor("y")] }
}

fn request(rows: usize, width: usize) -> ValidRequest {
    let dims = [rows, width].map(|dim| i64::try_from(dim).unwrap()).to_vec();
    let tensor = Tensor::zeros(DataType::Int64, Shape::new(dims).unwrap()).unwrap();
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    validate(InferRequest { inputs, ..InferRequest::default() }, &spec(), 64).unwrap()
}

/// A policy that takes what is there.
fn eager(max_rows: usize) -> BatchPolicy {
    BatchPolicy::eager(max_rows)
}

/// A policy that waits for company longer than any test.
fn patient(max_rows: usize) -> BatchPolicy {
    BatchPolicy { max_queue_delay: HOUR, ..eager(max_rows) }
}

/// Nothing is known of what runs cost.
fn costs() -> CostModel {
    CostModel::new(64, Duration::ZERO)
}

/// A queue for 8 requests and 1000 bytes, served by two workers.
fn batcher(policy: BatchPolicy) -> Batcher {
    Batcher::new(
        policy,
        QueueLimits { max_jobs: 8, bytes: ByteBudget::new(1000), default_priority: 100 },
        2,
        costs(),
    )
}

fn budget(batcher: &Batcher) -> &ByteBudget {
    &batcher.shared.limits.bytes
}

fn submit(batcher: &Batcher, rows: usize) -> Ticket {
    let now = Instant::now();
    batcher.submit(request(rows, 1), Deadline::after(now, HOUR), now).unwrap()
}

fn refusal(batcher: &Batcher, rows: usize) -> PredictError {
    let now = Instant::now();
    batcher.submit(request(rows, 1), Deadline::after(now, HOUR), now).unwrap_err()
}

/// A `Stop` that counts how often it was asked.
#[derive(Default)]
struct Stops(AtomicUsize);

impl Stops {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Stop for Stops {
    fn stop(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The next batch of instance 0, whose run counts its stops.
fn next(batcher: &Batcher) -> (Batch, Arc<Stops>) {
    let stops = Arc::new(Stops::default());
    let stop = Arc::clone(&stops) as Arc<dyn Stop>;
    (batcher.next_batch(0, &stop).expect("the queue is open"), stops)
}

fn response(job: &Job, batch_rows: usize) -> InferResponse {
    let outputs = job.request.inputs().iter().cloned().enumerate().collect();
    InferResponse { outputs, started_at: Instant::now(), batch_rows }
}

fn answer_all(batch: Batch) {
    let rows = batch.rows;
    for job in batch.jobs {
        let response = response(&job, rows);
        job.reply.send(Ok(response));
    }
}

/// Waits for the answer of a ticket outside of any runtime.
fn wait(ticket: Ticket) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(ticket.answer())
}

fn depth(jobs: usize, rows: usize, running: usize) -> QueueDepth {
    QueueDepth { jobs, rows, running }
}

#[test]
fn riders_come_out_together_and_are_answered() {
    let batcher = batcher(eager(8));
    let tickets = [submit(&batcher, 3), submit(&batcher, 2)];
    assert_eq!(batcher.depth(), depth(2, 5, 0));
    let (batch, stops) = next(&batcher);
    assert_eq!(batcher.depth(), depth(0, 0, 1));
    assert_eq!((batch.rows, batch.reason), (5, CutReason::WorkerFree));
    let rows: Vec<usize> = batch.jobs.iter().map(|job| job.request.rows()).collect();
    assert_eq!(rows, [3, 2]);
    answer_all(batch);
    for (ticket, rows) in tickets.into_iter().zip([3, 2]) {
        let response = wait(ticket).unwrap();
        assert_eq!(response.batch_rows, 5);
        assert_eq!(response.outputs[0].1.shape().dims()[0], rows);
    }
    assert_eq!(stops.count(), 0, "nobody left");
    assert_eq!(budget(&batcher).taken(), 0);
}

#[test]
fn groups_of_different_width_and_empty_requests_run_apart() {
    let batcher = batcher(eager(8));
    let now = Instant::now();
    let tickets = [(1, 1), (1, 2), (1, 0), (2, 1), (1, 0), (3, 2)].map(|(rows, width)| {
        batcher.submit(request(rows, width), Deadline::after(now, HOUR), now).unwrap()
    });
    let mut runs = Vec::new();
    while batcher.depth().jobs > 0 {
        let (batch, _) = next(&batcher);
        let dims = |job: &Job| job.request.inputs()[0].shape().dims().to_vec();
        runs.push(batch.jobs.iter().map(dims).collect::<Vec<_>>());
    }
    runs.sort();
    let expected: [&[[i64; 2]]; 4] = [&[[1, 0]], &[[1, 0]], &[[1, 1], [2, 1]], &[[1, 2], [3, 2]]];
    assert_eq!(runs, expected);
    drop(tickets);
}

#[test]
fn a_full_queue_says_how_full_and_when_to_come_back() {
    let full = |retry_after| PredictError::Full {
        what: "queue",
        used: 8,
        limit: 8,
        unit: "requests",
        retry_after: Some(retry_after),
    };
    let blind = batcher(eager(8));
    let tickets: Vec<Ticket> = (0..8).map(|_| submit(&blind, 3)).collect();
    assert_eq!(refusal(&blind, 1), full(RETRY_FLOOR), "nothing has run yet");
    assert_eq!(budget(&blind).taken(), 8 * 3 * ROW_BYTES, "nothing is kept of a refused one");
    drop(tickets);
    let batcher = batcher(eager(8));
    batcher.shared.lock().costs.set(10, 1, Duration::from_millis(20));
    let tickets: Vec<Ticket> = (0..8).map(|_| submit(&batcher, 3)).collect();
    // 24 rows at 2 ms each, on two instances.
    assert_eq!(refusal(&batcher, 1), full(Duration::from_millis(24)));
    drop(next(&batcher));
    assert_eq!(batcher.depth().jobs, 6);
    let (one, other) = (submit(&batcher, 1), submit(&batcher, 1));
    assert!(matches!(refusal(&batcher, 1), PredictError::Full { used: 8, .. }));
    drop((tickets, one, other));
}

#[test]
fn full_memory_says_how_full_and_whether_to_come_back() {
    let limits =
        QueueLimits { max_jobs: 8, bytes: ByteBudget::new(10 * ROW_BYTES), default_priority: 100 };
    let batcher = Batcher::new(eager(8), limits.clone(), 1, costs());
    let neighbour = Batcher::new(eager(8), limits, 1, costs());
    let full = |used, retry_after| PredictError::Full {
        what: "memory for requests",
        used,
        limit: 80,
        unit: "bytes",
        retry_after,
    };
    let ticket = submit(&batcher, 7);
    assert_eq!(refusal(&batcher, 4), full(56, Some(RETRY_FLOOR)));
    assert_eq!(refusal(&neighbour, 4), full(56, Some(RETRY_FLOOR)), "models share the memory");
    assert_eq!(refusal(&batcher, 11), full(56, None), "it will never fit");
    let last = submit(&neighbour, 3);
    assert_eq!(budget(&batcher).taken(), 80);
    drop(ticket);
    assert_eq!(budget(&batcher).taken(), 24);
    drop(last);
}

#[test]
fn a_deadline_that_is_past_at_arrival_is_not_queued() {
    let batcher = batcher(eager(8));
    let now = Instant::now();
    for late in [Duration::ZERO, Duration::from_nanos(1)] {
        let outcome =
            batcher.submit(request(1, 1), Deadline::after(now, Duration::ZERO), now + late);
        let stage = Stage::Arrival;
        assert_eq!(outcome.unwrap_err(), PredictError::DeadlineExceeded { stage });
    }
    assert_eq!(batcher.depth(), depth(0, 0, 0));
    assert_eq!(budget(&batcher).taken(), 0);
}

#[test]
fn what_expired_in_the_queue_is_answered_and_not_handed_out() {
    let batcher = batcher(eager(2));
    let now = Instant::now();
    let brief = Deadline::after(now, Duration::from_nanos(1));
    let expired = [1, 2].map(|rows| batcher.submit(request(rows, 1), brief, now).unwrap());
    // Past by any clock when the worker looks.
    while Instant::now() == now {}
    let alive = submit(&batcher, 2);
    let (batch, _) = next(&batcher);
    assert_eq!((batch.jobs.len(), batch.rows), (1, 2));
    assert_eq!(budget(&batcher).taken(), 2 * ROW_BYTES, "the expired ones hold nothing");
    for ticket in expired {
        let stage = Stage::Queue;
        assert_eq!(wait(ticket).unwrap_err(), PredictError::DeadlineExceeded { stage });
    }
    answer_all(batch);
    assert!(wait(alive).is_ok());
}

#[test]
fn a_worker_that_finds_only_expired_requests_looks_on() {
    let batcher = batcher(eager(8));
    let now = Instant::now();
    let brief = Deadline::after(now, Duration::from_nanos(1));
    let expired = batcher.submit(request(1, 1), brief, now).unwrap();
    while Instant::now() == now {}
    batcher.drain();
    let stop: Arc<dyn Stop> = Arc::new(Stops::default());
    assert!(batcher.next_batch(0, &stop).is_none(), "no batch without riders");
    let stage = Stage::Queue;
    assert_eq!(wait(expired).unwrap_err(), PredictError::DeadlineExceeded { stage });
    assert_eq!((batcher.depth(), budget(&batcher).taken()), (depth(0, 0, 0), 0));
}

#[test]
fn draining_hands_out_what_waits_and_takes_no_more() {
    let batcher = batcher(patient(2));
    let tickets = [1, 1, 1].map(|rows| submit(&batcher, rows));
    batcher.drain();
    assert_eq!(refusal(&batcher, 1), PredictError::ShuttingDown);
    assert_eq!(budget(&batcher).taken(), 3 * ROW_BYTES, "nothing is kept of a refused one");
    let (full, _) = next(&batcher);
    assert_eq!((full.jobs.len(), full.reason), (2, CutReason::Full));
    answer_all(full);
    let (rest, _) = next(&batcher);
    assert_eq!((rest.jobs.len(), rest.reason), (1, CutReason::Draining));
    answer_all(rest);
    let stop: Arc<dyn Stop> = Arc::new(Stops::default());
    assert!(batcher.next_batch(0, &stop).is_none());
    assert!(batcher.next_batch(1, &stop).is_none());
    for ticket in tickets {
        assert!(wait(ticket).is_ok());
    }
    assert_eq!((batcher.depth(), budget(&batcher).taken()), (depth(0, 0, 0), 0));
    assert!(batcher.wait_for_drain(HOUR), "it is drained already");
}

#[test]
fn an_open_queue_is_not_drained() {
    let batcher = batcher(eager(8));
    assert!(!batcher.wait_for_drain(Duration::ZERO));
}

#[test]
fn failing_what_waits_answers_it_and_frees_it() {
    let batcher = batcher(eager(8));
    let tickets = [1, 2, 3].map(|rows| submit(&batcher, rows));
    batcher.fail_pending(&PredictError::WorkerLost);
    assert_eq!((batcher.depth(), budget(&batcher).taken()), (depth(0, 0, 0), 0));
    for ticket in tickets {
        assert_eq!(wait(ticket).unwrap_err(), PredictError::WorkerLost);
    }
    let ticket = submit(&batcher, 1);
    assert_eq!(next(&batcher).0.jobs.len(), 1, "the queue can be used on");
    drop(ticket);
}

#[test]
fn a_job_dropped_without_an_answer_is_a_lost_worker() {
    let batcher = batcher(eager(8));
    let tickets = [1, 2].map(|rows| submit(&batcher, rows));
    drop(next(&batcher));
    assert_eq!(budget(&batcher).taken(), 0);
    for ticket in tickets {
        assert_eq!(wait(ticket).unwrap_err(), PredictError::WorkerLost);
    }
}

#[test]
fn a_new_policy_holds_from_the_next_cut_on() {
    let batcher = batcher(eager(8));
    let tickets = [1, 1, 1, 1].map(|rows| submit(&batcher, rows));
    batcher.set_policy(eager(3));
    assert_eq!(batcher.policy(), eager(3));
    assert_eq!(next(&batcher).0.jobs.len(), 3);
    batcher.set_policy(eager(1));
    assert_eq!(next(&batcher).0.jobs.len(), 1);
    drop(tickets);
}
