//! Configurations as they are found in the wild, and what becomes of each.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Imported, parse};
use crate::config::Config;
use crate::config::model::{Batching, GraphOptimization, ModelConfig, Provider};
use crate::model::ModelVersion;
use crate::model::declared::{DeclaredRows, ImageLayout};
use crate::repository::version_policy::VersionPolicy;
use crate::tensor::DataType;

fn defaults() -> ModelConfig {
    Config::resolve(|_| None).unwrap().model
}

fn read(name: &str) -> Result<Imported, String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pbtxt");
    let text = std::fs::read_to_string(folder.join(format!("{name}.pbtxt"))).unwrap();
    parse(&text, name, &defaults()).map_err(|errors| errors.to_string())
}

fn import(name: &str) -> (ModelConfig, Vec<String>) {
    let imported = read(name).unwrap_or_else(|errors| panic!("{name}: {errors}"));
    (imported.config, imported.ignored.into_iter().collect())
}

fn text(text: &str) -> Result<ModelConfig, String> {
    let parsed = parse(text, "m", &defaults());
    parsed.map(|imported| imported.config).map_err(|errors| errors.to_string())
}

#[test]
fn densenet_takes_one_image_and_reshapes_it() {
    let (config, ignored) = import("densenet_onnx");
    assert_eq!((config.batching, config.declared.rows), (Batching::Off, DeclaredRows::Absent));
    let image = &config.declared.inputs[0];
    assert_eq!(image.dims.as_deref(), Some(&[3, 224, 224][..]));
    assert_eq!(image.reshape.as_deref(), Some(&[1, 3, 224, 224][..]));
    assert_eq!((image.dtype, image.layout), (Some(DataType::Fp32), ImageLayout::Nchw));
    assert_eq!(config.declared.outputs[0].reshape.as_deref(), Some(&[1, 1000, 1, 1][..]));
    assert_eq!(config.label_files["fc6_1"], "labels.txt");
    assert_eq!(ignored, [""; 0]);
}

#[test]
fn bert_is_batched_up_to_its_maximum() {
    let (config, ignored) = import("bert_qa");
    assert_eq!((config.batching, config.max_batch_size), (Batching::Fixed, 32));
    assert_eq!(config.declared.rows, DeclaredRows::Leading);
    assert_eq!(config.max_queue_delay, Duration::from_micros(500));
    assert_eq!((config.instances, &config.providers[..]), (2, &[Provider::Cpu][..]));
    assert_eq!(config.intra_op_threads, NonZeroUsize::new(4));
    let names: Vec<&str> = config.declared.inputs.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["input_ids", "attention_mask", "token_type_ids"]);
    assert_eq!(config.declared.outputs[1].dims.as_deref(), Some(&[384][..]));
    assert_eq!(config.preferred_batch_sizes, [4, 8, 16]);
    assert_eq!(ignored, ["parameters.inter_op_thread_count"]);
}

#[test]
fn a_detector_has_complete_shapes_and_one_gpu() {
    let (config, ignored) = import("yolo");
    assert_eq!((config.batching, config.declared.rows), (Batching::Off, DeclaredRows::Absent));
    assert_eq!(config.declared.inputs[0].dims.as_deref(), Some(&[1, 3, 640, 640][..]));
    assert_eq!(config.providers, [Provider::Cuda]);
    assert_eq!((config.instances, &config.device_ids[..]), (1, &[0][..]));
    assert_eq!(ignored, [""; 0]);
}

#[test]
fn text_detection_takes_many_rows_and_joins_no_requests() {
    let (config, ignored) = import("text_detection");
    assert_eq!((config.batching, config.max_batch_size), (Batching::Off, 256));
    assert_eq!(config.declared.rows, DeclaredRows::Leading);
    assert_eq!(config.declared.inputs[0].layout, ImageLayout::Nhwc);
    assert_eq!(config.declared.outputs[1].name, "feature_fusion/boxes:0");
    assert_eq!(ignored, [""; 0]);
}

#[test]
fn mnist_says_no_maximum_and_reshapes() {
    let (config, _) = import("mnist");
    assert_eq!((config.batching, config.declared.rows), (Batching::Off, DeclaredRows::Absent));
    assert_eq!(config.declared.outputs[0].reshape.as_deref(), Some(&[1, 10][..]));
}

