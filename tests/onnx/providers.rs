//! Providers that a machine lacks, fallbacks, and several instances of a model.

use std::path::Path;

use onnxd::repository::State;
use prost::Message;

use crate::harness::{RealServer, floats, generated, output, repository, request};
use crate::process::{Process, refused};

/// A device that no machine has, so that these tests mean the same everywhere.
const NO_DEVICE: &str = "device_ids = [99]\n";

#[tokio::test]
async fn a_missing_gpu_is_an_error_unless_a_fallback_is_named() {
    let (strict, named) = (generated().join("two_inputs"), generated().join("identity_f32"));
    let strict_config = format!("{NO_DEVICE}providers = \"cuda\"");
    let named_config = format!("{NO_DEVICE}providers = [\"cuda\", \"cpu\"]");
    let models =
        repository(&[(strict.as_path(), &strict_config), (named.as_path(), &named_config)]);
    let server = RealServer::start(models.path(), &[]).await;
    let reason = server.failure("two_inputs");
    for part in ["provider cuda", "device 99", "/dev/nvidiactl", "/dev/nvidia99", "found "] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    let index = server.repository.index();
    let fallback = index.iter().find(|entry| entry.key.name.as_str() == "identity_f32").unwrap();
    let State::Ready(served) = &fallback.state else { panic!("it has a fallback") };
    assert_eq!((served.provider.as_str(), served.instances()), ("cpu", 1));
    let ask = request("identity_f32", vec![("x", "FP32", &[1, 1], floats(&[7.0]))]);
    assert_eq!(output(&server.infer(ask).await, 0), [7.0]);
    server.finish().await;
}

#[test]
fn a_process_without_its_gpu_says_so() {
    let source = generated().join("identity_f32");
    let models = repository(&[(source.as_path(), "")]);
    let flags = ["--device-ids", "99", "--providers", "cuda"];
    let (code, words) = refused(models.path(), &flags);
    assert_eq!(code, Some(3), "{words}");
    assert!(words.contains("provider cuda was asked for device 99: looked for "), "{words}");

    let flags = ["--device-ids", "99", "--providers", "cuda,cpu"];
    let log = Process::start(models.path(), &flags).stop();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for part in ["runs on a fallback provider", "provider=\"cpu\"", "/dev/nvidia99"] {
        assert!(warnings[0].contains(part), "{part:?} is not in {:?}", warnings[0]);
    }
}

#[tokio::test]
async fn instances_run_at_the_same_time() {
    let ask = |turns: i64| {
        let turns = turns.to_le_bytes().to_vec();
        let x = floats(&[1.0]);
        request("loop_busy", vec![("x", "FP32", &[1, 1], x), ("iterations", "INT64", &[], turns)])
    };
    let server = RealServer::of("loop_busy", "instances = 2").await;
    assert_eq!(server.served("loop_busy").instances(), 2);
    // One instance is busy for hours; the other serves, and both can be busy at once.
    let mut client = server.client.clone();
    let first = tokio::spawn(async move { client.model_infer(ask(10_000_000_000)).await });
    server.running("loop_busy", 1).await;
    for turns in 1..=3 {
        let answer = server.infer(ask(turns)).await;
        assert_eq!(output(&answer, 0), [f32::from(u8::try_from(turns).unwrap()) + 1.0]);
    }
    let mut client = server.client.clone();
    let second = tokio::spawn(async move { client.model_infer(ask(10_000_000_000)).await });
    server.running("loop_busy", 2).await;
    first.abort();
    second.abort();
    server.running("loop_busy", 0).await;
    server.finish().await;
}

/// As much of ONNX's messages as a matrix product needs. Source: onnx.proto.
mod onnx {
    #[derive(prost::Message)]
    pub(super) struct Model {
        #[prost(int64, tag = "1")]
        pub(super) ir_version: i64,
        #[prost(message, optional, tag = "7")]
        pub(super) graph: Option<Graph>,
        #[prost(message, repeated, tag = "8")]
        pub(super) opset_import: Vec<Opset>,
    }

    #[derive(prost::Message)]
    pub(super) struct Opset {
        #[prost(int64, tag = "2")]
        pub(super) version: i64,
    }

