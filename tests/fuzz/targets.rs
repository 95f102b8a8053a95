// Bodies of the fuzz targets: each takes any bytes, and must neither panic nor take long.

use std::io::Cursor;
use std::sync::LazyLock;
use std::time::SystemTime;

use bytes::Bytes;
use onnxd::access::table::{self, Table};
use onnxd::config::{Config, ModelConfig, RequestLimits, read_file, triton};
use onnxd::cost::file::CostFile;
use onnxd::cost::{AROUND_A_RUN, CostModel};
use onnxd::grpc::{codec, deadline, wire};
use onnxd::http::request;
use onnxd::model::ragged::Ragged;
use onnxd::model::{Dim, ModelSpec, TensorSpec};
use onnxd::pb::model_infer_request::InferInputTensor;
use onnxd::pb::{ModelInferRequest, ModelInferResponse};
use onnxd::repository::integrity::{external, manifest::Manifest};
use onnxd::request::{InferResponse, ValidRequest, validate};
use onnxd::tensor::rows::{Joined, Pad, split};
use onnxd::tensor::{DataType, Fill, Shape, Tensor};
use prost::Message;
use tokio::time::Instant;

/// Most rows of a request.
const MAX_ROWS: usize = 8;

fn tensor(name: &str, dtype: DataType, dims: Vec<Dim>, batch_axis: Option<usize>) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, dims, batch_axis, reshape: None, ragged: None }
}

/// Signatures that a mutated request can meet by chance: every kind of dimension and input, rows
/// on another axis, rows of any length, no rows at all.
fn specs() -> [ModelSpec; 3] {
    let rows = || Dim::Dynamic(Some("batch".into()));
    let size = || Dim::Dynamic(Some("n".into()));
    let any = || Dim::Dynamic(None);
    let padded = Ragged::Padded(Pad { axis: 1, fill: Fill::zero(DataType::Fp32) });
    let long = TensorSpec {
        ragged: Some(padded),
        ..tensor("x", DataType::Fp32, vec![rows(), any()], Some(0))
    };
    let outputs = |axis| vec![tensor("y", DataType::Fp32, vec![rows()], axis)];
    [
        ModelSpec {
            inputs: vec![
                long,
                tensor("s", DataType::Bytes, vec![rows()], Some(0)),
                tensor("k", DataType::Int64, vec![], None),
            ],
            outputs: outputs(Some(0)),
        },
        ModelSpec {
            inputs: vec![
                tensor("x", DataType::Fp16, vec![Dim::Fixed(2), rows(), size()], Some(1)),
                tensor("s", DataType::Bytes, vec![size(), rows(), any()], Some(1)),
                tensor("k", DataType::Bytes, vec![any()], None),
            ],
            outputs: outputs(Some(0)),
        },
        ModelSpec {
            inputs: vec![tensor("x", DataType::Bool, vec![Dim::Fixed(2), any()], None)],
            outputs: outputs(None),
        },
    ]
}

/// A message: bounded, decoded, taken apart, held against signatures, joined and cut, echoed.
pub(crate) fn decode(data: &[u8]) {
    let bounded = wire::check(data);
    if bounded.is_err() {
        return;
    }
    let Ok(message) = ModelInferRequest::decode(Bytes::copy_from_slice(data)) else { return };
    assert_bounds(&message);
    let Ok((request, answer)) = codec::decode(message) else { return };
    for spec in specs() {
        if let Ok(valid) = validate(request.clone(), &spec, MAX_ROWS) {
            assert_valid(&valid, &spec);
        }
    }
    let [spec, _, _] = specs();
    let tensors: Vec<_> = request.inputs.into_iter().map(|input| input.tensor).collect();
    let response = InferResponse {
        outputs: tensors.iter().cloned().enumerate().collect(),
        started_at: Instant::now(),
        batch_rows: 1,
    };
    let Ok(echoed) = codec::encode(response, &spec, &answer, |_| &[]) else {
        assert!(answer.classes.iter().any(Option::is_some), "only classes can be refused here");
        return;
    };
    if answer.classes.iter().any(Option::is_some) {
        return;
    }
    assert_eq!(echoed.outputs.len(), tensors.len());
    let again = codec::decode(as_request(echoed)).map(|(request, _)| request.inputs);
    let again: Vec<_> = again.unwrap_or_default().into_iter().map(|input| input.tensor).collect();
    assert_eq!(again.len(), tensors.len(), "what is sent can be read");
    for (one, other) in again.iter().zip(&tensors) {
        assert_eq!((one.dtype(), one.shape()), (other.dtype(), other.shape()));
        assert!(one.data() == other.data(), "bit for bit");
    }
}

