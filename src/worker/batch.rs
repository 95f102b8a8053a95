//! One batch: join, run, cut, answer.
//!
//! Riders of different length are padded and cut back ([`super::ragged`]).
//! Looks once more whether anybody still wants it, then spends the time. If the run fails for a
//! batch of several requests, halves of it run again, within a budget, so that the guilty request
//! alone gets the error. Runs on a worker's thread; blocks on the executor, and on the courier only
//! while it has very many runs to deliver.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ragged::{self, Sizes};
use super::{Executor, PoolShared};
use crate::batcher::Batch;
use crate::batcher::policy::BatchPolicy;
use crate::error::{ExecuteError, InvalidRequest, PredictError, Stage};
use crate::job::{Job, Reply};
use crate::model::ModelSpec;
use crate::request::InferResponse;
use crate::statistics::{Padding, RunTimes};
use crate::telemetry::traces::RunFacts;
use crate::tensor::Tensor;

/// Runs `batch` and answers all its riders.
pub(super) fn run(shared: &PoolShared, executor: &mut dyn Executor, batch: Batch) {
    let started_at = Instant::now();
    let (reason, sequence, worker) = (batch.reason, batch.sequence, batch.instance);
    let cut_at = batch.cut_at;
    let all = batch.jobs.len();
    let mut riders = Vec::with_capacity(all);
    for job in batch.jobs {
        if job.reply.is_abandoned() {
            continue;
        }
        if job.deadline.is_past(started_at) {
            job.reply.send(Err(PredictError::DeadlineExceeded { stage: Stage::Queue }));
            continue;
        }
        riders.extend(cut_out(job, &shared.spec));
    }
    if riders.is_empty() {
        return;
    }
    let first = riders.iter().map(|job| job.enqueued_at).min().unwrap_or(cut_at);
    shared.metrics.cut(reason, cut_at.saturating_duration_since(first));
    let runs = ragged::runs(riders, &shared.spec);
    let is_one = runs.len() == 1;
    for jobs in runs {
        let is_all = jobs.len() == all;
        let riders = Riders { jobs, sequence, worker, is_whole: is_one, started_at };
        if is_all {
            run_riders(shared, executor, riders);
        } else {
            run_wanted(shared, executor, riders);
        }
    }
}

/// Leaves only those rows of the request that the job is for.
fn cut_out(mut job: Job, spec: &ModelSpec) -> Option<Job> {
    let Some(rows) = job.rows.clone() else { return Some(job) };
    match job.request.with_rows(&rows, spec) {
        Ok(part) => {
            job.request = part;
            Some(job)
        }
        Err(error) => {
            let error = ExecuteError::Runtime(error.to_string());
            job.reply.send(Err(PredictError::ExecutionFailed(Arc::new(error))));
            None
        }
    }
}

/// Requests that run together, all of one batch or, after a failure, a part of it.
struct Riders {
    jobs: Vec<Job>,
    /// The batch's.
    sequence: u64,
    /// Who runs it.
    worker: usize,
    /// Whether this is all of the batch, at the first try: what other runs cost says nothing.
    is_whole: bool,
    started_at: Instant,
}

fn run_riders(shared: &PoolShared, executor: &mut dyn Executor, riders: Riders) {
    match execute(shared, executor, &riders.jobs) {
        Ok(done) => {
            shared.rerun_budget.earn();
            answer(shared, riders, done);
        }
        Err(ExecuteError::Stopped) => {
            // Its last rider has left; dropping the jobs gives their memory back.
            shared.metrics.stopped.inc();
        }
        Err(ExecuteError::Rows { output, reason }) => {
            stop_batching(shared, &output, &reason);
            let Riders { sequence, worker, .. } = riders;
            for rider in riders.jobs.into_iter().filter(|job| !job.reply.is_abandoned()) {
                let (alone, started_at) = (rider.rows.is_none(), Instant::now());
                let jobs = vec![rider];
                let rider = Riders { jobs, sequence, worker, is_whole: false, started_at };
                if alone {
                    run_wanted(shared, executor, rider);
                } else {
                    // Sent once more, the request runs whole.
                    let (output, reason) = (output.clone(), reason.clone());
                    fail(shared, rider, ExecuteError::Rows { output, reason });
                }
            }
        }
        Err(error @ ExecuteError::Device(_)) => {
            // No second try can end better; whoever looks after models takes it out of service.
            let requests = riders.jobs.len();
            if let Some(left_out) = shared.failure_lines.allow(Instant::now()) {
                tracing::error!(model = %shared.model, version = shared.version, requests, %error, left_out, "device lost");
            }
            shared.fitness.lost_device();
            fail(shared, riders, error);
        }
        Err(error) => {
            let requests = riders.jobs.len();
            if let Some(left_out) = shared.failure_lines.allow(Instant::now()) {
                tracing::warn!(model = %shared.model, version = shared.version, requests, %error, left_out, "run failed");
            }
            if requests > 1 && shared.rerun_budget.pay_split() {
                rerun_halves(shared, executor, riders);
            } else {
                fail(shared, riders, error);
            }
        }
    }
}

