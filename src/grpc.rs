//! The gRPC data port: the Open Inference Protocol, health and reflection.
//!
//! The generated trait is implemented here and does no more than hand each call to the file that
//! knows it: [`inference`] and `stream` for predictions, `model` for descriptions, [`health`].
//! Below: `repository`. This room and `http` name messages; nobody else does.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceExt;

use crate::config::{ConnectionLimits, RequestLimits};
use crate::deadline::Deadline;
use crate::error::PredictError;
use crate::pb;
use crate::pb::server::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use crate::repository::control::ModelControl;
use crate::repository::{Repository, ServedModel};

pub mod calls;
mod classification;
pub mod codec;
mod connection;
mod control;
pub mod deadline;
pub mod health;
pub mod inference;
mod model;
mod parameters;
pub mod status;
mod stream;
mod typed;
pub mod wire;

use calls::OpenCalls;
use control::Audience;
use inference::{Inference, parse_version};
use status::status;

/// What the data port serves.
#[derive(Debug, Clone)]
pub struct GrpcServer {
    /// The models.
    pub repository: Arc<Repository>,
    /// Limits on requests.
    pub requests: RequestLimits,
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// Whether reflection is served.
    pub reflection: bool,
    /// Counts the calls that are open.
    pub open_calls: OpenCalls,
    /// Raised when the server stops: streams read no further.
    pub stopping: watch::Receiver<bool>,
}

impl GrpcServer {
    /// Serves `listener` until `stop` is done and every open call has ended. The second wait has
    /// no bound; drop the future to cut it short.
    ///
    /// # Errors
    /// A descriptor set that reflection cannot read, which is a fault of the build.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic_reflection::server::Error> {
        let routes = self.routes()?.prepare();
        // The framework reports a message above the limit as OUT_OF_RANGE; every other gRPC
        // implementation, and so every client, knows it as RESOURCE_EXHAUSTED.
        let service = ServiceExt::<http::Request<Body>>::map_response(routes, rename_too_large);
        connection::serve(listener, service, self.connections, self.open_calls, stop).await;
        Ok(())
    }

    fn routes(&self) -> Result<Routes, tonic_reflection::server::Error> {
        let service = InferenceService {
            inference: Inference::new(Arc::clone(&self.repository), self.requests),
            repository: Arc::clone(&self.repository),
            stopping: self.stopping.clone(),
            audience: Audience::Callers,
        };
        let inference = GrpcInferenceServiceServer::new(service)
            .max_decoding_message_size(self.requests.max_message_bytes)
            // An answer that a model has made is sent, whatever its size.
            .max_encoding_message_size(usize::MAX);
        let health = health::HealthService::new(Arc::clone(&self.repository));
        let health = tonic_health::pb::health_server::HealthServer::new(health);
        let mut routes = Routes::new(inference).add_service(health);
        if self.reflection {
            routes = routes.add_service(descriptors().build_v1()?);
            routes = routes.add_service(descriptors().build_v1alpha()?);
        }
        Ok(routes)
    }

    /// The part of the service that the operator's port has: descriptions, and models loaded and
    /// unloaded with `control`.
    ///
    /// # Errors
    /// A descriptor set that reflection cannot read, which is a fault of the build.
    pub fn operator(
        &self,
        control: Option<ModelControl>,
    ) -> Result<axum::Router, tonic_reflection::server::Error> {
        let service = InferenceService {
            inference: Inference::new(Arc::clone(&self.repository), self.requests),
            repository: Arc::clone(&self.repository),
            stopping: self.stopping.clone(),
            audience: Audience::Operator(control),
        };
        let mut routes = Routes::new(GrpcInferenceServiceServer::new(service));
        if self.reflection {
            routes = routes.add_service(descriptors().build_v1()?);
            routes = routes.add_service(descriptors().build_v1alpha()?);
        }
        // Without the framework's answer to unknown paths, which would hide "404".
        Ok(routes.into_axum_router().reset_fallback())
    }
}

fn descriptors() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// In a response without a body the status is a header.
fn rename_too_large<B>(mut response: http::Response<B>) -> http::Response<B> {
    const OUT_OF_RANGE: &str = "11";
    const RESOURCE_EXHAUSTED: http::HeaderValue = http::HeaderValue::from_static("8");
    if let Some(code) = response.headers_mut().get_mut("grpc-status")
        && *code == OUT_OF_RANGE
    {
        *code = RESOURCE_EXHAUSTED;
    }
    response
}

/// The same for the status of a message inside a stream.
fn adjust_status(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::resource_exhausted(status.message().to_owned()),
        _ => status,
    }
}