/// The body of a prediction over REST: two bytes with the length of the JSON, the JSON, bytes.
pub(crate) fn rest_body(data: &[u8]) {
    /// What lists of numbers may amount to.
    const ROOM: usize = 1 << 16;
    let Some((length, body)) = data.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(body.len());
    let (text, bytes) = body.split_at(length);
    match request::parse(text, Bytes::copy_from_slice(bytes), ROOM) {
        Ok(parsed) => {
            assert_bounds(&parsed.message);
            let raw = &parsed.message.raw_input_contents;
            assert_eq!(raw.len(), parsed.message.inputs.len(), "all of it is in raw form");
            let strings = 5 * text.len();
            assert!(raw.iter().map(Bytes::len).sum::<usize>() <= ROOM + strings + bytes.len());
            let Ok((request, _)) = codec::decode(parsed.message) else { return };
            for spec in specs() {
                if let Ok(valid) = validate(request.clone(), &spec, MAX_ROWS) {
                    assert_valid(&valid, &spec);
                }
            }
        }
        Err(failure) => {
            let told = format!("{failure:?}");
            assert!(told.len() < 1000, "a mistake has few words: {told}");
        }
    }
}

/// Which of the signatures the body of a prediction over REST fits.
pub(crate) fn rest_fitting(data: &[u8]) -> [bool; 3] {
    let Some((length, body)) = data.split_first_chunk::<2>() else { return [false; 3] };
    let (text, bytes) = body.split_at(usize::from(u16::from_le_bytes(*length)).min(body.len()));
    let parsed = request::parse(text, Bytes::copy_from_slice(bytes), usize::MAX).ok();
    let request = parsed.and_then(|parsed| codec::decode(parsed.message).ok());
    let Some((request, _)) = request else { return [false; 3] };
    specs().map(|spec| validate(request.clone(), &spec, MAX_ROWS).is_ok())
}

/// Which of the signatures a message fits.
pub(crate) fn fitting(data: &[u8]) -> [bool; 3] {
    let request = ModelInferRequest::decode(data).ok().and_then(|it| codec::decode(it).ok());
    let Some((request, _)) = request else { return [false; 3] };
    specs().map(|spec| validate(request.clone(), &spec, MAX_ROWS).is_ok())
}

/// The walk over the tags has seen whatever the decoder made of them.
fn assert_bounds(message: &ModelInferRequest) {
    let tensors = [message.inputs.len(), message.outputs.len(), message.raw_input_contents.len()];
    assert!(tensors.iter().all(|count| *count <= wire::MAX_TENSORS));
    assert!(message.parameters.len() <= wire::MAX_PARAMETERS);
    let mut strings = 0;
    for input in &message.inputs {
        assert!(input.shape.len() <= wire::MAX_DIMS);
        assert!(input.parameters.len() <= wire::MAX_PARAMETERS);
        strings += input.contents.as_ref().map_or(0, |contents| contents.bytes_contents.len());
    }
    assert!(strings <= wire::MAX_TYPED_STRINGS);
    let mut outputs = message.outputs.iter();
    assert!(outputs.all(|output| output.parameters.len() <= wire::MAX_PARAMETERS));
}

/// A request that fits keeps its rows apart when it is joined with itself.
fn assert_valid(valid: &ValidRequest, spec: &ModelSpec) {
    assert!((1..=MAX_ROWS).contains(&valid.rows()));
    assert_eq!(valid.inputs().len(), spec.inputs.len());
    assert_eq!(valid.byte_size(), valid.inputs().iter().map(Tensor::byte_size).sum::<usize>());
    assert!(spec.has_rows() || valid.batch_key().is_none());
    if valid.batch_key().is_none() {
        return;
    }
    for (input, declared) in valid.inputs().iter().zip(&spec.inputs) {
        let length = declared.length_axis().map(|axis| input.shape().dim(axis));
        assert!(length.is_none_or(|length| length == Some(valid.length())));
        let Ok(joined) = Joined::new(vec![input; 2], declared.batch_axis) else {
            unreachable!("requests of one key can be joined")
        };
        let Some(axis) = declared.batch_axis else {
            assert_eq!(joined.shape(), input.shape());
            continue;
        };
        let parts = split(&whole(&joined), axis, &[valid.rows(); 2]).unwrap_or_default();
        assert!(parts.len() == 2 && parts.iter().all(|part| part.data() == input.data()));
    }
}