/// An output of a joined run did not have the rows that went in: the rows cannot be told apart, so
/// from now on requests run alone.
fn stop_batching(shared: &PoolShared, output: &str, reason: &str) {
    tracing::error!(
        model = %shared.model, version = shared.version,
        output,
        reason,
        "output does not split by rows; batching is off for this model from now on"
    );
    let policy = shared.batcher.policy();
    let (max_rows, preferred, splits) = (1, Arc::default(), false);
    shared.batcher.set_policy(BatchPolicy { max_rows, splits, preferred, ..policy });
}

fn rerun_halves(shared: &PoolShared, executor: &mut dyn Executor, riders: Riders) {
    let Riders { jobs: mut first, sequence, worker, .. } = riders;
    let second = first.split_off(first.len() / 2);
    for jobs in [first, second] {
        let started_at = Instant::now();
        let half = Riders { jobs, sequence, worker, is_whole: false, started_at };
        run_wanted(shared, executor, half);
    }
}

/// Runs those of the riders that have waited through the runs before theirs. When the last of them
/// leaves, that run is stopped, whatever became of the others in the batch.
fn run_wanted(shared: &PoolShared, executor: &mut dyn Executor, mut riders: Riders) {
    riders.jobs.retain(|job| !job.reply.is_abandoned());
    let places = riders.jobs.iter().filter_map(|job| job.place).collect();
    if !riders.jobs.is_empty() && shared.batcher.rides(riders.worker, places, executor.stopper()) {
        run_riders(shared, executor, riders);
    }
}

/// Outputs of a run, one list of parts per output, and what the run took.
struct Done {
    parts: Vec<Vec<Tensor>>,
    rows: usize,
    padding: Padding,
    times: RunTimes,
}

fn execute(
    shared: &PoolShared,
    executor: &mut dyn Executor,
    riders: &[Job],
) -> Result<Done, ExecuteError> {
    let begun_at = Instant::now();
    let mut padding = Padding::default();
    let mut inputs = Vec::with_capacity(shared.spec.inputs.len());
    for (index, spec) in shared.spec.inputs.iter().enumerate() {
        let parts = riders.iter().map(|job| &job.request.inputs()[index]).collect();
        let joined = ragged::join(parts, spec)
            .map_err(|error| ExecuteError::Runtime(format!("input `{}`: {error}", spec.name)))?;
        if spec.pad().is_some() {
            padding.elements += joined.shape().elements();
            padding.padded += joined.padding();
        }
        inputs.push(joined);
    }
    let run = executor.run(&inputs)?;
    let ran_at = Instant::now();
    let (made, declared) = (run.outputs.len(), shared.spec.outputs.len());
    if made != declared {
        return Err(ExecuteError::Runtime(format!("{made} outputs of {declared}")));
    }
    let riding = riders.iter().map(|job| (job.request.rows(), job.request.length()));
    let sizes = Sizes::of(riding, &shared.spec);
    let mut parts = Vec::with_capacity(run.outputs.len());
    for (output, spec) in run.outputs.into_iter().zip(&shared.spec.outputs) {
        parts.push(match spec.batch_axis {
            // One request owns the whole output, whatever its rows.
            _ if riders.len() == 1 && riders[0].rows.is_none() => vec![output],
            Some(axis) => sizes.apart(&output, axis, spec).map_err(|error| ExecuteError::Rows {
                output: spec.name.to_string(),
                reason: error.to_string(),
            })?,
            None => {
                let reason = "it has no axis for rows".to_owned();
                return Err(ExecuteError::Rows { output: spec.name.to_string(), reason });
            }
        });
    }
    for (parts, spec) in parts.iter_mut().zip(&shared.spec.outputs) {
        let Some(reshape) = &spec.reshape else { continue };
        for part in parts {
            let made = part.clone();
            *part = reshape.to_wire(made).ok_or_else(|| {
                let (name, shape, wanted) = (&spec.name, part.shape(), spec.wire_dims());
                ExecuteError::Runtime(format!("output `{name}` has shape {shape}, not {wanted:?}"))
            })?;
        }
    }
    let times = RunTimes {
        input: run.joined_at - begun_at,
        infer: ran_at - run.joined_at,
        output: ran_at.elapsed(),
    };
    Ok(Done { parts, rows: sizes.total_rows(), padding, times })
}

