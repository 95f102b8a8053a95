//! The operator's page: files that are compiled in. It asks for `/status`, `/costs` and `/readyz` where
//! it came from and for nothing else; it holds no values itself, so it needs no credentials.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Nothing but the files below, and questions to this port; in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// What the page consists of.
pub(super) fn routes() -> Router {
    let file =
        |kind: &'static str, text: &'static str| get(move || async move { send(kind, text) });
    let script = |text: &'static str| file("text/javascript; charset=utf-8", text);
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page/page.html")))
        .route("/page/page.css", file("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/page/page.svg", file("image/svg+xml", include_str!("page/page.svg")))
        .route("/page/page.js", script(include_str!("page/page.js")))
        .route("/page/details.js", script(include_str!("page/details.js")))
        .route("/page/plots.js", script(include_str!("page/plots.js")))
        .route("/page/numbers.js", script(include_str!("page/numbers.js")))
}

fn send(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Another server may have the address tomorrow.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text)
}
