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
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::calls::{CountedBody, OpenCalls};
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

/// First bytes of every HTTP/2 connection. Source: RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Once no call is open, how long peers have to close their connections before they are cut.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// Refused connections are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Accepts on `listener` until `stop` is done, then waits for the open calls of all connections.
/// That wait has no bound of its own; drop the future to cut it short.
pub(super) async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: ConnectionLimits,
    calls: OpenCalls,
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
    let stopping = watch::Sender::new(false);
    let (mut pause, mut refused) = (SHORTEST_PAUSE, Refusals::default());
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
            refused.report(limits.max_connections);
            continue;
        };
        let connection = Connection {
            service: service.clone(),
            builder: builder.clone(),
            watcher: graceful.watcher(),
            calls: calls.clone(),
            handshake: limits.handshake,
        };
        let mut stopping = stopping.subscribe();
        tokio::spawn(async move {
            let stopped = async { drop(stopping.wait_for(|stopping| *stopping).await) };
            connection.serve(stream, stopped).await;
            drop(place);
        });
    }
    drop(listener);
    stopping.send_replace(true);
    let closed = graceful.shutdown();
    tokio::pin!(closed);
    tokio::select! {
        () = &mut closed => return,
        () = calls.none() => {}
    }
    if tokio::time::timeout(CLOSING_TIME, closed).await.is_err() {
        tracing::info!("connections of peers that do not close them are cut");
    }
}

/// One accepted connection.
struct Connection<S> {
    service: S,
    builder: http2::Builder<TokioExecutor>,
    watcher: Watcher,
    calls: OpenCalls,
    handshake: Duration,
}

impl<S> Connection<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    async fn serve(self, stream: TcpStream, stopped: impl Future<Output = ()>) {
        // Before its first words a connection has no call, so it can be dropped at any time.
        let greeted = tokio::select! {
            biased;
            () = stopped => return,
            greeted = tokio::time::timeout(self.handshake, greeting(&stream)) => greeted,
        };
        match greeted {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return tracing::debug!("closed: not HTTP/2"),
            Ok(Err(error)) => return tracing::debug!(%error, "closed before its first words"),
            Err(_) => return tracing::debug!("closed: silent for too long"),
        }
        // Small answers must not wait for the acknowledgement of the last one.
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%error, "connection lost at once");
        }
        let Self { service, builder, watcher, calls, .. } = self;
        let service = tower::service_fn(move |request: http::Request<Incoming>| {
            let call = calls.begin();
            let answer = service.clone().oneshot(request.map(Body::new));
            async move {
                let response = answer.await?;
                Ok::<_, Infallible>(response.map(|body| CountedBody::new(body, call)))
            }
        });
        let service = TowerToHyperService::new(service);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            // Peers that vanish or break the protocol are everyday.
            tracing::debug!(%error, "connection ended with an error");
        }
    }
}

/// Waits for a connection's first bytes, without taking them; whether they are HTTP/2's.
async fn greeting(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    let mut seen = 0;
    loop {
        let count = stream.peek(&mut first).await?;
        if count == 0 || !PREFACE.starts_with(&first[..count]) {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        if count == seen {
            // Peeking returns at once while a part lies there: look again a little later.
            tokio::time::sleep(PEEK_PAUSE).await;
        }
        seen = count;
    }
}

/// Pause between two looks at a preface that comes in parts.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// Connections that were refused, reported now and then.
#[derive(Default)]
struct Refusals {
    count: u64,
    reported_at: Option<Instant>,
}

impl Refusals {
    fn report(&mut self, limit: usize) {
        self.count += 1;
        let now = Instant::now();
        if self.reported_at.is_none_or(|before| now - before >= REPORT_EVERY) {
            tracing::warn!(limit, refused = self.count, "connections refused: all places taken");
            self.reported_at = Some(now);
        }
    }
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
