//! Model folders with Triton's `config.pbtxt`, served as they are.

use std::path::Path;
use std::process::Command;

use onnxd::pb::model_config::SchedulingChoice;
use onnxd::pb::model_infer_request::InferInputTensor;
use onnxd::pb::model_infer_request::InferRequestedOutputTensor;
use onnxd::pb::{
    InferParameter, ModelConfig, ModelConfigRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, infer_parameter::ParameterChoice, model_input::Format,
};
use tonic::Code;

use crate::harness::{RealServer, floats, generated, output, request};

/// Puts a generated model into `root` under its name, with a `config.pbtxt`.
fn place(root: &Path, model: &str, file: &str, config: &str) {
    for version in std::fs::read_dir(generated().join(model)).unwrap() {
        let version = version.unwrap();
        let target = root.join(model).join(version.file_name());
        std::fs::create_dir_all(&target).unwrap();
        std::fs::copy(version.path().join("model.onnx"), target.join(file)).unwrap();
    }
    std::fs::write(root.join(model).join("config.pbtxt"), config).unwrap();
}

/// A server of some generated models with these configurations.
async fn serve(models: &[(&str, &str)]) -> RealServer {
    let root = tempfile::tempdir().unwrap();
    for (model, config) in models {
        place(root.path(), model, "model.onnx", config);
    }
    RealServer::start(root.path(), &[]).await
}

async fn metadata(server: &mut RealServer, model: &str) -> ModelMetadataResponse {
    let asked = ModelMetadataRequest { name: model.into(), ..ModelMetadataRequest::default() };
    server.client.model_metadata(asked).await.unwrap().into_inner()
}

async fn config(server: &mut RealServer, model: &str) -> ModelConfig {
    let asked = ModelConfigRequest { name: model.into(), ..ModelConfigRequest::default() };
    server.client.model_config(asked).await.unwrap().into_inner().config.unwrap()
}

/// Shapes of all inputs and outputs, as metadata has them.
fn shapes(metadata: &ModelMetadataResponse) -> Vec<(&str, &[i64])> {
    let tensors = metadata.inputs.iter().chain(&metadata.outputs);
    tensors.map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect()
}

fn shape(answer: &ModelInferResponse) -> &[i64] {
    &answer.outputs[0].shape
}

#[tokio::test]
async fn a_batched_classifier() {
    let root = tempfile::tempdir().unwrap();
    place(
        root.path(),
        "mlp_tiny",
        "model.onnx",
        r#"
        name: "mlp_tiny"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 64 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 10 ] label_filename: "labels.txt" } ]
        dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 }
        instance_group [ { kind: KIND_CPU count: 2 } ]
        "#,
    );
    let labels: Vec<String> = (0..10).map(|class| format!("class {class}")).collect();
    std::fs::write(root.path().join("mlp_tiny/labels.txt"), labels.join("\n")).unwrap();
    let mut server = RealServer::start(root.path(), &[]).await;
    let described = metadata(&mut server, "mlp_tiny").await;
    assert_eq!(shapes(&described), [("x", &[-1, 64][..]), ("y", &[-1, 10])]);
    let config = config(&mut server, "mlp_tiny").await;
    assert_eq!((config.max_batch_size, &config.input[0].dims[..]), (8, &[64][..]));
    assert_eq!(config.input[0].format(), Format::Nchw);
    assert_eq!(config.output[0].label_filename, "labels.txt");
    assert_eq!(config.instance_group[0].count, 2);
    let Some(SchedulingChoice::DynamicBatching(batching)) = config.scheduling_choice else {
        panic!("{config:?}")
    };
    assert_eq!(batching.max_queue_delay_microseconds, 100);

    let rows = |count: u16| -> Vec<u8> {
        floats(&(0..count * 64).map(|it| f32::from(it % 13) / 16.0).collect::<Vec<_>>())
    };
    let two = server.infer(request("mlp_tiny", vec![("x", "FP32", &[2, 64], rows(2))])).await;
    assert_eq!(shape(&two), [2, 10]);
    let one = server.infer(request("mlp_tiny", vec![("x", "FP32", &[1, 64], rows(1))])).await;
    assert_eq!(output(&one, 0), output(&two, 0)[..10]);
    let mut classes = request("mlp_tiny", vec![("x", "FP32", &[1, 64], rows(1))]);
    let count = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(1)) };
    classes.outputs = vec![InferRequestedOutputTensor {
        name: "y".into(),
        parameters: [("classification".to_owned(), count)].into(),
    }];
    let classes = server.infer(classes).await;
    let text = String::from_utf8_lossy(&classes.raw_output_contents[0]).into_owned();
    assert!(text.contains(":class "), "{text:?}");

    let many = request("mlp_tiny", vec![("x", "FP32", &[9, 64], rows(9))]);
    let status = server.refusal(many).await;
    assert!(status.message().contains("max_batch_size is 8"), "{}", status.message());
    server.finish().await;
}

