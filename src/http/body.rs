//! Reads a request's body, within bounds of size and time.
//!
//! What counts is the size after decompression, so that a few bytes cannot become gigabytes, and
//! nothing is reserved because a header says so. The whole body must come within the deadline
//! that a request without one gets.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::Failure;
use crate::config::RequestLimits;
use crate::model::quoted;

/// The whole body.
///
/// # Errors
/// 400 for one that breaks off or cannot be decompressed, 408, 413, 415.
pub(super) async fn read(request: Request, limits: &RequestLimits) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    check_encoding(&parts.headers)?;
    let whole = tokio::time::timeout(limits.default_timeout, collect(body, limits));
    whole.await.unwrap_or_else(|_| {
        let patience = limits.default_timeout.as_millis();
        let message = format!("the body did not come within {patience} ms");
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, message))
    })
}

/// The encodings that are read are taken off before; what is left here is none of them.
fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(encoding) if encoding == "identity" => Ok(()),
        Some(encoding) => {
            let encoding = quoted(&String::from_utf8_lossy(encoding.as_bytes()));
            let message =
                format!("Content-Encoding `{encoding}` is not read; gzip and deflate are");
            Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}

async fn collect(body: Body, limits: &RequestLimits) -> Result<Bytes, Failure> {
    let limit = limits.max_message_bytes;
    let too_large = || Failure::too_large("the body", limit);
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    let mut parts = body.into_data_stream();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            tracing::debug!(%error, "a body could not be read");
            Failure::invalid("the body breaks off or is not in its Content-Encoding")
        })?;
        if first.len() + whole.len() + part.len() > limit {
            return Err(too_large());
        }
        // A body that came in one piece stays where it is.
        if first.is_empty() && whole.is_empty() {
            first = part;
            continue;
        }
        if !first.is_empty() {
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&part);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
