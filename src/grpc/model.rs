//! What a server and its models say of themselves: metadata, configuration, statistics.
//!
//! Source: Open Inference Protocol, "Metadata"; Triton's model configuration and statistics
//! extensions.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::ModelConfig;
use crate::config::model::{Batching, Provider};
use crate::model::TensorSpec;
use crate::model::declared::ImageLayout;
use crate::pb;
use crate::pb::model_metadata_response::TensorMetadata;
use crate::pb::repository_index_response::ModelIndex;
use crate::repository::version_policy::VersionPolicy;
use crate::repository::{IndexEntry, Repository, ServedModel};
use crate::statistics::{Snapshot, Tally};
use crate::tensor::DataType;

/// Extensions of the protocol that are served, by the names that clients look for.
pub(super) const EXTENSIONS: [&str; 6] = [
    "classification",
    "model_repository",
    "model_configuration",
    "schedule_policy",
    "parameters",
    "statistics",
];

/// Names, datatypes and shapes of a model; -1 where a dimension is dynamic.
pub(super) fn metadata(
    model: &ServedModel,
    versions: &[std::sync::Arc<ServedModel>],
) -> pb::ModelMetadataResponse {
    let tensor = |spec: &TensorSpec| TensorMetadata {
        name: spec.name.to_string(),
        datatype: spec.dtype.wire_name().to_owned(),
        shape: spec.wire_dims(),
    };
    pb::ModelMetadataResponse {
        name: model.key.name.to_string(),
        versions: versions.iter().map(|each| each.key.version.to_string()).collect(),
        platform: "onnxruntime_onnx".to_owned(),
        inputs: model.spec.inputs.iter().map(tensor).collect(),
        outputs: model.spec.outputs.iter().map(tensor).collect(),
    }
}

/// A model's configuration in the schema that NVIDIA's tools read.
///
/// `max_batch_size` supposes rows on axis 0 of every tensor. A model that keeps them elsewhere says
/// 0 there and shows its full shapes, so that no tool adds a dimension.
pub(super) fn config(model: &ServedModel) -> pb::ModelConfig {
    let leading = model.spec.rows_lead();
    let dims = |spec: &TensorSpec| -> Vec<i64> {
        let skip = usize::from(leading);
        spec.wire_dims().split_off(skip)
    };
    let input = |spec: &TensorSpec| pb::ModelInput {
        name: spec.name.to_string(),
        data_type: data_type(spec.dtype).into(),
        dims: dims(spec),
        reshape: reshape(spec),
        format: format(model, &spec.name).into(),
        ..pb::ModelInput::default()
    };
    let output = |spec: &TensorSpec| pb::ModelOutput {
        name: spec.name.to_string(),
        data_type: data_type(spec.dtype).into(),
        dims: dims(spec),
        reshape: reshape(spec),
        label_filename: model.config.label_files.get(&*spec.name).cloned().unwrap_or_default(),
        ..pb::ModelOutput::default()
    };
    let max = if leading { model.config.max_batch_size } else { 0 };
    pb::ModelConfig {
        name: model.key.name.to_string(),
        platform: "onnxruntime_onnx".to_owned(),
        backend: "onnxruntime".to_owned(),
        version_policy: Some(version_policy(&model.config.version_policy)),
        max_batch_size: i32::try_from(max).unwrap_or(i32::MAX),
        input: model.spec.inputs.iter().map(input).collect(),
        output: model.spec.outputs.iter().map(output).collect(),
        instance_group: vec![instance_group(model)],
        default_model_filename: model.config.model_file.clone(),
        scheduling_choice: scheduling(&model.config, model),
        response_cache: (model.config.response_cache_bytes > 0)
            .then_some(pb::ModelResponseCache { enable: true }),
        ..pb::ModelConfig::default()
    }
}

fn reshape(spec: &TensorSpec) -> Option<pb::ModelTensorReshape> {
    let reshape = spec.reshape.as_ref()?;
    Some(pb::ModelTensorReshape { shape: reshape.model_dims().to_vec() })
}

/// What the settings say of an input's axes, for clients that prepare images by it.
fn format(model: &ServedModel, input: &str) -> pb::model_input::Format {
    let mut inputs = model.config.declared.inputs.iter();
    match inputs.find(|each| each.name == input).map(|each| each.layout) {
        Some(ImageLayout::Nhwc) => pb::model_input::Format::Nhwc,
        Some(ImageLayout::Nchw) => pb::model_input::Format::Nchw,
        Some(ImageLayout::None) | None => pb::model_input::Format::None,
    }
}

fn version_policy(policy: &VersionPolicy) -> pb::ModelVersionPolicy {
    use pb::model_version_policy::{All, Latest, PolicyChoice, Specific};
    let choice = match policy {
        VersionPolicy::Latest(count) => PolicyChoice::Latest(Latest {
            num_versions: u32::try_from(count.get()).unwrap_or(u32::MAX),
        }),
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Specific(versions) => PolicyChoice::Specific(Specific {
            versions: versions
                .iter()
                .filter_map(|each| i64::try_from(each.number()).ok())
                .collect(),
        }),
    };
    pb::ModelVersionPolicy { policy_choice: Some(choice) }
}

