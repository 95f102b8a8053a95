//! Execution providers: what a model was asked to run on, and a plain word when it cannot.
//!
//! A provider that is asked for and cannot be had is an error, unless the model lists another
//! after it. Nothing falls back in silence.

use std::path::Path;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider};
use ort::session::builder::SessionBuilder;

use crate::config::ModelConfig;
use crate::config::model::Provider;

/// Where one instance runs.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    /// GPU; meaningless on the processor.
    pub(super) device_id: i32,
}

/// One placement per instance: `instances` on each device, or on the processor.
pub(super) fn place(config: &ModelConfig) -> Vec<Placement> {
    let gpu = config.providers.first().is_some_and(|provider| provider.is_gpu());
    let devices: &[i32] = if gpu { &config.device_ids } else { &[0] };
    let each = |device_id: &i32| Placement { device_id: *device_id };
    // Instance 0 of every device comes before instance 1 of any: load spreads over devices first.
    (0..config.instances).flat_map(|_| devices.iter().map(each)).collect()
}

/// Looks whether the machine can have the provider at all, so that the reason is ours and short.
pub(super) fn check(provider: Provider, device_id: i32) -> Result<(), String> {
    if !provider.is_gpu() {
        return Ok(());
    }
    let device = format!("/dev/nvidia{device_id}");
    // Some containers (WSL) show their GPU as /dev/dxg only.
    let looked_for = ["/dev/nvidiactl", device.as_str()];
    let missing: Vec<&str> =
        looked_for.into_iter().filter(|path| !Path::new(path).exists()).collect();
    if missing.is_empty() || Path::new("/dev/dxg").exists() {
        return Ok(());
    }
    let gpus = (0..16).filter(|id| Path::new(&format!("/dev/nvidia{id}")).exists()).count();
    Err(format!(
        "provider {} was asked for device {device_id}: looked for {}, missing {}; \
         found {gpus} NVIDIA device(s) on this machine",
        provider.name(),
        looked_for.join(" and "),
        missing.join(" and "),
    ))
}

/// Adds the provider to a session, strictly.
pub(super) fn register(
    builder: SessionBuilder,
    provider: Provider,
    placement: &Placement,
    config: &ModelConfig,
) -> Result<SessionBuilder, ort::Error> {
    let options = config.provider_options.get(&provider).into_iter().flatten();
    match provider {
        Provider::Cpu => Ok(builder),
        Provider::Cuda => {
            let mut cuda = ep::CUDA::default().with_device_id(placement.device_id);
            for (key, value) in options {
                cuda = cuda.with_arbitrary_config(key, value);
            }
            let cuda = cuda.build().error_on_failure();
            Ok(builder.with_execution_providers([cuda])?)
        }
        Provider::TensorRt => {
            let mut tensorrt = ep::TensorRT::default().with_device_id(placement.device_id);
            for (key, value) in options {
                tensorrt = tensorrt.with_arbitrary_config(key, value);
            }
            // TensorRT hands the nodes that it cannot run to CUDA.
            let cuda = ep::CUDA::default().with_device_id(placement.device_id);
            let both = [tensorrt.build().error_on_failure(), cuda.build().error_on_failure()];
            Ok(builder.with_execution_providers(both)?)
        }
    }
}

/// The runtime's reason, with what to do where that is known.
pub(super) fn explain(provider: Provider, error: &ort::Error) -> String {
    let text = error.message();
    if !provider.is_gpu() {
        return text.to_owned();
    }
    format!(
        "provider {} failed: {text}; the library must be the GPU build \
         (`onnxd setup --flavor cuda13`) with CUDA and cuDNN beside it",
        provider.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_spread_over_devices_first() {
        let mut config = crate::config::Config::resolve(|_| None).unwrap().model;
        config.instances = 2;
        assert_eq!(place(&config).len(), 2);
        config.providers = vec![Provider::Cuda];
        config.device_ids = vec![0, 3];
        let devices: Vec<i32> = place(&config).iter().map(|each| each.device_id).collect();
        assert_eq!(devices, [0, 3, 0, 3]);
    }

    #[test]
    fn a_missing_gpu_is_named() {
        let reason = check(Provider::Cuda, 99).unwrap_err();
        assert!(reason.contains("cuda") && reason.contains("/dev/nvidia99"), "{reason}");
        assert_eq!(check(Provider::Cpu, 99), Ok(()));
    }
}
