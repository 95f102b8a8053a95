//! Instance groups and execution accelerators of a `config.pbtxt`.
//!
//! The server's instances of a model are equal: so many on each device, all on one kind of device.
//! Groups that say so are added up. Where they differ, the larger number holds for every device,
//! and GPUs go before the processor; what is lost is speed or memory, never a result, so that it is
//! a warning.

use std::collections::BTreeMap;

use super::Reader;
use super::message::Node;
use crate::config::model::Provider;
use crate::model::quoted;

/// Options of Triton's TensorRT accelerator and their names in ONNX Runtime.
const TENSORRT_OPTIONS: [(&str, &str); 6] = [
    ("max_workspace_size_bytes", "trt_max_workspace_size"),
    ("max_partition_iterations", "trt_max_partition_iterations"),
    ("minimum_segment_size", "trt_min_subgraph_size"),
    ("min_subgraph_size", "trt_min_subgraph_size"),
    ("int8_calibration_table_name", "trt_int8_calibration_table_name"),
    ("int8_use_native_calibration_table", "trt_int8_use_native_calibration_table"),
];

const GPU_ACCELERATOR: &str = "optimization.execution_accelerators.gpu_execution_accelerator";
const CPU_ACCELERATOR: &str = "optimization.execution_accelerators.cpu_execution_accelerator";

/// What all groups together say.
#[derive(Default)]
struct Groups {
    /// Instances on the processor.
    cpu: usize,
    /// Instances by GPU.
    gpus: BTreeMap<i32, usize>,
    /// Instances on each GPU that the server uses, from groups that name none.
    every_gpu: usize,
    /// Instances where the server's settings say.
    anywhere: usize,
    /// A group asks for GPUs without a fallback.
    must_be_gpu: bool,
}

impl Reader {
    pub(super) fn read_placement(&mut self, file: Node<'_>) {
        let accelerators = self.read_accelerators(file);
        let mut groups = Groups::default();
        for (index, group) in file.children("instance_group").into_iter().enumerate() {
            self.add_group(index, group, &mut groups);
        }
        let named = !accelerators.is_empty();
        let on_gpu = if named { accelerators } else { vec![Provider::Cuda] };
        if !groups.gpus.is_empty() || groups.every_gpu > 0 {
            self.place_on_gpus(groups, on_gpu);
        } else if groups.cpu > 0 {
            self.config.providers = vec![Provider::Cpu];
            self.config.instances = groups.cpu.saturating_add(groups.anywhere);
            if named {
                self.ignore(GPU_ACCELERATOR, "the instances run on the processor");
            }
        } else {
            if groups.anywhere > 0 {
                self.config.instances = groups.anywhere;
            }
            if named {
                self.config.providers = on_gpu;
                self.config.providers.push(Provider::Cpu);
            }
        }
    }

    fn place_on_gpus(&mut self, groups: Groups, on_gpu: Vec<Provider>) {
        if groups.cpu > 0 || groups.anywhere > 0 {
            self.ignore("instance_group", "on the processor, beside one on GPUs");
        }
        self.config.providers = on_gpu;
        if !groups.must_be_gpu {
            self.config.providers.push(Provider::Cpu);
        }
        let most = groups.gpus.values().copied().max().unwrap_or(0);
        if groups.gpus.values().any(|count| *count != most) {
            let reason = format!("counts that differ between GPUs; each gets {most}");
            self.ignore("instance_group", &reason);
        }
        self.config.instances = most.saturating_add(groups.every_gpu);
        if !groups.gpus.is_empty() {
            self.config.device_ids = groups.gpus.into_keys().collect();
        }
    }