/// The generated trait's implementation.
#[derive(Debug)]
struct InferenceService {
    inference: Inference,
    repository: Arc<Repository>,
    stopping: watch::Receiver<bool>,
    audience: Audience,
}

impl InferenceService {
    fn resolve(&self, name: &str, version: &str) -> Result<Arc<ServedModel>, Status> {
        let resolve = || {
            let version = parse_version(version)?;
            self.repository.resolve(name, version)
        };
        resolve().map_err(|error: PredictError| status(&error, ""))
    }
}

fn not_served<T>(reason: &'static str) -> Result<Response<T>, Status> {
    Err(status(&PredictError::Unimplemented(reason), ""))
}

const NO_SHARED_MEMORY: &str = "shared memory with clients is not served: a region that a client \
     names is memory that it does not own; a Unix socket serves callers on the same host";
const OPERATORS: &str = "log and trace settings belong to the operator, not to callers";

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    async fn server_live(
        &self,
        _request: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.repository.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let pb::ModelReadyRequest { name, version } = request.into_inner();
        let version = parse_version(&version).map_err(|error| status(&error.into(), ""))?;
        let resolved = self.repository.resolve(&name, version).is_ok();
        let ready = resolved && !self.repository.is_draining();
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        Ok(Response::new(pb::ServerMetadataResponse {
            name: "onnxd".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: model::EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let pb::ModelMetadataRequest { name, version } = request.into_inner();
        let served = self.resolve(&name, &version)?;
        let versions = self.repository.ready_versions(&name);
        Ok(Response::new(model::metadata(&served, &versions)))
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        self.audience.may_predict()?;
        let now = Instant::now();
        let limits = self.inference.limits();
        let deadline = deadline::from_metadata(now, request.metadata(), limits)
            .map_err(|error| status(&error.into(), ""))?;
        self.inference.infer(request.into_inner(), now, deadline).await.map(Response::new)
    }

    type ModelStreamInferStream = stream::Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        self.audience.may_predict()?;
        let now = Instant::now();
        let asked = deadline::header(request.metadata())
            .map_err(|error| status(&error.into(), ""))?
            .map(|timeout| Deadline::after(now, timeout));
        let (service, stopping) = (self.inference.clone(), self.stopping.clone());
        Ok(Response::new(stream::answer(service, request.into_inner(), asked, stopping)))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let pb::ModelConfigRequest { name, version } = request.into_inner();
        let served = self.resolve(&name, &version)?;
        Ok(Response::new(pb::ModelConfigResponse { config: Some(model::config(&served)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let pb::ModelStatisticsRequest { name, version } = request.into_inner();
        let model_stats = if name.is_empty() {
            let all = self.repository.index();
            let served = all.iter().filter_map(|entry| entry.state.served());
            served.map(|served| model::statistics(served)).collect()
        } else if version.is_empty() {
            // Resolved too, so that an unknown model is an error and not an empty list.
            self.resolve(&name, "")?;
            let versions = self.repository.ready_versions(&name);
            versions.iter().map(|served| model::statistics(served)).collect()
        } else {
            vec![model::statistics(&*self.resolve(&name, &version)?)]
        };
        Ok(Response::new(pb::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        let ready_only = request.get_ref().ready;
        let with_reasons = self.audience.sees_reasons();
        let models = model::index(&self.repository, ready_only, with_reasons);
        Ok(Response::new(pb::RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        let request = request.into_inner();
        self.audience.load(&request.model_name, &request.parameters).await?;
        Ok(Response::new(pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        let request = request.into_inner();
        self.audience.unload(&request.model_name, &request.parameters).await?;
        Ok(Response::new(pb::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(pb::SystemSharedMemoryStatusResponse::default()))
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryRegisterResponse>, Status> {
        not_served(NO_SHARED_MEMORY)
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryUnregisterResponse>, Status> {
        not_served(NO_SHARED_MEMORY)
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryStatusResponse>, Status> {
        Ok(Response::new(pb::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryRegisterResponse>, Status> {
        not_served(NO_SHARED_MEMORY)
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryUnregisterResponse>, Status> {
        not_served(NO_SHARED_MEMORY)
    }

    async fn trace_setting(
        &self,
        _request: Request<pb::TraceSettingRequest>,
    ) -> Result<Response<pb::TraceSettingResponse>, Status> {
        not_served(OPERATORS)
    }

    async fn log_settings(
        &self,
        _request: Request<pb::LogSettingsRequest>,
    ) -> Result<Response<pb::LogSettingsResponse>, Status> {
        not_served(OPERATORS)
    }
}
