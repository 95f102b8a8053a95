// Bodies of the fuzz targets: each takes any bytes and must neither panic nor take long.

use bytes::Bytes;
use onnxd::config::{Config, ModelConfig, read_file};
use onnxd::grpc::{codec, deadline, wire};
use onnxd::model::{Dim, ModelSpec, TensorSpec};
use onnxd::pb::ModelInferRequest;
use onnxd::request::{InferResponse, validate};
use onnxd::tensor::DataType;
use prost::Message;

/// A signature that a mutated request can meet by chance: every kind of dimension and input.
fn spec() -> ModelSpec {
    let rows = || Dim::Dynamic(Some("batch".into()));
    let tensor = |name: &str, dtype, dims, batch_axis| TensorSpec {
        name: name.into(),
        dtype,
        dims,
        batch_axis,
    };
    ModelSpec {
        inputs: vec![
            tensor("x", DataType::Fp32, vec![rows(), Dim::Dynamic(None)], Some(0)),
            tensor("s", DataType::Bytes, vec![rows()], Some(0)),
            tensor("k", DataType::Int64, vec![], None),
        ],
        outputs: vec![tensor("y", DataType::Fp32, vec![rows()], Some(0))],
    }
}

/// A message: bounded, decoded, taken apart, held against a signature, echoed.
pub(crate) fn decode(data: &[u8]) {
    if wire::check(data).is_err() {
        return;
    }
    let Ok(message) = ModelInferRequest::decode(Bytes::copy_from_slice(data)) else { return };
    let Ok((request, form)) = codec::decode(message) else { return };
    let tensors: Vec<_> = request.inputs.iter().map(|input| input.tensor.clone()).collect();
    if let Ok(valid) = validate(request, &spec(), 8) {
        assert!((1..=8).contains(&valid.rows()));
        assert_eq!(valid.inputs().len(), 3);
    }
    let response = InferResponse {
        outputs: tensors.into_iter().enumerate().collect(),
        started_at: tokio::time::Instant::now(),
        batch_rows: 1,
    };
    let count = response.outputs.len();
    let echoed = codec::encode(response, &spec(), form);
    assert_eq!(echoed.outputs.len(), count);
}

/// A `grpc-timeout` header.
pub(crate) fn grpc_timeout(data: &[u8]) {
    let Ok(value) = tonic::metadata::AsciiMetadataValue::try_from(data) else { return };
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("grpc-timeout", value);
    if let Ok(timeout) = deadline::header(&metadata) {
        assert!(timeout.is_some());
        assert!((2..=9).contains(&data.len()));
    }
}

/// A `model.toml`.
pub(crate) fn model_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(config) = Config::resolve(|_| None) else { return };
    if let Ok(model) = ModelConfig::parse(text, &config.model) {
        assert!(model.max_batch_size >= 1 && model.instances >= 1);
        assert!(!model.providers.is_empty());
    }
}

/// An `onnxd.toml`.
pub(crate) fn onnxd_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(read_file(text));
}