    fn add_group(&mut self, index: usize, group: Node<'_>, groups: &mut Groups) {
        let path = format!("instance_group[{index}]");
        let count = match usize::try_from(group.number("count")) {
            Ok(0) => 1,
            Ok(count) => count,
            Err(_) => {
                self.errors.push(&format!("{path}.count"), "expected at least 0".to_owned());
                return;
            }
        };
        let gpus: Vec<i32> =
            group.numbers("gpus").into_iter().filter_map(|id| i32::try_from(id).ok()).collect();
        if gpus.iter().any(|id| *id < 0) {
            self.errors.push(&format!("{path}.gpus"), "expected numbers of at least 0".to_owned());
        }
        match group.word("kind").as_str() {
            "KIND_CPU" if gpus.is_empty() => groups.cpu = groups.cpu.saturating_add(count),
            "KIND_CPU" => {
                let problem = "KIND_CPU has no GPUs".to_owned();
                self.errors.push(&format!("{path}.gpus"), problem);
            }
            "KIND_GPU" if gpus.is_empty() => {
                groups.must_be_gpu = true;
                groups.every_gpu = groups.every_gpu.saturating_add(count);
            }
            kind @ ("KIND_GPU" | "KIND_AUTO") if !gpus.is_empty() => {
                groups.must_be_gpu |= kind == "KIND_GPU";
                for id in gpus {
                    let known = groups.gpus.entry(id).or_default();
                    *known = known.saturating_add(count);
                }
            }
            "KIND_AUTO" | "KIND_MODEL" if gpus.is_empty() => {
                groups.anywhere = groups.anywhere.saturating_add(count);
            }
            "KIND_MODEL" => {
                let problem = "KIND_MODEL has no GPUs".to_owned();
                self.errors.push(&format!("{path}.gpus"), problem);
            }
            other => self.errors.push(&format!("{path}.kind"), format!("unknown kind {other}")),
        }
    }

    /// Providers for instances on GPUs, in order of preference.
    fn read_accelerators(&mut self, file: Node<'_>) -> Vec<Provider> {
        let mut providers = Vec::new();
        for accelerator in gpu_accelerators(file) {
            let name = accelerator.text("name");
            let provider = match name {
                "tensorrt" => Provider::TensorRt,
                "cuda" => Provider::Cuda,
                _ => {
                    self.ignore(GPU_ACCELERATOR, &format!("{} is unknown", quoted(name)));
                    continue;
                }
            };
            if !providers.contains(&provider) {
                providers.push(provider);
            }
            let mut options = BTreeMap::new();
            for (key, value) in accelerator.entries("parameters") {
                let value = value.as_str().unwrap_or_default();
                options.extend(self.option(provider, key, value));
            }
            self.add_options(provider, options);
        }
        if let Some(accelerators) = accelerators(file) {
            for accelerator in accelerators.children("cpu_execution_accelerator") {
                let name = quoted(accelerator.text("name"));
                self.ignore(CPU_ACCELERATOR, &format!("{name} is unknown"));
            }
        }
        providers
    }

    /// An accelerator's option under the provider's own name.
    fn option(&mut self, provider: Provider, key: &str, value: &str) -> Option<(String, String)> {
        let own = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
        let path = format!("{GPU_ACCELERATOR} {}.{}", provider.name(), quoted(key));
        if provider == Provider::Cuda {
            return own(key, value);
        }
        if key == "precision_mode" {
            return match value {
                "FP32" => None,
                "FP16" => own("trt_fp16_enable", "1"),
                "INT8" => own("trt_int8_enable", "1"),
                other => {
                    let problem = format!("expected FP32, FP16 or INT8, got {:?}", quoted(other));
                    self.errors.push(&path, problem);
                    None
                }
            };
        }
        if key.starts_with("trt_") {
            return own(key, value);
        }
        let known = TENSORRT_OPTIONS.iter().find(|(known, _)| *known == key);
        if known.is_none() {
            self.ignored.insert(path);
        }
        known.and_then(|(_, name)| own(name, value))
    }

    /// Adds options to those that a provider has.
    pub(super) fn add_options(&mut self, provider: Provider, options: BTreeMap<String, String>) {
        if !options.is_empty() {
            self.config.provider_options.entry(provider).or_default().extend(options);
        }
    }
}

fn accelerators(file: Node<'_>) -> Option<Node<'_>> {
    file.child("optimization")?.child("execution_accelerators")
}

fn gpu_accelerators(file: Node<'_>) -> Vec<Node<'_>> {
    accelerators(file).map_or_else(Vec::new, |it| it.children("gpu_execution_accelerator"))
}
