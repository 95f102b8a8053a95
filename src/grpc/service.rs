//! Every RPC of the protocol, each handed to the file that knows it: `inference` and `stream` for
//! predictions, `model` for descriptions, `control` for loading. What is not served says why.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::control::Audience;
use super::inference::{Call, Failure, Inference, Sender, parse_version};
use super::status::{denied, status};
use super::stream::Whole;
use super::{deadline, model, request_id, stream};
use crate::access::{Access, Caller};
use crate::config::RequestLimits;
use crate::connection::Lay;
use crate::deadline::Deadline;
use crate::error::{PredictError, Right};
use crate::pb;
use crate::pb::server::grpc_inference_service_server::GrpcInferenceService;
use crate::repository::{Repository, ServedModel};
use crate::telemetry::traces::{CallTrace, Traces};

/// The generated trait's implementation.
#[derive(Debug)]
pub struct InferenceService {
    pub(super) inference: Inference,
    pub(super) repository: Arc<Repository>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) access: Access,
    pub(super) audience: Audience,
    pub(super) traces: Traces,
}

impl InferenceService {
    /// Limits on requests.
    pub fn limits(&self) -> &RequestLimits {
        self.inference.limits()
    }

    /// Where spans of calls go.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Answers one message, whatever brought it.
    ///
    /// # Errors
    /// The status of whatever it ended with; see [`mod@super::status`].
    pub async fn infer(
        &self,
        request: pb::ModelInferRequest,
        call: Call,
    ) -> Result<pb::ModelInferResponse, Status> {
        self.audience.may_predict()?;
        self.inference.infer(request, call).await
    }

    /// The same, with what it ended with before that is put into words.
    pub(super) async fn answer(
        &self,
        request: pb::ModelInferRequest,
        call: Call,
    ) -> Result<pb::ModelInferResponse, Failure> {
        self.inference.answer(request, call).await
    }

    /// When a call that arrived at `now` with these headers is worth nothing any more.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a header that is not a timeout.
    pub(super) fn deadline(
        &self,
        now: Instant,
        metadata: &MetadataMap,
    ) -> Result<Deadline, Status> {
        deadline::from_metadata(now, metadata, self.limits())
            .map_err(|error| status(&error.into(), ""))
    }

    /// Whose a call with these extensions is.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a call that has passed no gate, where there has to be one.
    pub fn sender(&self, extensions: &http::Extensions) -> Result<Sender, Status> {
        Sender::of(extensions, &self.access)
    }

    /// Who makes a call that needs a known caller.
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        self.access.caller(request.extensions()).map_err(|denial| denied(&denial))
    }

    /// Lets a call go on whose caller has a right to that model.
    fn allow<T>(&self, request: &Request<T>, right: Right, model: &str) -> Result<(), Status> {
        self.caller(request)?.may(right, model).map_err(|denial| denied(&denial))
    }

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
        self.allow(&request, Right::Describe, &request.get_ref().name)?;
        let pb::ModelReadyRequest { name, version } = request.into_inner();
        let version = parse_version(&version).map_err(|error| status(&error.into(), ""))?;
        let resolved = self.repository.resolve(&name, version).is_ok();
        let ready = resolved && !self.repository.is_draining();
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        request: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        self.caller(&request)?;
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
        self.allow(&request, Right::Describe, &request.get_ref().name)?;
        let pb::ModelMetadataRequest { name, version } = request.into_inner();
        let served = self.resolve(&name, &version)?;
        let versions = self.repository.ready_versions(&name);
        Ok(Response::new(model::metadata(&served, &versions)))
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let arrived_at = Instant::now();
        let lay = request.extensions().get::<Lay>();
        let came_at = lay.map_or(arrived_at, |lay| lay.came_at(arrived_at));
        let deadline = self.deadline(came_at, request.metadata())?;
        let sender = self.sender(request.extensions())?;
        let trace = request.extensions().get::<CallTrace>().cloned();
        let request_id = request_id::of(request.metadata().as_ref());
        let own = &request.get_ref().id;
        let told = request_id::told(if own.is_empty() {
            request_id.as_deref().unwrap_or_default()
        } else {
            own
        });
        let call = Call { arrived_at, deadline, sender, request_id, trace };
        let mut answer = self.infer(request.into_inner(), call).await.map(Response::new);
        if let Some(told) = told {
            let metadata = match &mut answer {
                Ok(response) => response.metadata_mut(),
                Err(status) => status.metadata_mut(),
            };
            metadata.as_mut().insert(&request_id::HEADER, told);
        }
        answer
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
        let sender = self.sender(request.extensions())?;
        let trace = request.extensions().get::<CallTrace>().cloned();
        let request_id = request_id::of(request.metadata().as_ref());
        let told = request_id.as_deref().and_then(request_id::told);
        let whole = Whole { deadline: asked, sender, request_id, trace };
        let answers = stream::answer(service, request.into_inner(), whole, stopping);
        let mut response = Response::new(answers);
        if let Some(told) = told {
            response.metadata_mut().as_mut().insert(&request_id::HEADER, told);
        }
        Ok(response)
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        self.allow(&request, Right::Describe, &request.get_ref().name)?;
        let pb::ModelConfigRequest { name, version } = request.into_inner();
        let served = self.resolve(&name, &version)?;
        Ok(Response::new(pb::ModelConfigResponse { config: Some(model::config(&served)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let caller = self.caller(&request)?;
        let pb::ModelStatisticsRequest { name, version } = request.into_inner();
        if !name.is_empty() {
            caller.may(Right::Describe, &name).map_err(|denial| denied(&denial))?;
        }
        let model_stats = if name.is_empty() {
            let all = self.repository.index();
            let seen = all.iter().filter(|entry| caller.sees(entry.key.name.as_str()));
            let served = seen.filter_map(|entry| entry.state.served());
            served.map(|served| model::statistics(served)).collect()
        } else if version.is_empty() {
            // Resolved too, so that an unknown model is an error and not an empty list.
            self.resolve(&name, "")?;
            let versions = self.repository.loaded_versions(&name);
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
        let caller = self.caller(&request)?;
        let ready_only = request.get_ref().ready;
        let with_reasons = self.audience.sees_reasons();
        let mut models = model::index(&self.repository, ready_only, with_reasons);
        models.retain(|entry| caller.sees(&entry.name));
        Ok(Response::new(pb::RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        self.allow(&request, Right::Control, &request.get_ref().model_name)?;
        let request = request.into_inner();
        self.audience.load(&request.model_name, &request.parameters).await?;
        Ok(Response::new(pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        self.allow(&request, Right::Control, &request.get_ref().model_name)?;
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