#[test]
fn resnet_runs_on_tensorrt_with_its_options() {
    let (config, ignored) = import("resnet50_trt");
    assert_eq!((config.batching, config.max_batch_size), (Batching::Fixed, 128));
    assert_eq!(config.graph_optimization, GraphOptimization::Extended);
    // No instance group: automatic, so that the processor stands in for a GPU that is not there.
    assert_eq!(config.providers, [Provider::TensorRt, Provider::Cpu]);
    let options: Vec<(&str, &str)> = config.provider_options[&Provider::TensorRt]
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        options,
        [
            ("trt_engine_cache_enable", "1"),
            ("trt_fp16_enable", "1"),
            ("trt_max_workspace_size", "1073741824")
        ]
    );
    assert_eq!(
        ignored,
        [
            "optimization.cuda",
            "optimization.execution_accelerators.gpu_execution_accelerator \
             tensorrt.max_cached_engines"
        ]
    );
}

#[test]
fn groups_of_several_kinds_become_one() {
    let (config, ignored) = import("groups");
    assert_eq!(config.providers, [Provider::Cuda]);
    assert_eq!((config.instances, &config.device_ids[..]), (2, &[0, 1, 2][..]));
    assert_eq!(
        ignored,
        [
            "instance_group (counts that differ between GPUs; each gets 2)",
            "instance_group (on the processor, beside one on GPUs)",
            "instance_group.host_policy",
            "instance_group.passive",
            "instance_group.profile",
            "instance_group.rate_limiter",
        ]
    );
    let groups = |kind: &str| text(&format!("max_batch_size: 1 instance_group [{kind}]")).unwrap();
    let cpu = groups("{ kind: KIND_CPU count: 2 }, { kind: KIND_CPU }, { kind: KIND_MODEL }");
    assert_eq!((cpu.instances, &cpu.providers[..]), (4, &[Provider::Cpu][..]));
    let auto = groups("{ gpus: [3] }");
    assert_eq!(
        (&auto.providers[..], &auto.device_ids[..]),
        (&[Provider::Cuda, Provider::Cpu][..], &[3][..])
    );
    assert_eq!(groups("{ kind: KIND_GPU count: 2 }").device_ids, defaults().device_ids);
}

#[test]
fn version_policies_of_all_kinds() {
    let three = NonZeroUsize::new(3).unwrap();
    assert_eq!(import("versions_latest").0.version_policy, VersionPolicy::Latest(three));
    assert_eq!(import("versions_all").0.version_policy, VersionPolicy::All);
    let (config, _) = import("versions_specific");
    let VersionPolicy::Specific(versions) = config.version_policy else { panic!() };
    assert_eq!(versions.into_iter().map(ModelVersion::number).collect::<Vec<_>>(), [1, 7]);
    assert_eq!(config.model_file, "net.onnx");
}

#[test]
fn warm_up_gives_shapes() {
    let (config, ignored) = import("warmup");
    assert_eq!(config.examples["tokens"], [1, 64]);
    assert_eq!(config.examples["mask"], [1, 64]);
    assert_eq!(
        ignored,
        [
            "model_warmup (but for the shapes of the first entry)",
            "model_warmup.batch_size",
            "model_warmup.count",
            "model_warmup.inputs.input_data_file"
        ]
    );
}

#[test]
fn a_made_up_request_for_another_model_is_found_at_load() {
    let config = text("max_batch_size: 1 model_warmup { inputs { key: 'z' value { dims: 2 } } }");
    let config = config.unwrap();
    assert_eq!(
        (config.declared.inputs[0].name.as_str(), &config.examples["z"][..]),
        ("z", &[1, 2][..])
    );
}

#[test]
fn queue_policies_bound_the_queue() {
    let (config, ignored) = import("queues");
    assert_eq!(
        (config.max_queue_jobs, config.max_queue_delay),
        (NonZeroUsize::new(100), Duration::ZERO)
    );
    assert_eq!(config.default_priority, 2);
    assert_eq!((config.batching, config.response_cache_bytes), (Batching::Fixed, 64 << 20));
    assert!(config.preserve_ordering);
    assert_eq!(
        ignored,
        [
            "dynamic_batching.default_queue_policy.default_timeout_microseconds",
            "dynamic_batching.default_queue_policy.timeout_action",
            "dynamic_batching.priority_queue_policy",
            "metric_tags"
        ]
    );
}

#[test]
fn what_only_tunes_is_named_in_one_line() {
    let imported = read("openvino").unwrap();
    assert_eq!(
        imported.warning().unwrap(),
        "config.pbtxt: without effect here: \
         optimization.execution_accelerators.cpu_execution_accelerator (openvino is unknown), \
         optimization.input_pinned_memory, optimization.priority, parameters.enable_mem_arena"
    );
    let config = imported.config;
    assert_eq!((config.instances, config.graph_optimization), (3, GraphOptimization::Off));
    assert_eq!(config.providers, defaults().providers);
    assert_eq!(config.provider_options[&Provider::Cuda]["gpu_mem_limit"], "2147483648");
}

