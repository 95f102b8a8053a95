//! Signatures and axes as they are read from real files, and models that cannot be served.

use std::collections::BTreeMap;

use onnxd::config::Config;
use onnxd::model::{ModelKey, ModelName, ModelVersion, TensorSpec, axes};
use onnxd::worker::{ModelLoader, ModelSource};
use tonic::Code;

use crate::harness::{RealServer, floats, generated, loader, output, repository, request, shipped};

/// Signature of a served model on one line; `@` stands before the axis of the rows.
fn signature(server: &RealServer, model: &str) -> String {
    let tensor = |tensor: &TensorSpec| match tensor.batch_axis {
        Some(axis) => format!("{tensor}@{axis}"),
        None => tensor.to_string(),
    };
    let served = server.served(model);
    let side = |all: &[TensorSpec]| all.iter().map(tensor).collect::<Vec<_>>().join(", ");
    format!("{} -> {}", side(&served.spec.inputs), side(&served.spec.outputs))
}

const SHIPPED: [(&str, &str); 3] = [
    ("magika", "bytes INT32[unk__214,2048]@0 -> target_label FP32[unk__215,214]@0"),
    (
        "silero-vad",
        "input FP32[batch,sequence]@0, state FP32[2,batch,128]@1, sr INT64[] -> \
         output FP32[batch,1]@0, stateN FP32[AddstateN_dim_0,batch,AddstateN_dim_2]@1",
    ),
    ("ppocr-angle", "x FP32[-1,3,-1,-1]@0 -> save_infer_model/scale_0.tmp_1 FP32[-1,2]@0"),
];

/// All generated models that can be served but the identities.
const GENERATED: [(&str, &str); 23] = [
    ("add_i64", "a INT64[batch,n]@0, b INT64[batch,n]@0 -> y INT64[batch,n]@0"),
    (
        "axis1_state",
        "x FP32[batch,2]@0, state FP32[2,batch,3]@1, k FP32[] -> \
         y FP32[batch,2]@0, stateN FP32[2,batch,3]@1",
    ),
    ("batch_sum", "x FP32[batch,4] -> y FP32[1,4]"),
    ("concat_strings", "a BYTES[batch,n]@0, b BYTES[batch,n]@0 -> y BYTES[batch,n]@0"),
    ("dynamic_inner", "x FP32[batch,seq,8]@0 -> y FP32[batch,8]@0"),
    ("dynamic_six", "x FP32[a,b,c,d,e,f] -> y FP32[7]"),
    // The rows of a run share the largest size, which the first runs show.
    ("expand", "size INT64[batch,1] -> y FP32[batch,size]"),
    ("fixed_four", "x FP32[4,2] -> y FP32[4,2]"),
    ("fixed_one", "x FP32[1,4] -> y FP32[1,4]"),
    ("gather_100", "indices INT64[batch,1]@0 -> y FP32[batch,4]@0"),
    // First runs fail: edges that are made up lead to nodes that are not there.
    ("graph_step", "x FP32[nodes,4], edges INT64[2,edges] -> y FP32[nodes,4]"),
    // And here a divisor that is made up is 0.
    ("int_divide", "a INT32[batch,1], b INT32[batch,1] -> y INT32[batch,1]"),
    ("loop_busy", "x FP32[batch,1]@0, iterations INT64[] -> y FP32[batch,1]@0"),
    ("mixes_rows", "x FP32[batch,4] -> y FP32[batch,4]"),
    ("mixes_small", "x FP32[batch,4] -> y FP32[batch,4]"),
    ("mlp_tiny", "x FP32[batch,64]@0 -> y FP32[batch,10]@0"),
    (
        "multi_output",
        "x FP32[batch,4]@0 -> \
         doubled FP32[batch,4]@0, positive BOOL[batch,4]@0, count INT64[batch,1]@0",
    ),
    ("no_batch", "x FP32[3,4] -> y FP32[3,2]"),
    ("scalar_f32", "x FP32[] -> y FP32[]"),
    (
        "text_encoder",
        "input_ids INT64[batch,seq]@0, attention_mask INT64[batch,seq]@0 -> \
         pooled FP32[batch,32]@0, token_scores FP32[batch,seq,5]@0",
    ),
    (
        "two_inputs",
        "a FP32[batch,4]@0, b FP32[batch,4]@0 -> sum FP32[batch,4]@0, diff FP32[batch,4]@0",
    ),
    ("two_versions", "x FP32[batch,1]@0 -> y FP32[batch,1]@0"),
    ("value_rows", "x FP32[batch,4]@0 -> y FP32[kept,4]@0"),
];

