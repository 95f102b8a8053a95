//! Accepts connections and serves them, within limits, until the server drains.
//!
//! The framework's own server lets two of HTTP/2's limits fall back to "none", waits without bound
//! for peers when it stops, and retries failed accepts in a busy loop. So the loop is ours, on the
//! HTTP library's connection builder: every limit is set, a failed accept backs off, a drain is
//! bounded by whoever calls it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::config::ConnectionLimits;

/// Flow-control window of a call: enough for a fast network's delay.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// Flow-control window of a connection. The HTTP/2 library ends a connection whose unread small
/// frames cost more than half of it (each up to 256 bytes), so that many small messages of one
/// stream that waits must fit: 10,000 of 52 bytes.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Largest frame that is announced; larger ones delay the other calls of the connection.
const FRAME_BYTES: u32 = 16 << 10;
/// Pause after the first failed accept; doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause after failed accepts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts on `listener` until `stop` is done, then waits for the open calls of all connections.
/// The wait has no bound of its own; drop the future to cut it short.
pub(super) async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let builder = builder(&limits);
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    let mut pause = SHORTEST_PAUSE;
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                back_off(&error, &mut pause).await;
                continue;
            }
        };
        pause = SHORTEST_PAUSE;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(limit = limits.max_connections, "connection refused: all places taken");
            continue;
        };
        // Small answers must not wait for the acknowledgement of the last one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection lost at once");
            continue;
        }
        let own = service.clone();
        let own = own.map_request(|request: http::Request<Incoming>| request.map(Body::new));
        let own = TowerToHyperService::new(own);
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), own));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Peers that vanish or break the protocol are everyday.
                tracing::debug!(%error, "connection ended with an error");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

fn builder(limits: &ConnectionLimits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(limits.max_local_resets)
        .max_header_list_size(limits.max_header_bytes);
    if !limits.keepalive.is_zero() {
        builder.keep_alive_interval(limits.keepalive).keep_alive_timeout(limits.keepalive_timeout);
    }
    builder
}

/// Waits before the next accept. While descriptors are short, every accept fails at once: without
/// a pause the loop would spin.
async fn back_off(error: &io::Error, pause: &mut Duration) {
    let passing = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    );
    if passing {
        return;
    }
    tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}