fn instance_group(model: &ServedModel) -> pb::ModelInstanceGroup {
    use pb::model_instance_group::Kind;
    let gpu = model.provider != Provider::Cpu.name();
    pb::ModelInstanceGroup {
        name: format!("{}_0", model.key.name),
        kind: if gpu { Kind::Gpu } else { Kind::Cpu }.into(),
        count: i32::try_from(model.config.instances).unwrap_or(i32::MAX),
        gpus: if gpu { model.config.device_ids.clone() } else { Vec::new() },
        ..pb::ModelInstanceGroup::default()
    }
}

fn scheduling(
    config: &ModelConfig,
    model: &ServedModel,
) -> Option<pb::model_config::SchedulingChoice> {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if config.batching == Batching::Off || !model.spec.has_rows() {
        return None;
    }
    let rows = model.batcher.rows_per_run();
    let queue = pb::ModelQueuePolicy {
        max_queue_size: u32::try_from(model.batcher.max_queue_jobs()).unwrap_or(u32::MAX),
        allow_timeout_override: true,
        ..pb::ModelQueuePolicy::default()
    };
    Some(pb::model_config::SchedulingChoice::DynamicBatching(pb::ModelDynamicBatching {
        preferred_batch_size: vec![i32::try_from(rows).unwrap_or(i32::MAX)],
        max_queue_delay_microseconds: micros(config.max_queue_delay),
        default_queue_policy: Some(queue),
        ..pb::ModelDynamicBatching::default()
    }))
}

fn data_type(dtype: DataType) -> pb::DataType {
    match dtype {
        DataType::Bool => pb::DataType::TypeBool,
        DataType::UInt8 => pb::DataType::TypeUint8,
        DataType::UInt16 => pb::DataType::TypeUint16,
        DataType::UInt32 => pb::DataType::TypeUint32,
        DataType::UInt64 => pb::DataType::TypeUint64,
        DataType::Int8 => pb::DataType::TypeInt8,
        DataType::Int16 => pb::DataType::TypeInt16,
        DataType::Int32 => pb::DataType::TypeInt32,
        DataType::Int64 => pb::DataType::TypeInt64,
        DataType::Fp16 => pb::DataType::TypeFp16,
        DataType::Bf16 => pb::DataType::TypeBf16,
        DataType::Fp32 => pb::DataType::TypeFp32,
        DataType::Fp64 => pb::DataType::TypeFp64,
        DataType::Bytes => pb::DataType::TypeString,
    }
}

/// Every model version and its state. `with_reasons` is for the operator: reasons name files.
pub(super) fn index(
    repository: &Repository,
    ready_only: bool,
    with_reasons: bool,
) -> Vec<ModelIndex> {
    let entry = |entry: IndexEntry| {
        let (state, reason) = entry.state.describe();
        ModelIndex {
            name: entry.key.name.to_string(),
            version: entry.key.version.to_string(),
            state: state.to_owned(),
            reason: if with_reasons { reason.to_owned() } else { String::new() },
        }
    };
    let all = repository.index().into_iter();
    all.filter(|entry| !ready_only || entry.state.ready().is_some()).map(entry).collect()
}

/// Counts and times of a model version.
pub(super) fn statistics(model: &ServedModel) -> pb::ModelStatistics {
    let sums: Snapshot = model.statistics.snapshot();
    let batch =
        |(rows, tally): (&usize, &crate::statistics::BatchTally)| pb::InferBatchStatistics {
            batch_size: *rows as u64,
            compute_input: Some(duration(tally.compute_input)),
            compute_infer: Some(duration(tally.compute_infer)),
            compute_output: Some(duration(tally.compute_output)),
        };
    pb::ModelStatistics {
        name: model.key.name.to_string(),
        version: model.key.version.to_string(),
        last_inference: sums.last_inference_ms,
        inference_count: sums.inferences,
        execution_count: sums.executions,
        inference_stats: Some(pb::InferStatistics {
            success: Some(duration(sums.success)),
            fail: Some(duration(sums.fail)),
            queue: Some(duration(sums.queue)),
            compute_input: Some(duration(sums.compute_input)),
            compute_infer: Some(duration(sums.compute_infer)),
            compute_output: Some(duration(sums.compute_output)),
            cache_hit: Some(duration(sums.cache_hit)),
            cache_miss: Some(duration(sums.cache_miss)),
        }),
        batch_stats: sums.batches.iter().map(batch).collect(),
        memory_usage: Vec::new(),
        response_stats: HashMap::new(),
    }
}

fn duration(tally: Tally) -> pb::StatisticDuration {
    pb::StatisticDuration { count: tally.count, ns: tally.nanos }
}