#[tokio::test]
async fn shipped_models_batch_on_their_own_axes() {
    let server = RealServer::start(&shipped(), &[("strict", "true")]).await;
    for (model, expected) in SHIPPED {
        assert_eq!(signature(&server, model), expected);
    }
    server.finish().await;
}

#[tokio::test]
async fn generated_models_batch_exactly_where_it_is_safe() {
    let server = RealServer::start(&generated(), &[]).await;
    for (model, expected) in GENERATED {
        assert_eq!(signature(&server, model), expected, "{model}");
    }
    let others = ["broken", "sequence_output"];
    for entry in server.repository.index() {
        let name = entry.key.name.as_str();
        let known = GENERATED.iter().any(|(model, _)| *model == name) || others.contains(&name);
        if !known {
            assert!(name.starts_with("identity_"), "{name} is in no table");
            let dtype = server.served(name).spec.inputs[0].dtype;
            let expected = format!("x {dtype}[batch,n]@0 -> y {dtype}[batch,n]@0");
            assert_eq!(signature(&server, name), expected);
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn first_runs_refute_what_the_signature_claims() {
    let source = generated().join("mixes_rows");
    let mut found = Vec::new();
    for config in ["batching = \"fixed\"", "batching = \"auto\""] {
        let models = repository(&[(source.as_path(), config)]);
        let server = RealServer::start(models.path(), &[]).await;
        found.push((signature(&server, "mixes_rows"), server.served("mixes_rows").max_rows()));
        server.finish().await;
    }
    let claimed = "x FP32[batch,4]@0 -> y FP32[batch,4]@0".to_owned();
    let shown = "x FP32[batch,4] -> y FP32[batch,4]".to_owned();
    assert_eq!(found, [(claimed, 4096), (shown, usize::MAX)]);
}

#[tokio::test]
async fn callers_of_a_model_that_mixes_rows_never_meet() {
    let server = RealServer::of("mixes_rows", "max_queue_delay_us = 20000").await;
    let ask = |caller: u8| {
        let row = floats(&[f32::from(caller); 4]);
        request("mixes_rows", vec![("x", "FP32", &[1, 4], row)])
    };
    // A row minus the mean of all rows is 0 for a row that ran alone.
    for end in server.together((1..=8).map(ask).collect()).await {
        assert_eq!(output(&end.unwrap(), 0), [0.0; 4]);
    }
    server.finish().await;
}

#[tokio::test]
async fn fixed_sizes_take_exactly_those_and_run_alone() {
    let models = ["fixed_one", "fixed_four", "batch_sum"].map(|model| generated().join(model));
    let sources: Vec<_> = models
        .iter()
        .map(|path| (path.as_path(), "batching = \"fixed\"\nmax_queue_delay_us = 20000"))
        .collect();
    let models = repository(&sources);
    let mut server = RealServer::start(models.path(), &[]).await;
    let ask = |model: &str, rows: i64, columns: i64| {
        let count = u8::try_from(rows * columns).unwrap();
        let values: Vec<f32> = (0..count).map(f32::from).collect();
        request(model, vec![("x", "FP32", &[rows, columns], floats(&values))])
    };
    for (model, rows, columns) in [("fixed_one", 2, 4), ("fixed_four", 3, 2), ("fixed_four", 8, 2)]
    {
        let status = server.refusal(ask(model, rows, columns)).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        let both = format!("got [{rows}, {columns}]");
        assert!(status.message().contains(&both), "{}", status.message());
    }
    for (model, rows, columns) in [("fixed_one", 1, 4), ("fixed_four", 4, 2), ("batch_sum", 2, 4)] {
        let messages = (0..6).map(|_| ask(model, rows, columns)).collect();
        let ends = server.together(messages).await;
        let first = ends[0].as_ref().unwrap();
        let expected: Vec<f32> = match model {
            "fixed_one" => vec![0.0, 2.0, 4.0, 6.0],
            "fixed_four" => (1..=8_u8).map(f32::from).collect(),
            _ => vec![4.0, 6.0, 8.0, 10.0],
        };
        assert_eq!(output(first, 0), expected, "{model}");
        for end in &ends {
            let answer = end.as_ref().unwrap();
            assert_eq!(answer.raw_output_contents, first.raw_output_contents, "{model}");
        }
        assert_eq!(server.statistics(model).await.execution_count, 6, "{model}");
    }
    server.finish().await;
}

#[test]
fn what_is_not_batched_says_why() {
    let reasons = [
        ("batch_sum", "output `y` has no axis for rows"),
        ("no_batch", "no input has a dynamic first axis"),
        ("fixed_one", "no input has a dynamic first axis"),
        ("fixed_four", "no input has a dynamic first axis"),
        ("scalar_f32", "no input has a dynamic first axis"),
    ];
    let config = Config::resolve(|_| None).unwrap().model;
    for (model, expected) in reasons {
        let key = ModelKey { name: ModelName::new(model).unwrap(), version: ModelVersion::FIRST };
        let path = generated().join(model).join("1/model.onnx");
        let loaded = loader().load(&ModelSource { key, path, sha256: None }, &config).unwrap();
        let (spec, reason) = axes::assign(loaded.spec, &BTreeMap::new()).unwrap();
        assert_eq!((spec.has_rows(), reason.as_deref()), (false, Some(expected)), "{model}");
    }
}

#[tokio::test]
async fn what_cannot_be_served_says_why_and_the_rest_serves() {
    let models = ["broken", "sequence_output", "two_inputs", "axis1_state", "identity_f32"];
    let sources = models.map(|model| generated().join(model));
    let config = |path: &std::path::PathBuf| match path.file_name().unwrap().to_str().unwrap() {
        "two_inputs" => "[inputs.c]\nshared = true",
        "axis1_state" => "[inputs.state]\nbatch_axis = 2",
        _ => "",
    };
    let listed: Vec<_> = sources.iter().map(|path| (path.as_path(), config(path))).collect();
    let models = repository(&listed);
    let server = RealServer::start(models.path(), &[]).await;
    let broken = server.failure("broken");
    assert!(broken.contains("no ONNX model"), "{broken}");
    let sequence = server.failure("sequence_output");
    assert!(sequence.starts_with("unsupported signature: output `y` is a "), "{sequence}");
    assert!(sequence.ends_with("; only tensors can be served"), "{sequence}");
    assert_eq!(server.failure("two_inputs"), "model.toml: no input or output is called `c`");
    assert_eq!(
        server.failure("axis1_state"),
        "model.toml: axis 2 of `state` is fixed to 3, so rows cannot be joined along it"
    );
    assert!(server.repository.is_ready());
    for model in ["broken", "sequence_output"] {
        let status = server.refusal(request(model, vec![])).await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(!status.message().contains("Protobuf"), "{}", status.message());
    }
    let served = request("identity_f32", vec![("x", "FP32", &[1, 1], floats(&[1.5]))]);
    assert_eq!(output(&server.infer(served).await, 0), [1.5]);
    server.finish().await;
}