    #[derive(prost::Message)]
    pub(super) struct Graph {
        #[prost(message, repeated, tag = "1")]
        pub(super) node: Vec<Node>,
        #[prost(string, tag = "2")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "5")]
        pub(super) initializer: Vec<Tensor>,
        #[prost(message, repeated, tag = "11")]
        pub(super) input: Vec<Value>,
        #[prost(message, repeated, tag = "12")]
        pub(super) output: Vec<Value>,
    }

    #[derive(prost::Message)]
    pub(super) struct Node {
        #[prost(string, repeated, tag = "1")]
        pub(super) input: Vec<String>,
        #[prost(string, repeated, tag = "2")]
        pub(super) output: Vec<String>,
        #[prost(string, tag = "4")]
        pub(super) op_type: String,
    }

    #[derive(prost::Message)]
    pub(super) struct Tensor {
        #[prost(int64, repeated, tag = "1")]
        pub(super) dims: Vec<i64>,
        #[prost(int32, tag = "2")]
        pub(super) data_type: i32,
        #[prost(string, tag = "8")]
        pub(super) name: String,
        #[prost(bytes = "vec", tag = "9")]
        pub(super) raw_data: Vec<u8>,
    }

    #[derive(prost::Message)]
    pub(super) struct Value {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, optional, tag = "2")]
        pub(super) r#type: Option<Type>,
    }

    #[derive(prost::Message)]
    pub(super) struct Type {
        #[prost(message, optional, tag = "1")]
        pub(super) tensor_type: Option<TensorType>,
    }

    #[derive(prost::Message)]
    pub(super) struct TensorType {
        #[prost(int32, tag = "1")]
        pub(super) elem_type: i32,
        #[prost(message, optional, tag = "2")]
        pub(super) shape: Option<Shape>,
    }

    #[derive(prost::Message)]
    pub(super) struct Shape {
        #[prost(message, repeated, tag = "1")]
        pub(super) dim: Vec<Dim>,
    }

    #[derive(prost::Message)]
    pub(super) struct Dim {
        #[prost(int64, optional, tag = "1")]
        pub(super) dim_value: Option<i64>,
        #[prost(string, optional, tag = "2")]
        pub(super) dim_param: Option<String>,
    }
}

/// Rows and columns of the weights: 36 MiB, so much that the allocator gives them back to the system
/// when they are freed.
const WIDTH: i64 = 3072;
const FLOAT: i32 = 1;

fn matrix(name: &str) -> onnx::Value {
    let dim = vec![
        onnx::Dim { dim_value: None, dim_param: Some("batch".into()) },
        onnx::Dim { dim_value: Some(WIDTH), dim_param: None },
    ];
    let tensor_type = Some(onnx::TensorType { elem_type: FLOAT, shape: Some(onnx::Shape { dim }) });
    onnx::Value { name: name.into(), r#type: Some(onnx::Type { tensor_type }) }
}

/// Writes `x [batch, 3072] f32` times some weights as the model `wide`.
fn lay_out_wide(models: &Path) {
    let weights: Vec<f32> =
        (0..WIDTH * WIDTH / 256).flat_map(|_| (0..=255_u8).map(f32::from)).collect();
    let weights = onnx::Tensor {
        dims: vec![WIDTH, WIDTH],
        data_type: FLOAT,
        name: "w".into(),
        raw_data: floats(&weights),
    };
    let node = onnx::Node {
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        op_type: "MatMul".into(),
    };
    let graph = onnx::Graph {
        node: vec![node],
        name: "wide".into(),
        initializer: vec![weights],
        input: vec![matrix("x")],
        output: vec![matrix("y")],
    };
    let opset_import = vec![onnx::Opset { version: 17 }];
    let model = onnx::Model { ir_version: 8, graph: Some(graph), opset_import };
    let folder = models.join("wide/1");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.onnx"), model.encode_to_vec()).unwrap();
}

#[test]
fn each_instance_holds_its_weights_once() {
    let models = tempfile::tempdir().unwrap();
    lay_out_wide(models.path());
    let held = |instances: &str| {
        let flags = ["--instances", instances, "--warmup-ms", "0", "--strict"];
        Process::start(models.path(), &flags).resident_kib()
    };
    let (one, three) = (held("1"), held("3"));
    // The runtime packs the weights of each session for the processor and lets the originals go.
    let (copy, each) = (36 << 10, (three - one) / 2);
    assert!(one > copy, "{one} KiB is less than the weights");
    assert!(each < copy + copy / 2, "{each} KiB for each further instance, the weights are {copy}");
}