/// The tensor that an executor would see.
fn whole(joined: &Joined<'_>) -> Tensor {
    let shape = Shape::new(joined.shape().dims().to_vec());
    let tensor = shape.map(|shape| {
        if joined.dtype() == DataType::Bytes {
            let elements = joined.string_elements().into_iter().cloned().collect();
            return Tensor::strings(shape, elements);
        }
        let mut bytes = vec![0; joined.byte_len()];
        joined.copy_to(&mut bytes);
        Tensor::dense(joined.dtype(), shape, bytes.into())
    });
    let Ok(Ok(tensor)) = tensor else { unreachable!("joined parts make a tensor") };
    tensor
}

/// An answer as somebody's next request.
fn as_request(answer: ModelInferResponse) -> ModelInferRequest {
    let inputs = answer.outputs.into_iter().map(|output| InferInputTensor {
        name: output.name,
        datatype: output.datatype,
        shape: output.shape,
        contents: output.contents,
        ..InferInputTensor::default()
    });
    ModelInferRequest {
        inputs: inputs.collect(),
        raw_input_contents: answer.raw_output_contents,
        ..ModelInferRequest::default()
    }
}

/// The raw form of BYTES: two bytes with the number of elements, then the contents.
pub(crate) fn strings(data: &[u8]) {
    let Some((count, raw)) = data.split_first_chunk::<2>() else { return };
    let count = u16::from_le_bytes(*count);
    let raw = Bytes::copy_from_slice(raw);
    let input = InferInputTensor {
        name: "s".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![count.into()],
        ..InferInputTensor::default()
    };
    let message = ModelInferRequest {
        inputs: vec![input],
        raw_input_contents: vec![raw.clone()],
        ..ModelInferRequest::default()
    };
    let Ok((request, answer)) = codec::decode(message) else { return };
    let tensor = request.inputs[0].tensor.clone();
    assert_eq!(tensor.string_elements().len(), usize::from(count));
    let octets: usize = tensor.string_elements().iter().map(Bytes::len).sum();
    assert_eq!(octets + 4 * usize::from(count), raw.len());
    let [spec, _, _] = specs();
    let response =
        InferResponse { outputs: vec![(0, tensor)], started_at: Instant::now(), batch_rows: 1 };
    let echoed = codec::encode(response, &spec, &answer, |_| &[]);
    assert_eq!(echoed.unwrap_or_default().raw_output_contents, [raw]);
}

/// The defaults.
fn settings() -> &'static Config {
    static SETTINGS: LazyLock<Config> = LazyLock::new(|| {
        let Ok(config) = Config::resolve(|_| None) else { unreachable!("defaults resolve") };
        config
    });
    &SETTINGS
}

/// A `grpc-timeout` header.
pub(crate) fn grpc_timeout(data: &[u8]) {
    let Ok(value) = tonic::metadata::AsciiMetadataValue::try_from(data) else { return };
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("grpc-timeout", value);
    let asked = deadline::header(&metadata);
    if let Ok(timeout) = &asked {
        assert!(timeout.is_some());
        assert!((2..=9).contains(&data.len()));
    }
    let limits: &RequestLimits = &settings().requests;
    let now = Instant::now();
    match deadline::from_metadata(now, &metadata, limits) {
        Ok(deadline) => assert!(deadline.remaining(now) <= limits.max_timeout),
        Err(_) => assert!(asked.is_err()),
    }
}

