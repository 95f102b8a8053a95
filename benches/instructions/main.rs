//! The parts of a prediction, each as often as asked: what `benches/instructions.py` runs under
//! valgrind, twice, to tell from the difference what one round takes.
//!
//! Counting a difference needs no marks in the program and no symbols, and what surrounds the rounds
//! (start, set-up, the first use of everything) drops out. A round is one request of one row of
//! [`COLUMNS`] numbers, except for the rounds of a whole run, which are named by their riders.
//!
//! `instructions PART ROUNDS`; without arguments the parts.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

mod path;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onnxd::batcher::policy::BatchPolicy;
use onnxd::batcher::{Batcher, QueueLimits, Ticket};
use onnxd::cost::CostModel;
use onnxd::deadline::Deadline;
use onnxd::grpc::status::status;
use onnxd::grpc::{codec, wire};
use onnxd::job::{ByteBudget, Stop};
use onnxd::model::{Dim, ModelSpec, TensorSpec};
use onnxd::pb::model_infer_request::InferInputTensor;
use onnxd::pb::{ModelInferRequest, ModelInferResponse};
use onnxd::request::{InferResponse, ValidRequest, validate};
use onnxd::tensor::rows::{Joined, split};
use onnxd::tensor::{DataType, Shape, Tensor};
use prost::Message;
use tokio::time::Instant;

/// Allocates as the shipped binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Numbers of a request's row, as in the smallest workload of `make bench`.
const COLUMNS: i64 = 64;
/// Numbers of an answer's row.
const SCORES: i64 = 10;
/// Requests of a whole run.
const RIDERS: usize = 16;
/// Rows that a run takes.
const MOST_ROWS: usize = 64;
/// Longer than any count.
const HOUR: Duration = Duration::from_hours(1);

type Problem = Box<dyn std::error::Error>;
type Part = fn(usize) -> Result<(), Problem>;