fn answer(shared: &PoolShared, riders: Riders, done: Done) {
    let Riders { jobs: riders, sequence, worker, is_whole, started_at } = riders;
    let Done { parts, rows, padding, times } = done;
    let mut columns: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    // A request that was split counts with its first part.
    let counted = riders.iter().filter(|job| job.rows.as_ref().is_none_or(|rows| rows.start == 0));
    let queued: Vec<Duration> = counted.map(|job| started_at - job.enqueued_at).collect();
    // Counted before it is answered, so that a caller who asks for statistics finds its run there.
    shared.statistics.record_run(rows, &queued, &times);
    shared.metrics.ran(rows, &queued, &times);
    shared.metrics.padded(&padding);
    let took = times.input + times.infer + times.output;
    recorded(shared, &riders, (rows, started_at, took), false);
    if is_whole {
        let length = riders.iter().map(|job| job.request.length()).max().unwrap_or(1);
        shared.batcher.ran(worker, rows, length);
    }
    let mut answers = Vec::with_capacity(riders.len());
    for job in riders {
        let outputs: Vec<Tensor> = columns.iter_mut().filter_map(Iterator::next).collect();
        let wanted = match job.request.outputs() {
            None => outputs.into_iter().enumerate().collect(),
            Some(wanted) => wanted.iter().map(|index| (*index, outputs[*index].clone())).collect(),
        };
        let response = InferResponse { outputs: wanted, started_at, batch_rows: rows };
        let bytes = response.outputs.iter().map(|(_, output)| output.byte_size()).sum();
        job.answer_permit.grow(bytes);
        match job.reply {
            Reply::Part(part) => answers.extend(part.put(response, &shared.spec)),
            reply @ Reply::Whole(_) => answers.push((reply, Ok(response))),
        }
    }
    shared.deliver(sequence, answers, took);
}

/// Tells of a run to those riders' traces that are recorded.
fn recorded(
    shared: &PoolShared,
    riders: &[Job],
    (rows, began, took): (usize, Instant, Duration),
    failed: bool,
) {
    if riders.iter().all(|job| job.request.trace().is_none()) {
        return;
    }
    let (model, version) = (shared.model.as_str(), shared.version);
    let requests = riders.len();
    let facts = RunFacts { model, version, rows, requests, took, failed };
    shared.traces.run(&facts, riders.iter().map(|job| job.request.trace()));
    if failed {
        return;
    }
    for job in riders {
        if let Some(trace) = job.request.trace() {
            shared.metrics.rode(began.saturating_duration_since(job.enqueued_at), took, trace);
        }
    }
}

/// The only rider of a run that failed: whoever keeps sending such requests rides alone.
fn accuse(shared: &PoolShared, guilty: &Job) {
    let (tenant, now) = (guilty.request.tenant(), Instant::now());
    if shared.batcher.accuse(tenant, now)
        && let Some(left_out) = shared.failure_lines.allow(now)
    {
        tracing::warn!(
            model = %shared.model, version = shared.version, tenant, left_out,
            "a caller's requests keep failing: they run alone for a while"
        );
    }
}

fn fail(shared: &PoolShared, riders: Riders, error: ExecuteError) {
    let is_own_fault = !matches!(error, ExecuteError::Device(_));
    let answer = match &error {
        // Of several riders nobody knows whose values they were.
        ExecuteError::Input(_) if riders.jobs.len() == 1 => PredictError::Invalid(
            InvalidRequest::new("inputs", "the model refused the values of this request"),
        ),
        _ => PredictError::ExecutionFailed(Arc::new(error)),
    };
    if let [guilty] = riders.jobs.as_slice()
        && is_own_fault
    {
        accuse(shared, guilty);
    }
    shared.metrics.failed_runs.inc();
    let rows = riders.jobs.iter().map(|job| job.request.rows()).sum();
    let (began, took) = (riders.started_at, riders.started_at.elapsed());
    recorded(shared, &riders.jobs, (rows, began, took), true);
    let answers = riders.jobs.into_iter().map(|job| (job.reply, Err(answer.clone())));
    shared.deliver(riders.sequence, answers.collect(), took);
}
