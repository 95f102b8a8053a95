//! `grpc.health.v1`: the server as "" and each model by its name, checked and watched.
//!
//! Follows the repository. A watch on a name that is not there says so and stays open, so that a
//! prober sees the model when it appears; the standard crate's service refuses it.
//!
//! Source: gRPC health checking protocol.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::repository::Repository;

/// The service.
#[derive(Debug, Clone)]
pub struct HealthService {
    repository: Arc<Repository>,
}

impl HealthService {
    /// Health of `repository` and its models.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { repository }
    }
}

/// Status of a name; `None` for a name that is not known.
fn status_of(repository: &Repository, name: &str) -> Option<ServingStatus> {
    let serving = |yes| if yes { ServingStatus::Serving } else { ServingStatus::NotServing };
    if name.is_empty() || name == crate::pb::server::grpc_inference_service_server::SERVICE_NAME {
        return Some(serving(repository.is_ready()));
    }
    let ready = !repository.is_draining() && !repository.ready_versions(name).is_empty();
    repository.contains(name).then(|| serving(ready))
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let Some(status) = status_of(&self.repository, &name) else {
            let name = crate::model::quoted(&name);
            return Err(Status::not_found(format!("service {name:?} is not known")));
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let repository = Arc::clone(&self.repository);
        // Only the newest state is kept for a watcher that does not read.
        let changes = WatchStream::new(self.repository.subscribe());
        let watching = Some((changes, None));
        let news = stream::unfold(watching, move |watching| {
            let (repository, name) = (Arc::clone(&repository), name.clone());
            async move {
                let (mut changes, last) = watching?;
                loop {
                    changes.next().await?;
                    let status = status_of(&repository, &name);
                    let status = status.unwrap_or(ServingStatus::ServiceUnknown);
                    let is_last = repository.is_draining();
                    if last != Some(status) {
                        // Nothing changes any more once the server drains: a watch that stayed
                        // open would hold the drain up.
                        let rest = (!is_last).then_some((changes, Some(status)));
                        return Some((Ok(HealthCheckResponse { status: status.into() }), rest));
                    }
                    if is_last {
                        return None;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(news)))
    }
}
