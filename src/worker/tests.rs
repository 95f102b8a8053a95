//! Real threads that run scripted executors, and callers that await their tickets: own rows only,
//! one request's fault is its own, nobody is left without an answer. The script holds runs until a
//! test lets them go, so that the test decides who meets in a batch; nothing sleeps.

use std::sync::atomic::Ordering;

use super::*;
use crate::batcher::policy::BatchPolicy;
use crate::batcher::{QueueLimits, Ticket};
use crate::cost::CostModel;
use crate::deadline::Deadline;
use crate::error::PredictError;
use crate::job::{Answer, ByteBudget};
use crate::model::{Dim, ModelName, ModelVersion, TensorSpec};
use crate::request::{InferRequest, NamedTensor, validate};
use crate::statistics::Snapshot;
use crate::telemetry::limit::LogLimit;
use crate::telemetry::metrics::{Format, Metrics, ModelFacts};
use crate::telemetry::traces::Traces;
use crate::tensor::{DataType, Shape};

mod faults;
mod ragged_rows;
mod rows;
mod scripted;

use scripted::{Hold, Script, tensor};

/// How long a test waits for what must happen before it fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test.
const HOUR: Duration = Duration::from_hours(1);

/// A pool on scripted executors, and all that a test asks of it.
struct Bench {
    spec: ModelSpec,
    script: Arc<Script>,
    batcher: Batcher,
    statistics: Arc<ModelStatistics>,
    metrics: Metrics,
    bytes: ByteBudget,
    pool: WorkerPool,
}

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

impl Bench {
    fn start(script: Script, instances: usize, max_rows: usize) -> Self {
        Self::of(spec(), script, instances, max_rows)
    }

    fn of(spec: ModelSpec, script: Script, instances: usize, max_rows: usize) -> Self {
        let script = Arc::new(script);
        let policy = BatchPolicy::eager(max_rows);
        let bytes = ByteBudget::new(1 << 26);
        let limits = QueueLimits { max_jobs: 1000, bytes: bytes.clone(), default_priority: 100 };
        let batcher =
            Batcher::new(policy, limits, instances, CostModel::new(max_rows, Duration::ZERO));
        let metrics = Metrics::new("0", "0", &bytes);
        let key =
            ModelKey { name: ModelName::new("scripted").unwrap(), version: ModelVersion::FIRST };
        let statistics = Arc::new(ModelStatistics::default());
        let pool = WorkerPool::spawn(PoolParts {
            fitness: Arc::default(),
            courier: Courier::default(),
            in_order: false,
            model: "scripted".to_owned(),
            version: 1,
            traces: Traces::default(),
            spec: spec.clone(),
            batcher: batcher.clone(),
            statistics: Arc::clone(&statistics),
            metrics: metrics.model(&key, &batcher, ModelFacts::default()),
            executors: (0..instances).map(|_| script.executor()).collect(),
            make: script.make(),
        })
        .unwrap();
        assert_eq!(pool.instances(), instances);
        Self { spec, script, batcher, statistics, metrics, bytes, pool }
    }

    /// One instance whose runs wait for the test.
    fn held(max_rows: usize) -> (Self, Hold) {
        let (script, hold) = Script::held();
        (Self::start(script, 1, max_rows), hold)
    }

    /// Queues a request of rows of one number each.
    fn submit(&self, rows: &[i64]) -> Ticket {
        self.submit_wide(rows, 1)
    }

    /// Queues a request of `values.len() / width` rows.
    fn submit_wide(&self, values: &[i64], width: usize) -> Ticket {
        submit(&self.batcher, &self.spec, values, width)
    }

    /// Occupies the only instance, so that what is submitted next meets in one batch once the plug
    /// is released.
    async fn plug(&self, hold: &Hold) -> Ticket {
        let plug = self.submit(&[0]);
        assert_eq!(hold.entered().await, 1);
        plug
    }

    fn snapshot(&self) -> Snapshot {
        self.statistics.snapshot()
    }

    /// Value of a counter of the model, by its name without prefix, suffix and common labels.
    fn counter(&self, name: &str, label: &str) -> u64 {
        let text = self.metrics.encode(&self.bytes, Format::OpenMetrics).unwrap();
        let start = format!("onnxd_{name}_total{{model=\"scripted\",version=\"1\"{label}}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start:?} in\n{text}")).parse().unwrap()
    }

    /// Drains, waits for the threads, and checks that nothing is left anywhere.
    async fn finish(self) {
        self.batcher.drain();
        let joined = tokio::time::timeout(PATIENCE, self.pool.join()).await;
        joined.expect("threads end once the queue is drained");
        assert_eq!(self.batcher.depth().jobs, 0);
        assert_eq!(self.bytes.taken(), 0, "memory is given back");
    }
}

fn submit(batcher: &Batcher, spec: &ModelSpec, values: &[i64], width: usize) -> Ticket {
    let rows = values.len() / width;
    let dims = [rows, width].map(|dim| i64::try_from(dim).unwrap()).to_vec();
    let tensor = tensor(values, Shape::new(dims).unwrap());
    let inputs = vec![NamedTensor { name: "x".into(), tensor }];
    let request = InferRequest { inputs, ..InferRequest::default() };
    let now = Instant::now();
    let request = validate(request, spec, 64).unwrap();
    batcher.submit(request, Deadline::after(now, HOUR), now).unwrap()
}

/// The answer of a ticket, or a failure if none comes.
async fn answer(ticket: Ticket) -> Answer {
    let answer = tokio::time::timeout(PATIENCE, ticket.answer()).await;
    answer.expect("every request is answered")
}

/// Lets other threads go on until `holds`; panics if that takes too long.
async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes true in time");
}