#[test]
fn what_changes_answers_is_refused_by_name_all_at_once() {
    let errors = read("refused").unwrap_err();
    let expected = [
        "batch_input: is not supported: requests of different shapes are never joined end to end",
        "batch_output: is not supported: requests of different shapes are never joined end to end",
        "cc_model_filenames: is not supported: a version has one model file for every device",
        "input.allow_ragged_batch: is not supported: requests of different shapes are never joined \
         end to end",
        "input.is_non_linear_format_io: is not supported: tensors have the protocol's layout only",
        "input.is_shape_tensor: is not supported: shape tensors belong to TensorRT engines, not to \
         ONNX",
        "input.optional: is not supported: every input of the model has to be sent",
        "model_operations.op_library_filename: is not supported: libraries of operators are not \
         loaded",
        "model_repository_agents.agents: is not supported: plug-ins for the files of models are \
         not loaded",
        "model_transaction_policy.decoupled: is not supported: a request has exactly one answer",
        "runtime: is not supported: the library that runs models is a setting of the server",
        "sequence_batching: is not supported: the server keeps no state between requests",
        "name: expected \"refused\", got \"another\"",
        "platform: expected \"onnxruntime_onnx\", got \"tensorflow_savedmodel\"",
        "backend: expected \"onnxruntime\", got \"python\"",
        "default_model_filename: expected the name of a file, got \"../model.onnx\"",
        "version_policy.specific.versions: expected versions of at least 1",
        "input `a` dims: expected -1 or sizes of at least 1, got [0, -2]",
        "input[1].name: `a` is listed twice",
        "input `b` reshape: [4] and [3] have different numbers of elements",
        "output[0].name: is missing",
        "model_warmup[0].inputs `c` dims: expected sizes of at least 1, got [-1]",
        "instance_group[0].gpus: KIND_CPU has no GPUs",
        "instance_group[1].count: expected at least 0",
        "instance_group[2].gpus: expected numbers of at least 0",
        "optimization.graph.level: expected -1, 0, 1 or 2, got 9",
        "parameters.intra_op_thread_count: expected a whole number of at least 0, got \"many\"",
    ];
    assert_eq!(errors, expected.join("\n"));
}

#[test]
fn a_pipeline_is_refused() {
    let errors = read("ensemble").unwrap_err();
    assert!(errors.contains("ensemble_scheduling: is not supported"), "{errors}");
    assert!(errors.contains("platform: expected"), "{errors}");
}

#[test]
fn a_file_that_says_little_leaves_the_rest_to_the_server() {
    let (config, ignored) = import("minimal");
    assert_eq!((config, ignored), (defaults(), Vec::new()));
    assert_eq!(text(""), Ok(defaults()));
    // Values of the format's defaults are as if they were not there.
    let quiet = "model_transaction_policy { decoupled: false } model_operations {} \
                 response_cache { enable: false } runtime: \"\"";
    assert!(parse(quiet, "m", &defaults()).unwrap().ignored.is_empty());
}

#[test]
fn a_cache_has_the_servers_size_if_there_is_one() {
    let server = ModelConfig { response_cache_bytes: 1000, ..defaults() };
    let size = |text: &str| parse(text, "m", &server).unwrap().config.response_cache_bytes;
    assert_eq!(size("response_cache { enable: true }"), 1000);
    assert_eq!(size("response_cache { enable: false }"), 0);
    assert_eq!(size("response_cache { }"), 0);
    assert_eq!(size(""), 1000);
    assert_eq!(text("response_cache { enable: true }").unwrap().response_cache_bytes, 64 << 20);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    assert_eq!(
        text("max_batch_size: -1"),
        Err("max_batch_size: expected at least 0, got -1".into())
    );
    let wrong = text("max_batch_size: 4 dynamic_batching { preferred_batch_size: [4, 8, 0] }");
    assert_eq!(
        wrong,
        Err("dynamic_batching.preferred_batch_size: expected 1 to max_batch_size 4, got 8\n\
             dynamic_batching.preferred_batch_size: expected 1 to max_batch_size 4, got 0"
            .into())
    );
    let unused = parse("input { name: \"x\" } dynamic_batching {}", "m", &defaults()).unwrap();
    assert_eq!(unused.config.batching, Batching::Off);
    assert!(unused.ignored.contains("dynamic_batching (max_batch_size is 0)"));
}

#[test]
fn long_lists_are_cut() {
    let many = "input { }".repeat(1000);
    let errors = text(&many).unwrap_err();
    assert!(errors.ends_with("\nand: 968 more problems"), "{errors}");
    let names = (0..99).map(|name| format!("parameters {{ key: \"p{name}\" value {{ }} }}"));
    let names = names.collect::<Vec<_>>().concat();
    let warning = parse(&names, "m", &defaults()).unwrap().warning().unwrap();
    assert!(warning.ends_with(" and 67 more"), "{warning}");
}