const PARTS: [(&str, Part); 10] = [
    ("decode", decode),
    ("validate", validated),
    ("submit", submit),
    ("refuse", refuse),
    ("cut", cut),
    ("concat", concat),
    ("split", split_apart),
    ("encode", encode),
    ("request", path::one_by_one),
    ("requests", path::together),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = match &arguments[..] {
        [part, rounds] => PARTS.iter().find(|(name, _)| name == part).zip(rounds.parse().ok()),
        _ => None,
    };
    let Some(((_, part), rounds)) = wanted else {
        for (name, _) in PARTS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    match part(rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("instructions: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The signature: `x` FP32 `[batch, 64]` to `y` FP32 `[batch, 10]`.
fn spec(batch_axis: Option<usize>) -> ModelSpec {
    let tensor = |name: &str, width| TensorSpec {
        name: name.into(),
        dtype: DataType::Fp32,
        dims: vec![Dim::Dynamic(Some("batch".into())), Dim::Fixed(width)],
        batch_axis,
        reshape: None,
        ragged: None,
    };
    ModelSpec { inputs: vec![tensor("x", COLUMNS)], outputs: vec![tensor("y", SCORES)] }
}

/// A request of one row as it comes.
fn message() -> ModelInferRequest {
    let raw: Vec<u8> = (0..COLUMNS).flat_map(|_| 0.5_f32.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: path::MODEL.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, COLUMNS],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

fn valid(spec: &ModelSpec) -> Result<ValidRequest, Problem> {
    let (request, _) = codec::decode(message())?;
    Ok(validate(request, spec, MOST_ROWS)?)
}

fn zeros(rows: usize, columns: i64) -> Result<Tensor, Problem> {
    let shape = Shape::new(vec![i64::try_from(rows)?, columns])?;
    Ok(Tensor::zeros(DataType::Fp32, shape)?)
}

/// Bytes to tensors.
fn decode(rounds: usize) -> Result<(), Problem> {
    let bytes = Bytes::from(message().encode_to_vec());
    for _ in 0..rounds {
        black_box(codec::decode(wire::decode(black_box(&bytes).clone())?)?);
    }
    Ok(())
}

/// A request held against its signature, and the copy of the request that this uses up.
fn validated(rounds: usize) -> Result<(), Problem> {
    let (spec, (request, _)) = (spec(Some(0)), codec::decode(message())?);
    for _ in 0..rounds {
        black_box(validate(black_box(&request).clone(), &spec, MOST_ROWS)?);
    }
    Ok(())
}

fn batcher(costs: CostModel) -> Batcher {
    let bytes = ByteBudget::new(1 << 26);
    let limits = QueueLimits { max_jobs: 4096, bytes, default_priority: 100 };
    Batcher::new(BatchPolicy::eager(MOST_ROWS), limits, 1, costs)
}

/// Nothing is known of what runs cost.
fn costs() -> CostModel {
    CostModel::new(MOST_ROWS, Duration::ZERO)
}

fn queued(batcher: &Batcher, request: &ValidRequest) -> Result<Ticket, Problem> {
    let now = Instant::now();
    Ok(batcher.submit(black_box(request).clone(), Deadline::after(now, HOUR), now)?)
}

/// Into the queue, and out again with the caller, who leaves.
fn submit(rounds: usize) -> Result<(), Problem> {
    let (batcher, request) = (batcher(costs()), valid(&spec(Some(0)))?);
    for _ in 0..rounds {
        drop(queued(&batcher, &request)?);
    }
    Ok(())
}

/// A request for which there is not enough time, up to the status that tells its caller.
fn refuse(rounds: usize) -> Result<(), Problem> {
    let (request, mut costs) = (valid(&spec(Some(0)))?, costs());
    costs.set(1, 1, HOUR);
    let batcher = batcher(costs);
    // Always the same moment: estimates that no run bears out are not believed for long.
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_millis(50));
    for _ in 0..rounds {
        let answer = batcher.submit(black_box(&request).clone(), deadline, now);
        let refusal = answer.err().ok_or("a request was taken that cannot be in time")?;
        black_box(status(&refusal, ""));
    }
    Ok(())
}

/// Ends no run.
struct Unstoppable;

impl Stop for Unstoppable {
    fn stop(&self) {}
}

/// Requests of a whole run into the queue and out of it as one batch, which is dropped.
fn cut(rounds: usize) -> Result<(), Problem> {
    let (batcher, request) = (batcher(costs()), valid(&spec(Some(0)))?);
    let stop: Arc<dyn Stop> = Arc::new(Unstoppable);
    for _ in 0..rounds {
        let tickets: Result<Vec<_>, _> = (0..RIDERS).map(|_| queued(&batcher, &request)).collect();
        let batch = batcher.next_batch(0, &stop).ok_or("the queue is drained")?;
        if batch.rows != RIDERS {
            return Err(format!("{} rows were cut, {RIDERS} had come", batch.rows).into());
        }
        drop((batch, tickets?));
    }
    Ok(())
}

/// The inputs of a whole run as one.
fn concat(rounds: usize) -> Result<(), Problem> {
    let parts: Result<Vec<Tensor>, _> = (0..RIDERS).map(|_| zeros(1, COLUMNS)).collect();
    let parts = parts?;
    for _ in 0..rounds {
        let joined = Joined::new(black_box(&parts).iter().collect(), Some(0))?;
        let mut target = vec![0; joined.byte_len()];
        joined.copy_to(&mut target);
        black_box(target);
    }
    Ok(())
}

/// The output of a whole run apart again.
fn split_apart(rounds: usize) -> Result<(), Problem> {
    let (output, rows) = (zeros(RIDERS, SCORES)?, [1; RIDERS]);
    for _ in 0..rounds {
        black_box(split(black_box(&output), 0, &rows)?);
    }
    Ok(())
}

/// Tensors to bytes.
fn encode(rounds: usize) -> Result<(), Problem> {
    let (spec, (_, style)) = (spec(Some(0)), codec::decode(message())?);
    let (output, started_at) = (zeros(1, SCORES)?, Instant::now());
    for _ in 0..rounds {
        let outputs = vec![(0, black_box(&output).clone())];
        let response = InferResponse { outputs, started_at, batch_rows: 1 };
        let answer: ModelInferResponse = codec::encode(response, &spec, &style, |_| &[])?;
        black_box(answer.encode_to_vec());
    }
    Ok(())
}