/// The numbers of the only output of an answer.
async fn numbers(ticket: Ticket) -> Vec<i64> {
    let response = answer(ticket).await.expect("an answer");
    let [(0, output)] = &response.outputs[..] else { panic!("{response:?}") };
    let bytes = output.dense_bytes().unwrap();
    let number = |chunk: &[u8]| i64::from_le_bytes(chunk.try_into().unwrap());
    bytes.chunks_exact(8).map(number).collect()
}

#[tokio::test]
async fn draining_answers_what_waits_and_ends_the_threads() {
    let (bench, hold) = Bench::held(2);
    let plug = bench.plug(&hold).await;
    let tickets = [[1], [2], [3]].map(|rows| bench.submit(&rows));
    bench.batcher.drain();
    drop(hold);
    assert_eq!(numbers(plug).await, [0]);
    for (ticket, number) in tickets.into_iter().zip(1..) {
        assert_eq!(numbers(ticket).await, [number]);
    }
    assert_eq!(bench.script.runs(), [1, 2, 1]);
    bench.finish().await;
}

#[tokio::test]
async fn riders_that_left_are_not_run() {
    let (bench, hold) = Bench::held(8);
    let plug = bench.plug(&hold).await;
    let [gone, alive] = [[1, 1], [2, 2]].map(|rows| bench.submit(&rows));
    drop(gone);
    hold.release();
    assert_eq!(numbers(plug).await, [0]);
    assert_eq!(hold.entered().await, 2, "only the rows of the one that stayed");
    hold.release();
    assert_eq!(numbers(alive).await, [2, 2]);
    bench.finish().await;
}

#[test]
fn riders_that_left_or_expired_after_the_cut_are_not_run() {
    let script = Arc::new(Script::default());
    let bench = Bench::start(Script::default(), 0, 16);
    let key = ModelKey { name: ModelName::new("cut").unwrap(), version: ModelVersion::FIRST };
    let shared = PoolShared {
        fitness: Arc::default(),
        failure_lines: LogLimit::default(),
        courier: Courier::default(),
        model: "cut".to_owned(),
        version: 1,
        traces: Traces::default(),
        spec: spec(),
        batcher: bench.batcher.clone(),
        statistics: Arc::clone(&bench.statistics),
        metrics: bench.metrics.model(&key, &bench.batcher, ModelFacts::default()),
        make: script.make(),
        rerun_budget: rerun::RerunBudget::default(),
        in_order: None,
        at_work: 1.into(),
    };
    let mut executor = script.executor();
    let [gone, late, alive] = [[1, 1, 1], [2, 2, 2], [3, 3, 3]].map(|rows| bench.submit(&rows));
    let mut batch = bench.batcher.next_batch(0, &executor.stopper()).unwrap();
    drop(gone);
    batch.jobs[1].deadline = Deadline::after(batch.cut_at, Duration::ZERO);
    batch::run(&shared, executor.as_mut(), batch);
    assert_eq!(script.runs(), [3]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let stage = crate::error::Stage::Queue;
        assert_eq!(answer(late).await.unwrap_err(), PredictError::DeadlineExceeded { stage });
        assert_eq!(numbers(alive).await, [3, 3, 3]);
    });

    // Nobody is left: nothing is run, nothing is counted.
    let gone = bench.submit(&[4]);
    let batch = bench.batcher.next_batch(0, &executor.stopper()).unwrap();
    drop(gone);
    batch::run(&shared, executor.as_mut(), batch);
    assert_eq!((script.runs(), bench.snapshot().executions), (vec![3], 1));
}

#[tokio::test]
async fn a_run_that_everybody_left_is_stopped_and_the_next_is_not() {
    let (bench, hold) = Bench::held(8);
    let plug = bench.plug(&hold).await;
    let next = bench.submit(&[1]);
    drop(plug);
    assert_eq!(bench.script.stops(), 1);
    hold.release();
    assert_eq!(hold.entered().await, 1);
    hold.release();
    assert_eq!(numbers(next).await, [1]);
    assert_eq!(bench.counter("stopped_runs", ""), 1);
    assert_eq!((bench.snapshot().executions, bench.script.stops()), (1, 1));
    bench.finish().await;
}

#[tokio::test]
async fn statistics_count_rows_runs_requests_and_sizes() {
    let (bench, hold) = Bench::held(8);
    let plug = bench.plug(&hold).await;
    let tickets = [vec![1, 2], vec![3], vec![4, 5, 6], vec![7, 8, 9]];
    let tickets = tickets.map(|rows| bench.submit(&rows));
    drop(hold);
    numbers(plug).await;
    for ticket in tickets {
        // Whoever has its answer finds itself counted.
        let rows = u64::try_from(numbers(ticket).await.len()).unwrap();
        assert!(bench.snapshot().inferences > rows);
    }
    let sums = bench.snapshot();
    assert_eq!(bench.script.runs(), [1, 6, 3]);
    assert_eq!((sums.inferences, sums.executions), (10, 3));
    assert_eq!(sums.queue.count, 5);
    let per_request = [sums.compute_input, sums.compute_infer, sums.compute_output];
    assert!(per_request.iter().all(|tally| tally.count == 5), "{per_request:?}");
    let sizes: Vec<(usize, u64)> =
        sums.batches.iter().map(|(rows, runs)| (*rows, runs.compute_infer.count)).collect();
    assert_eq!(sizes, [(1, 1), (3, 1), (6, 1)]);
    assert!(sums.last_inference_ms > 0);
    assert_eq!(bench.counter("rows", ""), 10);
    // 1 alone; 6 of 9, because the next did not fit; the rest.
    assert_eq!(bench.counter("batches", ",reason=\"full\""), 1);
    assert_eq!(bench.counter("batches", ",reason=\"worker_free\""), 2);
    bench.finish().await;
}
