//! The floor: decodes `ModelInfer` with tensors as bytes and answers ten canned numbers.
//!
//! One thread, and a runtime that runs tasks in the order in which they became ready. The
//! runtime for several threads runs the task that was woken last first, even with one thread: every
//! answer then wakes the connection, which writes it alone, and one write for each answer costs
//! more than all the rest. A floor that does so would flatter the server.

use bytes::Bytes;
use onnxd::pb::model_infer_response::InferOutputTensor;
use onnxd::pb::{ModelInferRequest, ModelInferResponse};
use tonic::codegen::{BoxFuture, Context, Poll};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone)]
struct Canned;

impl UnaryService<ModelInferRequest> for Canned {
    type Response = ModelInferResponse;
    type Future = BoxFuture<Response<ModelInferResponse>, Status>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        Box::pin(async move {
            let request = request.into_inner();
            Ok(Response::new(ModelInferResponse {
                model_name: request.model_name,
                model_version: "1".to_owned(),
                id: request.id,
                outputs: vec![InferOutputTensor {
                    name: "y".to_owned(),
                    datatype: "FP32".to_owned(),
                    shape: vec![1, 10],
                    ..InferOutputTensor::default()
                }],
                raw_output_contents: vec![Bytes::from_static(&[0; 40])],
                ..ModelInferResponse::default()
            }))
        })
    }
}

/// What the generated server would be, for one call.
#[derive(Clone)]
struct Floor;

impl tonic::server::NamedService for Floor {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl tower::Service<http::Request<tonic::body::Body>> for Floor {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let codec: ProstCodec<ModelInferResponse, ModelInferRequest> = ProstCodec::default();
            Ok(Grpc::new(codec).max_decoding_message_size(64 << 20).unary(Canned, request).await)
        })
    }
}

/// Serves until it is killed; prints its address first.
pub(crate) fn serve() -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| text(&error))?;
    runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| text(&error))?;
        println!("  gRPC   {}", listener.local_addr().map_err(|error| text(&error))?);
        tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .tcp_nodelay(true)
            .add_service(Floor)
            .serve_with_incoming(
                tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)),
            )
            .await
            .map_err(|error| text(&error))
    })
}
