//! A server on real models, inside the test.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use onnxd::app::{App, DrainReport, Listeners, StartError};
use onnxd::config::{Config, Origin};
use onnxd::onnx::{OnnxLoader, environment};
use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use onnxd::pb::model_infer_request::InferInputTensor;
use onnxd::pb::{ModelInferRequest, ModelInferResponse, ModelStatistics, ModelStatisticsRequest};
use onnxd::repository::Repository;
use onnxd::runtime::library::{SearchPlaces, find};
use onnxd::runtime::processors::Processors;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// The loader on the library that `make build` fetched; one per process.
pub(crate) fn loader() -> OnnxLoader {
    static LOADER: OnceLock<OnnxLoader> = OnceLock::new();
    let make = || {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let explicit = std::env::var_os("ONNXD_RUNTIME_LIBRARY").map(PathBuf::from);
        let library = explicit.unwrap_or_else(|| root.join("target/release/onnxruntime"));
        let places = SearchPlaces { explicit: Some(library), ..SearchPlaces::default() };
        let found = find(&places).expect("`make build` fetches ONNX Runtime for these tests");
        let environment = environment::load(&found.path, false).unwrap();
        OnnxLoader::new(environment, Processors::new(NonZeroUsize::MIN))
    };
    LOADER.get_or_init(make).clone()
}

/// The shipped models.
pub(crate) fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// The small generated models.
pub(crate) fn generated() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/models")
}

/// A repository with copies of some models, each with a `model.toml`.
pub(crate) fn repository(models: &[(&Path, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (source, config) in models {
        let target = root.path().join(source.file_name().unwrap());
        for version in std::fs::read_dir(source).unwrap().flatten() {
            let (from, name) = (version.path().join("model.onnx"), version.file_name());
            if from.is_file() {
                std::fs::create_dir_all(target.join(&name)).unwrap();
                std::fs::copy(from, target.join(&name).join("model.onnx")).unwrap();
            }
        }
        std::fs::write(target.join("model.toml"), config).unwrap();
    }
    root
}

/// A running server.
pub(crate) struct RealServer {
    pub(crate) repository: Arc<Repository>,
    pub(crate) client: Client,
    shutdown: oneshot::Sender<()>,
    running: JoinHandle<Result<DrainReport, StartError>>,
}

impl RealServer {
    /// A server that has tried every model of `models`.
    pub(crate) async fn start(models: &Path, settings: &[(&str, &str)]) -> Self {
        let mut given: BTreeMap<&str, &str> = BTreeMap::from([
            ("grpc_addr", "127.0.0.1:0"),
            ("http_addr", "127.0.0.1:0"),
            ("admin_addr", "127.0.0.1:0"),
        ]);
        given.extend(settings.iter().copied());
        let value = |key: &str| given.get(key).map(|text| ((*text).to_owned(), Origin::Flag));
        let config = Config::resolve(value).unwrap();
        let listeners = Listeners::bind(&config).await.unwrap();
        let app = App::build(config, models.to_owned(), Arc::new(loader()), listeners, "test");
        let (repository, address) = (Arc::clone(app.repository()), app.grpc_addr().unwrap());
        let (shutdown, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async { drop(stopped.await) }, |_| {}));
        let mut changes = repository.subscribe();
        while !repository.is_loaded() {
            changes.changed().await.unwrap();
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let client = Client::new(endpoint.connect().await.unwrap());
        Self { repository, client, shutdown, running }
    }

    /// Counts of a model.
    pub(crate) async fn statistics(&mut self, model: &str) -> ModelStatistics {
        let request = ModelStatisticsRequest { name: model.into(), version: String::new() };
        let answer = self.client.model_statistics(request).await.unwrap().into_inner();
        answer.model_stats.into_iter().next().unwrap()
    }

    /// Stops it; nothing may be left.
    pub(crate) async fn finish(self) {
        drop(self.client);
        self.shutdown.send(()).unwrap();
        let report = self.running.await.unwrap().unwrap();
        assert_eq!(report, DrainReport { abandoned: 0, complete: true });
    }
}

/// An input of a request: name, datatype, shape, little-endian contents.
pub(crate) type Input<'a> = (&'a str, &'a str, &'a [i64], Vec<u8>);

/// A raw request.
pub(crate) fn request(model: &str, inputs: Vec<Input<'_>>) -> ModelInferRequest {
    let mut message = ModelInferRequest { model_name: model.into(), ..Default::default() };
    for (name, datatype, shape, contents) in inputs {
        message.inputs.push(InferInputTensor {
            name: name.into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        });
        message.raw_input_contents.push(contents.into());
    }
    message
}

/// Little-endian bytes of floats.
pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Floats of an output.
pub(crate) fn output(response: &ModelInferResponse, index: usize) -> Vec<f32> {
    response.raw_output_contents[index]
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

/// Numbers from 0 to 1 that look random and are the same each time.
pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(u16::try_from(state >> 48).unwrap()) / f32::from(u16::MAX)
    };
    (0..count).map(|_| next()).collect()
}