/// A `costs.toml`.
pub(crate) fn costs_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match CostFile::parse(text) {
        Ok(file) => {
            let mut costs = CostModel::new(64, AROUND_A_RUN);
            for point in &file.points {
                point.tell(&mut costs);
            }
            for length in [1, 8, 576, usize::MAX] {
                assert!((1..=64).contains(&costs.best_rows(length, 64)));
            }
            if let Ok(again) = file.to_text() {
                assert_eq!(CostFile::parse(&again), Ok(file), "what is written can be read");
            }
        }
        Err(error) => assert!(error.to_string().len() < 1000, "a mistake has few words"),
    }
}

/// A `model.toml`.
pub(crate) fn model_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ModelConfig::parse(text, &settings().model) {
        Ok(model) => {
            assert!(model.max_batch_size >= 1 && model.instances >= 1);
            assert!(model.max_request_rows >= 1);
            assert!(!model.providers.is_empty() && !model.device_ids.is_empty());
            assert!(model.device_ids.iter().all(|id| *id >= 0));
            assert!(model.examples.values().flatten().all(|size| *size > 0));
        }
        Err(errors) => assert!(!errors.to_string().is_empty(), "a mistake has words"),
    }
}

/// An `access.toml`; after a zero byte, the keys beside it.
pub(crate) fn access_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, keys) = text.split_once('\0').unwrap_or((text, "{}"));
    let made = table::parse(text).and_then(|written| written.table(Some(keys)));
    match made {
        Ok(table) => assert_eq!(table.name(b"Bearer ", SystemTime::UNIX_EPOCH), None),
        Err(problem) => assert!(!problem.is_empty() && problem.len() < 1000 + data.len()),
    }
}

/// One token of each kind is known.
const ACCESS: &str = r#"
    [[token]]
    name = "ci"
    sha256 = "8070ed5cbb72fe832fe5a6afc19a5a810ae1ed0cbf4403892fdb5e35e29ff0c5"
    [jwt]
    issuer = "https://login"
    audience = "onnxd"
    algorithms = ["RS256", "PS384"]
    keys = "jwks.json"
    [[grant]]
    to = ["*"]
    models = ["*"]
    rights = ["infer"]
"#;

/// The value of an `authorization` header: whose it is, if anybody's.
pub(crate) fn known(data: &[u8]) -> Option<String> {
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        let keys = include_str!("../data/jwt/jwks.json");
        let made = table::parse(ACCESS).and_then(|written| written.table(Some(keys)));
        let Ok(table) = made else { unreachable!("the file is right") };
        table
    });
    TABLE.name(data, SystemTime::now())
}

/// The same, for its own sake.
pub(crate) fn credentials(data: &[u8]) {
    if let Some(name) = known(data) {
        // Nobody becomes somebody else by a few other bytes.
        assert!(name == "token:ci" || name == "jwt:svc");
    }
}

/// A list of sums.
pub(crate) fn sums(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problem) = Manifest::parse(text) {
        assert!(problem.len() < 1000, "a mistake has few words");
    }
}

/// A model file, as far as it is read for the files that it names.
pub(crate) fn model_file(data: &[u8]) {
    let Ok(found) = external::walk(Cursor::new(data), data.len() as u64) else { return };
    for tensor in &found {
        assert!(!tensor.location.is_empty() && tensor.location.len() <= data.len());
    }
}

/// A `config.pbtxt`.
pub(crate) fn config_pbtxt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match triton::parse(text, "m", &settings().model) {
        Ok(imported) => {
            let model = &imported.config;
            assert!(model.max_batch_size >= 1 && model.instances >= 1);
            assert!(model.max_request_rows >= 1);
            assert!(!model.providers.is_empty() && !model.device_ids.is_empty());
            assert!(model.device_ids.iter().all(|id| *id >= 0));
            assert!(model.examples.values().flatten().all(|size| *size > 0));
            assert!(!model.model_file.contains('/') && !model.model_file.is_empty());
            assert_eq!(imported.warning().is_some(), !imported.ignored.is_empty());
            // Whatever it says, it fits these models or there are words for why not.
            for spec in specs() {
                match model.declared.apply(spec, &model.axes) {
                    Ok((spec, _)) => assert!(spec.rows_lead() || !spec.inputs.is_empty()),
                    Err(problems) => assert!(problems.iter().all(|problem| !problem.is_empty())),
                }
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty(), "a mistake has words"),
    }
}

/// An `onnxd.toml`.
pub(crate) fn onnxd_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(read_file(text));
}
