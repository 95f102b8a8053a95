//! The gate of the REST paths: who calls, before anything is read of the body.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::Failure;
use crate::access::Access;
use crate::grpc::gate::admit;
use crate::grpc::status::denied;

/// Paths that probes ask, without credentials.
const OPEN: [&str; 2] = ["/v2/health/live", "/v2/health/ready"];

/// Puts the gate before the paths of `routes`, where there has to be one.
pub(super) fn guarded<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    access: &Access,
) -> Router<S> {
    if !access.is_guarded() {
        return routes;
    }
    routes.route_layer(middleware::from_fn_with_state(access.clone(), gate))
}

async fn gate(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    if !OPEN.contains(&request.uri().path()) {
        match admit(&access, &request) {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            Err(denial) => return Failure::from(denied(&denial)).into_response(),
        }
    }
    next.run(request).await
}