#[tokio::test]
async fn one_matrix_with_another_shape_for_callers() {
    let mut server = serve(&[(
        "no_batch",
        r#"
        max_batch_size: 0
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 12 ] reshape { shape: [ 3, 4 ] } } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 2, 3 ] reshape { shape: [ 3, 2 ] } } ]
        "#,
    )])
    .await;
    let described = metadata(&mut server, "no_batch").await;
    assert_eq!(shapes(&described), [("x", &[12][..]), ("y", &[2, 3])]);
    let config = config(&mut server, "no_batch").await;
    assert_eq!((config.max_batch_size, &config.input[0].dims[..]), (0, &[12][..]));
    assert_eq!(config.output[0].reshape.as_ref().unwrap().shape, [3, 2]);
    assert_eq!(config.scheduling_choice, None);

    let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let ask = |shape| request("no_batch", vec![("x", "FP32", shape, floats(&values))]);
    let answer = server.infer(ask(&[12])).await;
    assert_eq!(shape(&answer), [2, 3]);
    // Row [a, b, c, d] of the matrix gives [a + c + 2 d, b + c - d].
    assert_eq!(output(&answer, 0), [8.0, 0.0, 24.0, 4.0, 40.0, 8.0]);
    let status = server.refusal(ask(&[3, 4])).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "input `x`: expected shape [12], got [3, 4]");
    server.finish().await;
}

#[tokio::test]
async fn rows_with_another_shape_for_callers_share_runs() {
    let mut server = serve(&[(
        "gather_100",
        r#"
        max_batch_size: 4
        input [ { name: "indices" data_type: TYPE_INT64 dims: [ 1, 1 ] reshape { shape: [ 1 ] } } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 2, -1 ] reshape { shape: [ -1 ] } } ]
        dynamic_batching { max_queue_delay_microseconds: 60000000 }
        "#,
    )])
    .await;
    let described = metadata(&mut server, "gather_100").await;
    assert_eq!(shapes(&described), [("indices", &[-1, 1, 1][..]), ("y", &[-1, 2, -1])]);
    let ask = |index: i64| {
        let bytes = index.to_le_bytes().to_vec();
        request("gather_100", vec![("indices", "INT64", &[1, 1, 1], bytes)])
    };
    let ends = server.together((0..4).map(ask).collect()).await;
    for (index, end) in (0..4_u8).zip(ends) {
        let answer = end.unwrap();
        assert_eq!(shape(&answer), [1, 2, 2]);
        let first = f32::from(index) * 10.0;
        assert_eq!(output(&answer, 0), [first, first + 1.0, first + 2.0, first + 3.0]);
    }
    let runs = server.statistics("gather_100").await;
    assert_eq!((runs.inference_count, runs.execution_count), (4, 1));
    server.finish().await;
}

