//! An executor that does as it is told: identity on its input, unless a row holds a marker or the
//! script says otherwise. Records what it ran, and can be held until a test lets it go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use super::super::{Executor, MakeExecutor, Run};
use super::PATIENCE;
use crate::error::ExecuteError;
use crate::job::Stop;
use crate::tensor::rows::Joined;
use crate::tensor::{DataType, Shape, Tensor};

/// A row that holds it makes its run fail as a wrong input.
pub(super) const WRONG_INPUT: i64 = -1;
/// A row that holds it makes its run fail as the runtime's fault.
pub(super) const RUNTIME_FAULT: i64 = -2;
/// A row that holds it makes the executor panic at once, gate or not.
pub(super) const PANIC: i64 = -3;

/// No test has more runs.
const MOST_RUNS: usize = 256;

/// What all executors of a test share.
#[derive(Default)]
pub(super) struct Script {
    /// Rows of each run, in the order in which they began.
    runs: Mutex<Vec<usize>>,
    /// Width of the input of each run.
    widths: Mutex<Vec<usize>>,
    /// Runs that were asked to stop.
    stops: AtomicUsize,
    /// Executors built so far by [`Script::make`].
    pub(super) built: AtomicUsize,
    /// Runs of more than one row lose their last output row.
    pub(super) loses_rows: AtomicBool,
    /// Runs of more than one row give one value more in each.
    pub(super) adds_width: AtomicBool,
    /// How the next builds end, before they succeed.
    pub(super) builds: Mutex<VecDeque<Build>>,
    /// Runs wait here, if a test holds them.
    gate: Option<Gate>,
}

/// How building an executor goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) enum Build {
    Fails,
    Panics,
}

/// Where runs wait.
struct Gate {
    entered: Sender<usize>,
    go: Mutex<mpsc::Receiver<()>>,
}

/// The test's side of a gate. Dropping it lets everything pass from then on.
pub(super) struct Hold {
    entered: tokio::sync::Mutex<Receiver<usize>>,
    go: mpsc::Sender<()>,
}

impl Hold {
    /// Waits until a run begins; its rows. The test's thread must stay free meanwhile: a worker is
    /// woken by a task.
    pub(super) async fn entered(&self) -> usize {
        let mut entered = self.entered.lock().await;
        let begun = tokio::time::timeout(PATIENCE, entered.recv()).await;
        begun.expect("a run begins in time").expect("the script is there")
    }

    /// Lets one run pass.
    pub(super) fn release(&self) {
        self.go.send(()).unwrap();
    }
}

impl Script {
    pub(super) fn held() -> (Self, Hold) {
        let (enter, entered) = channel(MOST_RUNS);
        let (go, gone) = mpsc::channel();
        let gate = Gate { entered: enter, go: Mutex::new(gone) };
        (Self { gate: Some(gate), ..Self::default() }, Hold { entered: entered.into(), go })
    }

    pub(super) fn runs(&self) -> Vec<usize> {
        lock(&self.runs).clone()
    }

    pub(super) fn widths(&self) -> Vec<usize> {
        lock(&self.widths).clone()
    }

    pub(super) fn stops(&self) -> usize {
        self.stops.load(Ordering::SeqCst)
    }

    pub(super) fn executor(self: &Arc<Self>) -> Box<dyn Executor> {
        let asked = Arc::new(Asked { script: Arc::clone(self), asked: false.into() });
        Box::new(Scripted { script: Arc::clone(self), asked, broken: false })
    }

    pub(super) fn make(self: &Arc<Self>) -> MakeExecutor {
        let script = Arc::clone(self);
        Arc::new(move |_| {
            script.built.fetch_add(1, Ordering::SeqCst);
            let build = lock(&script.builds).pop_front();
            match build {
                None => Ok(script.executor()),
                Some(Build::Fails) => Err("as told".to_owned()),
                Some(Build::Panics) => panic!("as told"),
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Asked {
    script: Arc<Script>,
    asked: AtomicBool,
}

impl Stop for Asked {
    fn stop(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.script.stops.fetch_add(1, Ordering::SeqCst);
    }
}

struct Scripted {
    script: Arc<Script>,
    asked: Arc<Asked>,
    /// It panicked once: it must not be used again.
    broken: bool,
}

impl Executor for Scripted {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        self.asked = Arc::new(Asked { script: Arc::clone(&self.script), asked: false.into() });
        Arc::clone(&self.asked) as Arc<dyn Stop>
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let script = &self.script;
        let input = &inputs[0];
        let rows = input.shape().dim(0).unwrap();
        lock(&script.runs).push(rows);
        lock(&script.widths).push(input.shape().dim(1).unwrap());
        assert!(!self.broken, "an executor that panicked is used again");
        let values = values(input);
        if let Some(gate) = &script.gate {
            // A test that has ended does not care.
            let told = gate.entered.try_send(rows);
            assert!(!matches!(told, Err(TrySendError::Full(_))), "a test with too many runs");
        }
        if values.contains(&PANIC) {
            self.broken = true;
            panic!("as told");
        }
        if let Some(gate) = &script.gate {
            // An error is the gate opened for good.
            lock(&gate.go).recv().ok();
        }
        if self.asked.asked.load(Ordering::SeqCst) {
            return Err(ExecuteError::Stopped);
        }
        if values.contains(&WRONG_INPUT) {
            return Err(ExecuteError::Input("as told".to_owned()));
        }
        if values.contains(&RUNTIME_FAULT) {
            return Err(ExecuteError::Runtime("as told".to_owned()));
        }
        if rows > 1 && script.adds_width.load(Ordering::SeqCst) {
            let shape = input.shape().with_dim(1, input.shape().dim(1).unwrap() + 1).unwrap();
            let outputs = vec![tensor(&vec![0; shape.elements()], shape)];
            return Ok(Run { outputs, joined_at: Instant::now() });
        }
        let lost = usize::from(rows > 1 && script.loses_rows.load(Ordering::SeqCst));
        let shape = input.shape().with_dim(0, rows - lost).unwrap();
        let kept = &values[..shape.elements()];
        let output = tensor(kept, shape);
        Ok(Run { outputs: vec![output], joined_at: Instant::now() })
    }
}

fn values(input: &Joined<'_>) -> Vec<i64> {
    let mut bytes = vec![0; input.byte_len()];
    input.copy_to(&mut bytes);
    let number = |chunk: &[u8]| i64::from_le_bytes(chunk.try_into().unwrap());
    bytes.chunks_exact(8).map(number).collect()
}

/// A tensor of the given numbers.
pub(super) fn tensor(values: &[i64], shape: Shape) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::dense(DataType::Int64, shape, Bytes::from(bytes)).unwrap()
}
