//! One session on one thread.
//!
//! Joins the riders' tensors into buffers that are kept from run to run, lets the session read
//! them in place, and hands its outputs on without a copy. A request that comes alone and aligned
//! is read where it lies.

use std::sync::Arc;

use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use tokio::time::Instant;

use super::binding::Binding;
use super::{elements, strings};
use crate::config::model::Provider;
use crate::error::ExecuteError;
use crate::job::Stop;
use crate::model::ModelSpec;
use crate::tensor::rows::Joined;
use crate::tensor::{DataType, Tensor};
use crate::worker::{Executor, Run};

/// One session and what it needs to run.
pub(super) struct OnnxExecutor {
    session: Session,
    options: Arc<StopRun>,
    /// One per input; 8-byte units, so that every element type is aligned.
    buffers: Vec<Vec<u64>>,
    /// How tensors reach a GPU; `None` on the processor.
    binding: Option<Binding>,
}

/// Ends a run.
struct StopRun {
    options: Option<RunOptions<NoSelectedOutputs>>,
    asked: std::sync::atomic::AtomicBool,
}

impl Stop for StopRun {
    fn stop(&self) {
        // Relaxed: the flag only explains an error that the run itself reports.
        self.asked.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(options) = &self.options
            && let Err(error) = options.terminate()
        {
            tracing::warn!(%error, "run could not be stopped");
        }
    }
}

impl OnnxExecutor {
    pub(super) fn new(
        session: Session,
        spec: &ModelSpec,
        provider: Provider,
        device_id: i32,
        always_bind: bool,
    ) -> Result<Self, ort::Error> {
        let binding = match provider {
            Provider::Cpu if always_bind => Some(Binding::ordinary(&session, spec)?),
            Provider::Cpu => None,
            Provider::Cuda | Provider::TensorRt => {
                Some(Binding::pinned(&session, spec, device_id)?)
            }
        };
        let buffers = vec![Vec::new(); spec.inputs.len()];
        let options = Arc::new(StopRun { options: None, asked: false.into() });
        Ok(Self { session, options, buffers, binding })
    }
}

impl Executor for OnnxExecutor {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        // New for each run: the flag inside stays up once it was raised.
        let options = RunOptions::new().ok();
        self.options = Arc::new(StopRun { options, asked: false.into() });
        Arc::clone(&self.options) as Arc<dyn Stop>
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let Self { session, options, buffers, binding } = self;
        let stop = Arc::clone(options);
        let Some(run_options) = &stop.options else {
            return Err(ExecuteError::Runtime("no run options could be made".to_owned()));
        };
        if let Some(binding) = binding {
            return binding.run(session, run_options, inputs).map_err(|error| stop.explain(error));
        }
        let mut values = Vec::with_capacity(inputs.len());
        for (input, buffer) in inputs.iter().zip(buffers) {
            values.push(place(input, buffer)?);
        }
        let joined_at = Instant::now();
        let outputs = session
            .run_with_options(&values[..], run_options)
            .map_err(|error| stop.explain(classify(&error)))?;
        Ok(Run { outputs: collect(outputs)?, joined_at })
    }
}

impl StopRun {
    /// A run that failed after it was asked to stop was stopped: the runtime has no code for it.
    fn explain(&self, error: ExecuteError) -> ExecuteError {
        if self.asked.load(std::sync::atomic::Ordering::Relaxed) {
            ExecuteError::Stopped
        } else {
            error
        }
    }
}

/// An input as the session reads it: in place if it can be, else joined in `buffer`.
fn place<'a>(
    input: &'a Joined<'_>,
    buffer: &'a mut Vec<u64>,
) -> Result<SessionInputValue<'a>, ExecuteError> {
    if input.dtype() == DataType::Bytes {
        let tensor = strings::write(input.shape(), &input.string_elements());
        return tensor.map(Into::into).map_err(|error| classify(&error));
    }
    if let Some(bytes) = input.single()
        && elements::is_aligned(input.dtype(), bytes)
    {
        return elements::view(input.dtype(), input.shape(), bytes);
    }
    let length = input.byte_len();
    let units = length.div_ceil(size_of::<u64>());
    if buffer.len() < units {
        buffer.resize(units, 0);
    }
    let target = &mut bytemuck::cast_slice_mut(buffer)[..length];
    input.copy_to(target);
    elements::view(input.dtype(), input.shape(), target)
}

/// Tells errors that lie in the values from those that lie in the machine.
pub(super) fn classify(error: &ort::Error) -> ExecuteError {
    let text = error.message();
    tracing::trace!(text, "the runtime's own words");
    match error.code() {
        ort::ErrorCode::InvalidArgument => ExecuteError::Input(without_values(text)),
        _ => by_words(text),
    }
}

fn by_words(text: &str) -> ExecuteError {
    if holds(text, &DEVICE_LOST) {
        ExecuteError::Device(text.to_owned())
    } else if holds(text, &OUT_OF_MEMORY) {
        ExecuteError::Memory(text.to_owned())
    } else {
        ExecuteError::Runtime(without_values(text))
    }
}

/// Which operator failed, without its own words: they repeat values of the request, such as an index
/// that is out of range, and reach the log. (Released builds have no level that shows the whole.)
fn without_values(text: &str) -> String {
    text.split(" Status Message:").next().unwrap_or_default().to_owned()
}

/// Words of errors after which every call to the GPU fails until the process ends. The runtime has no
/// code for them. Source: CUDA runtime API, `cudaGetErrorString`.
const DEVICE_LOST: [&str; 7] = [
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "device-side assert triggered",
    "unspecified launch failure",
    "uncorrectable ECC error encountered",
    "invalid program counter",
];

/// Words of errors that a smaller run may not have.
const OUT_OF_MEMORY: [&str; 4] =
    ["Failed to allocate memory", "out of memory", "bad_alloc", "bad allocation"];

fn holds(text: &str, words: &[&str]) -> bool {
    words.iter().any(|words| text.contains(words))
}

/// One tensor per output, in the signature's order.
pub(super) fn collect(
    outputs: ort::session::SessionOutputs<'_>,
) -> Result<Vec<Tensor>, ExecuteError> {
    outputs.into_iter().map(|(name, value)| elements::take(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_what_can_be_done() {
        let of = by_words;
        let lost = "CUDA failure 700: an illegal memory access was encountered ; GPU=0";
        assert_eq!(of(lost), ExecuteError::Device(lost.to_owned()));
        for full in [
            "Failed to allocate memory for requested buffer of size 1024",
            "CUDA failure 2: out of memory ; GPU=0",
            "std::bad_alloc",
        ] {
            assert_eq!(of(full), ExecuteError::Memory(full.to_owned()));
        }
        let which = "Non-zero status code returned while running Gather node. Name:'g'";
        let whole = format!("{which} Status Message: indices element out of data bounds, idx=100");
        assert_eq!(of(&whole), ExecuteError::Runtime(which.to_owned()));
    }
}
