//! Runs on a GPU through an `IoBinding` with pinned host memory.
//!
//! Inputs are joined straight into page-locked memory, which the device reads on its own while
//! another instance computes; outputs come back into page-locked memory the same way. An input
//! buffer is kept while its shape stays the same; outputs are bound anew for each run, because a
//! binding writes into the memory of the run before, which belongs to callers by then.
//!
//! Source: ONNX Runtime, "I/O Binding" and CUDA execution provider documentation.

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynTensor, TensorElementType};
use tokio::time::Instant;

use super::executor::{classify, collect};
use super::{elements, strings};
use crate::error::ExecuteError;
use crate::model::ModelSpec;
use crate::tensor::rows::Joined;
use crate::tensor::{DataType, Shape};
use crate::worker::Run;

/// Bound inputs and outputs of one session.
pub(super) struct Binding {
    bound: IoBinding,
    allocator: Allocator,
    inputs: Vec<Slot>,
    outputs: Vec<String>,
    output_memory: MemoryInfo<'static>,
}

/// One input and the buffer that it was last given.
struct Slot {
    name: String,
    kept: Option<(Shape, DynTensor)>,
}

impl Binding {
    /// Inputs and outputs in memory that the GPU `device_id` reads and writes by itself.
    pub(super) fn pinned(
        session: &Session,
        spec: &ModelSpec,
        device_id: i32,
    ) -> Result<Self, ort::Error> {
        let memory = |kind| {
            MemoryInfo::new(AllocationDevice::CUDA_PINNED, device_id, AllocatorType::Device, kind)
        };
        Self::new(session, spec, memory(MemoryType::CPUInput)?, memory(MemoryType::CPUOutput)?)
    }

    /// Inputs and outputs in ordinary memory.
    pub(super) fn ordinary(session: &Session, spec: &ModelSpec) -> Result<Self, ort::Error> {
        let device = AllocationDevice::CPU;
        let memory = |kind| MemoryInfo::new(device.clone(), 0, AllocatorType::Device, kind);
        Self::new(session, spec, memory(MemoryType::Default)?, memory(MemoryType::Default)?)
    }

    fn new(
        session: &Session,
        spec: &ModelSpec,
        input_memory: MemoryInfo<'_>,
        output_memory: MemoryInfo<'static>,
    ) -> Result<Self, ort::Error> {
        let bound = session.create_binding()?;
        let slot = |name: &str| Slot { name: name.to_owned(), kept: None };
        let inputs = spec.inputs.iter().map(|input| slot(&input.name)).collect();
        let outputs = spec.outputs.iter().map(|output| output.name.to_string()).collect();
        let allocator = Allocator::new(session, input_memory)?;
        Ok(Self { bound, allocator, inputs, outputs, output_memory })
    }

    pub(super) fn run(
        &mut self,
        session: &mut Session,
        options: &RunOptions<NoSelectedOutputs>,
        inputs: &[Joined<'_>],
    ) -> Result<Run, ExecuteError> {
        for (input, slot) in inputs.iter().zip(&mut self.inputs) {
            let name = slot.name.clone();
            let tensor = slot.fill(&self.allocator, input)?;
            self.bound.bind_input(name, tensor).map_err(|error| classify(&error))?;
        }
        for output in &self.outputs {
            self.bound
                .bind_output_to_device(output, &self.output_memory)
                .map_err(|error| classify(&error))?;
        }
        let joined_at = Instant::now();
        let outputs = session
            .run_binding_with_options(&self.bound, options)
            .map_err(|error| classify(&error))?;
        Ok(Run { outputs: collect(outputs)?, joined_at })
    }
}

impl Slot {
    fn fill(
        &mut self,
        allocator: &Allocator,
        input: &Joined<'_>,
    ) -> Result<&DynTensor, ExecuteError> {
        let dtype = input.dtype();
        let fits = |kept: &(Shape, DynTensor)| kept.0 == *input.shape();
        let reusable = self.kept.take().filter(|kept| dtype != DataType::Bytes && fits(kept));
        let mut tensor = match reusable {
            Some((_, tensor)) => tensor,
            None if dtype == DataType::Bytes => {
                strings::write(input.shape(), &input.string_elements())
                    .map_err(|error| classify(&error))?
            }
            None => {
                let shape = ort::value::Shape::new(input.shape().dims().iter().copied());
                DynTensor::new(allocator, element_type(dtype), shape)
                    .map_err(|error| classify(&error))?
            }
        };
        if dtype != DataType::Bytes {
            elements::fill(dtype, &mut tensor, |target| input.copy_to(target))?;
        }
        Ok(&self.kept.insert((input.shape().clone(), tensor)).1)
    }
}

fn element_type(dtype: DataType) -> TensorElementType {
    match dtype {
        DataType::Bool => TensorElementType::Bool,
        DataType::UInt8 => TensorElementType::Uint8,
        DataType::UInt16 => TensorElementType::Uint16,
        DataType::UInt32 => TensorElementType::Uint32,
        DataType::UInt64 => TensorElementType::Uint64,
        DataType::Int8 => TensorElementType::Int8,
        DataType::Int16 => TensorElementType::Int16,
        DataType::Int32 => TensorElementType::Int32,
        DataType::Int64 => TensorElementType::Int64,
        DataType::Fp16 => TensorElementType::Float16,
        DataType::Bf16 => TensorElementType::Bfloat16,
        DataType::Fp32 => TensorElementType::Float32,
        DataType::Fp64 => TensorElementType::Float64,
        DataType::Bytes => TensorElementType::String,
    }
}
