//! Descriptions of the services, which grpcurl asks for.
//!
//! Put together when the first caller asks, once for all ports: it takes milliseconds, in which a server
//! that starts has better things to do, on a thread that may block.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

use crate::pb;

/// Reflection in its final version.
pub(super) type V1 = OnDemand<false>;
/// The version before, which older clients ask for.
pub(super) type V1Alpha = OnDemand<true>;

/// One version of reflection, put together on demand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OnDemand<const ALPHA: bool>;

impl NamedService for OnDemand<false> {
    const NAME: &'static str = "grpc.reflection.v1.ServerReflection";
}

impl NamedService for OnDemand<true> {
    const NAME: &'static str = "grpc.reflection.v1alpha.ServerReflection";
}

impl<const ALPHA: bool> Service<http::Request<Body>> for OnDemand<ALPHA> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            match both_versions().await {
                Ok(mut routes) => routes.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// Both versions.
///
/// # Errors
/// INTERNAL if a descriptor set cannot be read, which is a fault of the build.
async fn both_versions() -> Result<Routes, Status> {
    static BUILT: OnceCell<Routes> = OnceCell::const_new();
    let built = || async {
        #[expect(clippy::disallowed_methods, reason = "once, and no inference")]
        let built = spawn_blocking(build);
        let built = built.await.map_err(|error| error.to_string());
        built.and_then(|built| built.map_err(|error| error.to_string()))
    };
    BUILT.get_or_try_init(built).await.cloned().map_err(|error| {
        tracing::error!(error, "reflection cannot read its descriptions");
        Status::internal("the descriptions of the services cannot be read")
    })
}

fn build() -> Result<Routes, tonic_reflection::server::Error> {
    let v1 = descriptors().build_v1()?;
    let v1alpha = descriptors().build_v1alpha()?;
    Ok(Routes::new(v1).add_service(v1alpha).prepare())
}

fn descriptors() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
