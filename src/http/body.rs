//! Reads a request's body, within bounds of size and time.
//!
//! What counts is the size after decompression, so that a few bytes cannot become gigabytes, and
//! nothing is reserved because a header says so: every part takes its share of the memory for
//! requests when it comes. A body that brings no byte for a while is given up, as on the gRPC port.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::Failure;
use crate::config::RequestLimits;
use crate::connection::Crowded;
use crate::grpc::receive::{full, too_many_calls};
use crate::grpc::status::status;
use crate::job::{ByteBudget, BytePermit};
use crate::model::quoted;

/// The whole body, and its share of the memory for requests.
///
/// # Errors
/// 400 for one that breaks off or cannot be decompressed, 408, 413, 415, 429.
pub(super) async fn read(
    request: Request,
    limits: &RequestLimits,
    memory: &ByteBudget,
) -> Result<(Bytes, BytePermit), Failure> {
    let (parts, body) = request.into_parts();
    if let Some(crowded) = parts.extensions.get::<Crowded>() {
        return Err(status(&too_many_calls(*crowded), "").into());
    }
    check_encoding(&parts.headers)?;
    let whole = tokio::time::timeout(limits.max_timeout, collect(body, limits, memory));
    whole.await.unwrap_or_else(|_| Err(late("the body", limits.max_timeout)))
}

fn late(what: &str, limit: Duration) -> Failure {
    let message = format!("{what} did not come within {} ms", limit.as_millis());
    Failure::new(StatusCode::REQUEST_TIMEOUT, message)
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

async fn collect(
    body: Body,
    limits: &RequestLimits,
    memory: &ByteBudget,
) -> Result<(Bytes, BytePermit), Failure> {
    let limit = limits.max_message_bytes;
    let permit = memory.charge(0);
    let too_large = || Failure::too_large("the body", limit);
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    let mut parts = body.into_data_stream();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    loop {
        let part = tokio::time::timeout(limits.body_read, parts.next()).await;
        let Some(part) = part.map_err(|_| late("a byte of the body", limits.body_read))? else {
            break;
        };
        let part = part.map_err(|error| {
            tracing::debug!(%error, "a body could not be read");
            Failure::invalid("the body breaks off or is not in its Content-Encoding")
        })?;
        if first.len() + whole.len() + part.len() > limit {
            return Err(too_large());
        }
        if !memory.extend(&permit, part.len()) {
            return Err(status(&full(memory, part.len()), "").into());
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
    Ok((if whole.is_empty() { first } else { whole.freeze() }, permit))
}
