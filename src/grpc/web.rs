//! Calls from pages in a browser: which pages may, and what they may see.
//!
//! Closed unless pages are named. A browser asks before it calls; without an answer it does not.
//!
//! Source: gRPC-Web protocol; Fetch standard, "HTTP-network fetch" for the headers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::CrossOrigin;

/// How long a browser may remember the answer.
const REMEMBERED: Duration = Duration::from_hours(1);

/// Answers what browsers ask before they call.
pub fn cross_origin(pages: &CrossOrigin) -> CorsLayer {
    let asked = [
        header::CONTENT_TYPE,
        header::AUTHORIZATION,
        HeaderName::from_static("grpc-timeout"),
        HeaderName::from_static("x-grpc-web"),
        HeaderName::from_static("x-user-agent"),
        HeaderName::from_static("connect-protocol-version"),
        HeaderName::from_static("connect-timeout-ms"),
        HeaderName::from_static("inference-header-content-length"),
        HeaderName::from_static("x-request-id"),
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
    ];
    let shown = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "inference-header-content-length",
        "x-request-id",
    ];
    let origins = match pages {
        CrossOrigin::Any => AllowOrigin::any(),
        CrossOrigin::These(pages) => {
            let pages = pages.iter().filter_map(|page| HeaderValue::from_str(page).ok());
            AllowOrigin::list(pages)
        }
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(asked)
        .expose_headers(shown.map(HeaderName::from_static))
        .max_age(REMEMBERED)
}
