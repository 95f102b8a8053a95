//! A server inside the test: bound to ports of the system's choice, stopped and joined at the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use onnxd::app::{App, DrainReport, Listeners, StartError};
use onnxd::config::{Config, Origin};
use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use onnxd::pb::model_infer_request::InferInputTensor;
use onnxd::pb::{ModelInferRequest, ModelInferResponse, ModelStatistics, ModelStatisticsRequest};
use onnxd::repository::Repository;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};

use crate::scripted::{NAMES, ScriptedLoader, lay_out};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// A client on a bare HTTP/2 connection.
pub(crate) type PatientClient = GrpcInferenceServiceClient<Bare>;

/// An HTTP/2 connection as the generated client wants it.
#[derive(Debug, Clone)]
pub(crate) struct Bare(http2::SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn patient_client(address: SocketAddr) -> PatientClient {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let origin = format!("http://{address}").parse().unwrap();
    GrpcInferenceServiceClient::with_origin(Bare(sender), origin)
}

/// Longest wait for anything; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct TestServer {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) repository: Arc<Repository>,
    pub(crate) loader: ScriptedLoader,
    shutdown: oneshot::Sender<()>,
    running: JoinHandle<Result<DrainReport, StartError>>,
    pub(crate) models: tempfile::TempDir,
}

impl TestServer {
    /// A ready server with all scripted models and the given settings over the defaults.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let server = Self::start_with(settings, &NAMES, ScriptedLoader::default()).await;
        server.loaded().await;
        server
    }

    /// A server with these models, which may still be loading.
    pub(crate) async fn start_with(
        settings: &[(&str, &str)],
        names: &[&str],
        loader: ScriptedLoader,
    ) -> Self {
        let models = tempfile::tempdir().unwrap();
        lay_out(models.path(), names);
        let config = config(settings);
        let listeners = Listeners::bind(&config).await.unwrap();
        let path = models.path().to_owned();
        let app = App::build(config, path, Arc::new(loader.clone()), listeners, "script");
        let repository = Arc::clone(app.repository());
        let (grpc, http, admin) =
            (app.grpc_addr().unwrap(), app.http_addr().unwrap(), app.admin_addr().unwrap());
        let (shutdown, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async { drop(stopped.await) }, |_| {}));
        Self { grpc, http, admin, repository, loader, shutdown, running, models }
    }

    /// Why a server with these settings cannot listen.
    pub(crate) async fn cannot_bind(settings: &[(&str, &str)]) -> String {
        Listeners::bind(&config(settings)).await.unwrap_err().to_string()
    }

    /// A client, and what is done when the server has closed its connection.
    pub(crate) async fn watched_client(&self) -> (PatientClient, JoinHandle<()>) {
        let stream = tokio::net::TcpStream::connect(self.grpc).await.unwrap();
        let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.unwrap();
        let closed = tokio::spawn(async move { drop(connection.await) });
        let origin = format!("http://{}", self.grpc).parse().unwrap();
        (GrpcInferenceServiceClient::with_origin(Bare(sender), origin), closed)
    }

    /// Waits until every model was tried.
    pub(crate) async fn loaded(&self) {
        let mut changes = self.repository.subscribe();
        while !self.repository.is_loaded() {
            changes.changed().await.unwrap();
        }
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        GrpcInferenceServiceClient::new(self.channel().await)
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    /// A client of the operator's port.
    pub(crate) async fn operator(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.admin)).unwrap();
        GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap())
    }

    /// What the server says of a model's requests and runs.
    pub(crate) async fn statistics(&self, model: &str) -> ModelStatistics {
        let message = ModelStatisticsRequest { name: model.into(), version: String::new() };
        let answer = self.client().await.model_statistics(message).await.unwrap();
        answer.into_inner().model_stats.remove(0)
    }

    /// Waits until something about the models is as wanted.
    pub(crate) async fn until(&self, is_so: impl Fn(&Repository) -> bool) {
        let mut changes = self.repository.subscribe();
        let so = async {
            while !is_so(&self.repository) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, so).await.unwrap();
    }

    /// Waits until the series with this name and labels has a value that fits.
    pub(crate) async fn counted(&self, series: &str, fits: impl Fn(u64) -> bool) {
        let mut last = None;
        let reached = async {
            while !last.is_some_and(&fits) {
                let text = metrics(self.admin).await;
                let value = text.lines().find_map(|line| line.strip_prefix(series));
                last = value.map(|value| value.trim().parse().unwrap());
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{series}: {last:?}");
    }

    /// A client that leaves `grpc-timeout` to the server; the usual one watches it by itself.
    pub(crate) async fn patient_client(&self) -> PatientClient {
        patient_client(self.grpc).await
    }

    /// Asks the server to stop; the handle gives the report.
    pub(crate) fn shut_down(self) -> JoinHandle<Result<DrainReport, StartError>> {
        self.shutdown.send(()).unwrap();
        self.running
    }

    /// Waits for the end of a server that ends by itself.
    pub(crate) async fn ended(self) -> Result<DrainReport, StartError> {
        self.running.await.unwrap()
    }

    /// Stops the server and checks that nothing is left: no request, no byte.
    pub(crate) async fn finish(self) {
        let models: Vec<_> =
            NAMES.iter().flat_map(|name| self.repository.ready_versions(name)).collect();
        let report = self.shut_down().await.unwrap().unwrap();
        assert_eq!(report, DrainReport { abandoned: 0, complete: true });
        for model in models {
            let depth = model.batcher.depth();
            assert_eq!((depth.jobs, depth.rows, depth.running), (0, 0, 0), "{}", model.key);
        }
    }
}

/// Settings over those of a test.
fn config(settings: &[(&str, &str)]) -> Config {
    // No first runs, so that tests see their own runs only; rows meet up to the maximum.
    let mut given: BTreeMap<&str, &str> = BTreeMap::from([
        ("grpc_addr", "127.0.0.1:0"),
        ("http_addr", "127.0.0.1:0"),
        ("admin_addr", "127.0.0.1:0"),
        ("warmup_ms", "0"),
        ("batching", "fixed"),
    ]);
    given.extend(settings.iter().copied());
    Config::resolve(|key| given.get(key).map(|text| ((*text).to_owned(), Origin::Flag))).unwrap()
}

/// A request with one row per value.
pub(crate) fn request(model: &str, values: &[f32]) -> ModelInferRequest {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![i64::try_from(values.len()).unwrap(), 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

/// The values of an answer.
pub(crate) fn values(response: &ModelInferResponse) -> Vec<f32> {
    response.raw_output_contents[0]
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

/// Waits until so many requests wait in a model's queue. Each look lets other tasks run.
pub(crate) async fn queued(server: &TestServer, model: &str, jobs: usize) {
    let served = server.repository.resolve(model, None).unwrap();
    while served.batcher.depth().jobs != jobs {
        tokio::task::yield_now().await;
    }
}

/// What the operator's port tells to a scraper.
pub(crate) async fn metrics(address: SocketAddr) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let question = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(question).await.unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).await.unwrap();
    heard
}