#[tokio::test]
async fn without_dynamic_batching_requests_of_several_rows_run_alone() {
    let file = r#"
        max_batch_size: 4
        input [ { name: "a" data_type: TYPE_FP32 dims: 4 }, { name: "b" data_type: TYPE_FP32 dims: 4 } ]
        output [ { name: "sum" data_type: TYPE_FP32 dims: 4 }, { name: "diff" data_type: TYPE_FP32 dims: 4 } ]
        "#;
    let mut server = serve(&[("two_inputs", file)]).await;
    let config = config(&mut server, "two_inputs").await;
    assert_eq!((config.max_batch_size, config.scheduling_choice), (4, None));
    let ask = |rows: u8| {
        let values: Vec<f32> = (0..rows * 4).map(f32::from).collect();
        let shape = [i64::from(rows), 4];
        let inputs = ["a", "b"].map(|name| InferInputTensor {
            name: name.into(),
            datatype: "FP32".into(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        });
        let mut message = request("two_inputs", vec![]);
        message.inputs = inputs.into();
        message.raw_input_contents = vec![floats(&values).into(), floats(&values).into()];
        message
    };
    for (rows, end) in
        [1, 2, 3, 4].into_iter().zip(server.together([1, 2, 3, 4].map(ask).into()).await)
    {
        assert_eq!(shape(&end.unwrap()), [rows, 4]);
    }
    let runs = server.statistics("two_inputs").await;
    assert_eq!((runs.inference_count, runs.execution_count), (10, 4));
    let status = server.refusal(ask(5)).await;
    assert!(status.message().contains("max_batch_size is 4"), "{}", status.message());
    server.finish().await;
}

#[tokio::test]
async fn a_complete_shape_takes_any_rows_and_little_said_is_found_out() {
    let mut server = serve(&[
        ("identity_f32", "input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 2 ] }"),
        ("multi_output", "backend: 'onnxruntime'"),
    ])
    .await;
    let described = metadata(&mut server, "identity_f32").await;
    assert_eq!(described.inputs[0].shape, [-1, 2]);
    let values: Vec<f32> = (0..200_u8).map(f32::from).collect();
    let large = request("identity_f32", vec![("x", "FP32", &[100, 2], floats(&values))]);
    assert_eq!(output(&server.infer(large).await, 0), values);
    let wide = request("identity_f32", vec![("x", "FP32", &[1, 3], floats(&[0.0; 3]))]);
    let status = server.refusal(wide).await;
    assert_eq!(status.message(), "input `x`: expected shape [-1, 2], got [1, 3]");
    assert_eq!(config(&mut server, "identity_f32").await.max_batch_size, 0);
    assert_eq!(config(&mut server, "multi_output").await.max_batch_size, 64);
    server.finish().await;
}

#[tokio::test]
async fn versions_and_the_name_of_the_file() {
    let root = tempfile::tempdir().unwrap();
    let file = "version_policy { specific { versions: [ 1 ] } } default_model_filename: 'net.onnx'";
    place(root.path(), "two_versions", "net.onnx", file);
    // The server's own form goes first.
    place(root.path(), "add_i64", "model.onnx", "max_batch_size: 3");
    std::fs::write(root.path().join("add_i64/model.toml"), "max_batch_size = 5").unwrap();
    let mut server = RealServer::start(root.path(), &[]).await;
    let served = config(&mut server, "two_versions").await;
    assert_eq!(served.default_model_filename, "net.onnx");
    assert_eq!(metadata(&mut server, "two_versions").await.versions, ["1"]);
    let ask = request("two_versions", vec![("x", "FP32", &[1, 1], floats(&[3.0]))]);
    assert_eq!(output(&server.infer(ask).await, 0), [3.0]);
    assert_eq!(config(&mut server, "add_i64").await.max_batch_size, 5);
    server.finish().await;
}

#[tokio::test]
async fn files_for_another_model_say_what_differs() {
    let server = serve(&[
        ("mlp_tiny", "max_batch_size: 2 input { name: 'image' data_type: TYPE_FP16 dims: 64 }"),
        ("no_batch", "max_batch_size: 3"),
        (
            "scalar_f32",
            "input { name: 'x' data_type: TYPE_FP64 dims: 1 } output { name: 'y' dims: 2 }",
        ),
        ("identity_i64", "output { name: 'y' label_filename: '../labels.txt' }"),
        ("identity_f32", "sequence_batching { } input { name: 'x' allow_ragged_batch: true }"),
        ("identity_u8", "max_batch: 8"),
    ])
    .await;
    let failure = |model| server.failure(model);
    assert_eq!(
        failure("mlp_tiny"),
        "config.pbtxt: input `image`: the model has no such tensor, it has `x`"
    );
    let fixed = "max_batch_size is above 0, so the first dimension must take any number of rows, \
                 but in the model it is fixed to 3; with max_batch_size 0 the shapes are complete";
    assert_eq!(
        failure("no_batch"),
        format!("config.pbtxt: input `x`: {fixed}\noutput `y`: {fixed}")
    );
    assert_eq!(
        failure("scalar_f32"),
        "config.pbtxt: input `x`: the file says FP64, the model has FP32\n\
         output `y`: the file says [2], the model has []"
    );
    assert!(failure("identity_i64").ends_with("expected a path inside the model's folder"));
    assert_eq!(
        failure("identity_f32"),
        "config.pbtxt: input.allow_ragged_batch: is not supported: requests of different shapes \
         are never joined end to end\n\
         sequence_batching: is not supported: the server keeps no state between requests"
    );
    assert_eq!(
        failure("identity_u8"),
        "config.pbtxt: line 1: field 'max_batch' not found for message 'inference.ModelConfig'"
    );
    server.finish().await;
}

#[test]
fn check_shows_the_same() {
    let root = tempfile::tempdir().unwrap();
    place(root.path(), "add_i64", "model.onnx", "response_cache { enable: true }");
    place(root.path(), "two_inputs", "model.onnx", "name: 'else' runtime: 'x.so'");
    place(root.path(), "two_versions", "model.onnx", "default_model_filename: 'net.onnx'");
    place(root.path(), "no_batch", "model.onnx", "name: 'unread'");
    std::fs::write(root.path().join("no_batch/model.toml"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONNXD_") {
            command.env_remove(name);
        }
    }
    let done = command.arg("check").arg(root.path()).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let shown = [done.stdout, done.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
    for line in [
        "warning  no_batch: config.pbtxt is not read beside model.toml",
        "warning  add_i64: config.pbtxt: without effect here: response_cache.enable",
        "model    add_i64/1",
        "fault    two_inputs: config.pbtxt: runtime: is not supported: the library that runs \
         models is a setting of the server\nname: expected \"two_inputs\", got \"else\"",
        "fault    two_versions/2: no file",
        "model    no_batch/1",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}
