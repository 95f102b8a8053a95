//! The gRPC data port: the Open Inference Protocol, health and reflection.
//!
//! From the socket inwards: `connection` accepts and bounds, `plain` takes unary predictions the
//! short way, [`wire`] counts before it decodes,
//! `service` hands each call to the file that knows it: [`inference`] and `stream` for predictions,
//! `model` for descriptions, [`health`]. Below: `repository`. Of the server,
//! only this room and `http` name messages.

use std::sync::Arc;

use futures_util::FutureExt;
use hyper::body::Incoming;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_web::GrpcWebLayer;
use tower::{ServiceBuilder, ServiceExt};

use crate::access::Access;
use crate::config::{Compression, CrossOrigin, RequestLimits};
use crate::connection::{Connections, Routed};
use crate::job::ByteBudget;
use crate::pb::server::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::repository::Repository;
use crate::repository::control::ModelControl;
use crate::telemetry::metrics::calls::CallMetrics;
use crate::telemetry::traces::Traces;

pub mod calls;
mod classification;
pub mod codec;
mod control;
pub mod deadline;
pub mod gate;
pub mod health;
pub mod inference;
mod model;
mod once;
mod parameters;
mod plain;
pub mod receive;
mod reflection;
pub mod request_id;
pub mod service;
pub mod status;
mod stream;
mod typed;
pub mod web;
pub mod wire;

use calls::{CountCalls, CountedAnswer};
use control::Audience;
use inference::Inference;
use plain::PlainCalls;
use service::InferenceService;

/// What the data port serves.
#[derive(Debug, Clone)]
pub struct GrpcServer {
    /// The models.
    pub repository: Arc<Repository>,
    /// Limits on requests.
    pub requests: RequestLimits,
    /// The connections of the data port. Its Unix socket shares them, in clear text.
    pub connections: Connections,
    /// Encodings of messages that are read, and used where the caller reads them.
    pub compression: Vec<Compression>,
    /// Pages that may call from a browser; `None` for none.
    pub cross_origin: Option<CrossOrigin>,
    /// Whether reflection is served.
    pub reflection: bool,
    /// Memory that requests and answers may hold.
    pub memory: ByteBudget,
    /// Who may do what.
    pub access: Access,
    /// Where calls are counted.
    pub calls: CallMetrics,
    /// Where spans of calls go.
    pub traces: Traces,
    /// Raised when the server stops: streams read no further.
    pub stopping: watch::Receiver<bool>,
}

impl GrpcServer {
    /// Serves `listener`, and `local` if there is one, until `stop` is done and every open call has
    /// ended. The second wait has no bound; drop the future to cut it short.
    pub async fn serve(
        self,
        listener: TcpListener,
        local: Option<UnixListener>,
        stop: impl Future<Output = ()>,
    ) {
        let routes = self.routes().prepare();
        // The framework reports a message above the limit as OUT_OF_RANGE; every other gRPC
        // implementation, and so every client, knows it as RESOURCE_EXHAUSTED.
        let service = ServiceExt::<http::Request<Body>>::map_response(routes, rename_too_large);
        let (limits, memory, calls) = (self.requests, self.memory.clone(), self.calls.clone());
        let compression = self.compression.clone();
        let service = service.map_request(move |request| {
            let request = receive::bounded(request, &limits, &memory, &calls);
            receive::decompressed(request, &compression, limits.max_message_bytes, &memory)
        });
        let service = CountCalls::of_pages(service, self.calls.clone(), self.traces.clone());
        let service = ServiceExt::<http::Request<Body>>::map_response(
            service,
            |response: http::Response<CountedAnswer<Body>>| response.map(CountedAnswer::into_body),
        );
        let service = ServiceBuilder::new()
            .option_layer(self.cross_origin.as_ref().map(web::cross_origin))
            .layer(GrpcWebLayer::new())
            .service(service)
            .map_request(|request: http::Request<Incoming>| request.map(Body::new));
        let ways = plain::Ways {
            guarded: self.access.is_guarded(),
            compresses: !self.compression.is_empty(),
        };
        let service = PlainCalls::new(
            self.callers(),
            (self.memory.clone(), self.calls.clone()),
            ways,
            Routed(service),
        );
        let service = CountCalls::outermost(service, self.calls.clone(), self.traces.clone());
        let (stop, unsecured) = (stop.shared(), self.connections.unsecured());
        let data = self.connections.serve(listener, service.clone(), stop.clone());
        let Some(local) = local else {
            return data.await;
        };
        tokio::join!(data, unsecured.serve(local, service, stop));
    }

    /// The calls as callers have them.
    pub fn callers(&self) -> Arc<InferenceService> {
        self.service(Audience::Callers)
    }

    /// The calls as the operator has them: descriptions, and models loaded and unloaded with
    /// `control`.
    pub fn operator(&self, control: Option<ModelControl>) -> Arc<InferenceService> {
        self.service(Audience::Operator(control))
    }

    fn service(&self, audience: Audience) -> Arc<InferenceService> {
        Arc::new(InferenceService {
            inference: Inference::new(Arc::clone(&self.repository), self.requests),
            repository: Arc::clone(&self.repository),
            stopping: self.stopping.clone(),
            access: self.access.clone(),
            audience,
            traces: self.traces.clone(),
        })
    }

    /// Puts the gate before the paths of `routes`, where there has to be one.
    fn guarded(&self, routes: axum::Router) -> axum::Router {
        if !self.access.is_guarded() {
            return routes;
        }
        routes.route_layer(axum::middleware::from_fn_with_state(self.access.clone(), gate::gate))
    }

    fn routes(&self) -> Routes {
        let mut inference = GrpcInferenceServiceServer::from_arc(self.callers())
            .max_decoding_message_size(self.requests.max_message_bytes)
            // An answer that a model has made is sent, whatever its size.
            .max_encoding_message_size(usize::MAX);
        for encoding in self.compression.iter().copied().map(encoding) {
            inference = inference.accept_compressed(encoding).send_compressed(encoding);
        }
        let health = health::HealthService::new(Arc::clone(&self.repository));
        let health = tonic_health::pb::health_server::HealthServer::new(health);
        let mut routes = Routes::new(inference).add_service(health);
        if self.reflection {
            routes = routes.add_service(reflection::V1::default());
            routes = routes.add_service(reflection::V1Alpha::default());
        }
        if !self.access.is_guarded() {
            return routes;
        }
        self.guarded(routes.into_axum_router()).into()
    }

    /// The operator's calls over gRPC, for the operator's port.
    pub fn operator_routes(&self, service: Arc<InferenceService>) -> axum::Router {
        let mut routes = Routes::new(GrpcInferenceServiceServer::from_arc(service));
        if self.reflection {
            routes = routes.add_service(reflection::V1::default());
            routes = routes.add_service(reflection::V1Alpha::default());
        }
        // Without the framework's answer to unknown paths, which would hide "404".
        self.guarded(routes.into_axum_router().reset_fallback())
    }
}

fn encoding(compression: Compression) -> CompressionEncoding {
    match compression {
        Compression::Gzip => CompressionEncoding::Gzip,
        Compression::Zstd => CompressionEncoding::Zstd,
    }
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
