//! A server on real models, inside the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onnxd::app::{App, DrainReport, Listeners, StartError};
use onnxd::config::{Config, Origin};
use onnxd::onnx::{OnnxLoader, environment};
use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use onnxd::pb::model_infer_request::InferInputTensor;
use onnxd::pb::{ModelInferRequest, ModelInferResponse, ModelStatistics, ModelStatisticsRequest};
use onnxd::repository::{Repository, ServedModel, State};
use onnxd::runtime::library::{SearchPlaces, find};
use onnxd::runtime::processors::Processors;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// How one request ended.
pub(crate) type End = Result<ModelInferResponse, Status>;

/// Longest wait for anything. Reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The ONNX Runtime library: the one that the environment names, else the one that was fetched
/// last into the build folder.
pub(crate) fn library() -> PathBuf {
    let at = |explicit| find(&SearchPlaces { explicit: Some(explicit), ..SearchPlaces::default() });
    if let Some(named) = std::env::var_os("ONNXD_RUNTIME_LIBRARY").filter(|path| !path.is_empty()) {
        let found = at(named.into()).unwrap_or_else(|error| panic!("{error}"));
        return found.path;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["release", "debug"].map(|kind| format!("target/{kind}/onnxruntime"));
    let found = folders.iter().filter_map(|folder| at(root.join(folder)).ok());
    let fetched = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let newest = found.map(|found| found.path).max_by_key(fetched);
    newest.unwrap_or_else(|| {
        panic!(
            "no ONNX Runtime library in {}: `make build` fetches it, or set ONNXD_RUNTIME_LIBRARY",
            folders.join(" or ")
        )
    })
}

/// The loader on the library; one per process.
pub(crate) fn loader() -> OnnxLoader {
    static LOADER: OnceLock<OnnxLoader> = OnceLock::new();
    let make = || {
        let library = library();
        assert_eq!(
            std::env::var("ORT_DISABLE_TELEMETRY").as_deref(),
            Ok("1"),
            "run by cargo, whose settings keep ONNX Runtime from sending usage data, or set it"
        );
        let environment = environment::load(&library, false).unwrap();
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
    /// The operator's port.
    pub(crate) admin: SocketAddr,
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    running: JoinHandle<Result<DrainReport, StartError>>,
}

impl RealServer {
    /// A server of one generated model with this `model.toml`.
    pub(crate) async fn of(model: &str, config: &str) -> Self {
        let models = repository(&[(generated().join(model).as_path(), config)]);
        Self::start(models.path(), &[]).await
    }

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
        let admin = app.admin_addr().unwrap();
        let (shutdown, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async { drop(stopped.await) }, |_| {}));
        let mut changes = repository.subscribe();
        while !repository.is_loaded() {
            changes.changed().await.unwrap();
        }
        let client = connect(address).await;
        Self { repository, client, admin, address, shutdown, running }
    }

    /// A client on a connection of its own.
    pub(crate) async fn another_client(&self) -> Client {
        connect(self.address).await
    }

    /// A model that serves.
    pub(crate) fn served(&self, model: &str) -> Arc<ServedModel> {
        self.repository.resolve(model, None).unwrap()
    }

    /// Why a model could not be loaded.
    pub(crate) fn failure(&self, model: &str) -> String {
        let index = self.repository.index();
        let entry = index.into_iter().find(|entry| entry.key.name.as_str() == model).unwrap();
        match entry.state {
            State::Failed(reason) => reason,
            other => panic!("{model} is {other:?}"),
        }
    }

    /// Waits until so many runs of a model are under way. Each look lets other tasks run.
    pub(crate) async fn running(&self, model: &str, runs: usize) {
        let batcher = self.served(model).batcher.clone();
        let seen = async {
            while batcher.depth().running != runs {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, seen).await;
        waited.unwrap_or_else(|_| panic!("{model} has {:?}, not {runs} runs", batcher.depth()));
    }

    /// Counts of a model.
    pub(crate) async fn statistics(&mut self, model: &str) -> ModelStatistics {
        let request = ModelStatisticsRequest { name: model.into(), version: String::new() };
        let answer = self.client.model_statistics(request).await.unwrap().into_inner();
        answer.model_stats.into_iter().next().unwrap()
    }

    /// The answer to one message.
    pub(crate) async fn infer(&self, message: ModelInferRequest) -> ModelInferResponse {
        let model = message.model_name.clone();
        let end = self.client.clone().model_infer(message).await;
        end.unwrap_or_else(|status| panic!("{model}: {status}")).into_inner()
    }

    /// The status that one message ends with.
    pub(crate) async fn refusal(&self, message: ModelInferRequest) -> Status {
        let model = message.model_name.clone();
        match self.client.clone().model_infer(message).await {
            Ok(answer) => panic!("{model} answered {answer:?}"),
            Err(status) => status,
        }
    }

    /// Sends all messages at once; gives their ends in order.
    pub(crate) async fn together(&self, messages: Vec<ModelInferRequest>) -> Vec<End> {
        let mut callers = JoinSet::new();
        for (caller, message) in messages.into_iter().enumerate() {
            let mut client = self.client.clone();
            callers.spawn(async move {
                (caller, client.model_infer(message).await.map(tonic::Response::into_inner))
            });
        }
        let mut ends = callers.join_all().await;
        ends.sort_by_key(|(caller, _)| *caller);
        ends.into_iter().map(|(_, end)| end).collect()
    }

    /// Stops it; nothing may be left.
    pub(crate) async fn finish(self) {
        drop(self.client);
        self.shutdown.send(()).unwrap();
        let report = self.running.await.unwrap().unwrap();
        assert_eq!(report, DrainReport { abandoned: 0, complete: true });
    }
}

async fn connect(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let client = Client::new(endpoint.connect().await.unwrap());
    client.max_decoding_message_size(usize::MAX)
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

/// Numbers that look random and are the same each time.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number below `limit`.
    pub(crate) fn below(&mut self, limit: u16) -> u16 {
        // xorshift64: any generator will do.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u16::try_from(self.0 >> 48).unwrap() % limit
    }

    /// So many numbers from -0.5 to 0.5.
    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| f32::from(self.below(u16::MAX)) / f32::from(u16::MAX) - 0.5).collect()
    }
}
