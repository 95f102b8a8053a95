//! The edge: accepts connections and serves them, within limits, until the server drains. The same
//! for the gRPC and the REST port, each with places of its own.
//!
//! The framework's own server lets two of HTTP/2's limits fall back to "none", waits without bound
//! for peers when it stops, and retries failed accepts in a busy loop. So the loop is ours, on the
//! HTTP library's connection builder: every limit is set, a failed accept backs off, a drain is
//! bounded by whoever calls it.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioTimer;
use hyper_util::server::conn::auto;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::ConnectionLimits;
use crate::job::ByteBudget;
use crate::telemetry::metrics::{ConnectionMetrics, Refused};

mod accepted;
mod answers;
mod arrivals;
pub mod backlog;
pub mod calls;
mod parting;
mod service;
pub mod socket;
mod stall;
pub mod tls;

use accepted::Connection;
use arrivals::Arrivals;
use calls::OpenCalls;
pub use service::{Answer, Calls, ConnectionId, Crowded, Lay, Origin, Routed};
use socket::Accept;
use stall::CallExecutor;
use tls::{Handshakes, Identity};

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

/// What the connections of a port share, whatever listener they came in on.
#[derive(Debug, Clone)]
pub struct Connections {
    limits: ConnectionLimits,
    places: Arrivals,
    calls: OpenCalls,
    memory: ByteBudget,
    metrics: ConnectionMetrics,
    tls: Option<Handshakes>,
}

impl Connections {
    /// No connection yet. `calls` counts the calls on all of them, `memory` what waits to be sent.
    pub fn new(
        limits: ConnectionLimits,
        calls: OpenCalls,
        memory: ByteBudget,
        metrics: ConnectionMetrics,
    ) -> Self {
        let places = Arrivals::new(limits.max_connections);
        Self { limits, places, calls, memory, metrics, tls: None }
    }

    /// The same connections over TLS, if there is an identity. Where it `needs_alpn`, a peer that
    /// does not say which protocol it speaks is refused.
    #[must_use]
    pub fn secured(self, tls: Option<Identity>, needs_alpn: bool) -> Self {
        Self { tls: tls.map(|identity| Handshakes::new(identity, needs_alpn)), ..self }
    }

    /// The same connections in clear text: they share their places with these.
    #[must_use]
    pub fn unsecured(&self) -> Self {
        Self { tls: None, ..self.clone() }
    }

    /// Accepts on `listener` until `stop` is done, then waits for the open calls of all
    /// connections. That wait has no bound of its own; drop the future to cut it short.
    pub async fn serve<S: Calls<Body: Answer>>(
        self,
        listener: impl Accept,
        service: S,
        stop: impl Future<Output = ()>,
    ) {
        let builder = builder(&self.limits);
        let stopping = watch::Sender::new(false);
        // Every connection keeps a sender: the channel closes when the last one has ended.
        let (alive, mut ended) = mpsc::channel::<Infallible>(1);
        let (mut pause, mut refused) = (SHORTEST_PAUSE, Refusals::default());
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            let socket = match accepted {
                Ok(socket) => socket,
                Err(error) => {
                    back_off(&error, &mut pause).await;
                    continue;
                }
            };
            pause = SHORTEST_PAUSE;
            let Some(arrival) = self.places.enter() else {
                self.metrics.refused(Refused::Connections);
                refused.report(self.limits.max_connections);
                continue;
            };
            let held = (self.metrics.open(), alive.clone());
            let connection = Connection {
                service: service.clone(),
                builder: builder.clone(),
                port: self.clone(),
            };
            let mut stopping = stopping.subscribe();
            tokio::spawn(async move {
                let stopped = async { drop(stopping.wait_for(|stopping| *stopping).await) };
                connection.serve(socket, arrival, stopped).await;
                drop(held);
            });
        }
        drop((listener, alive));
        stopping.send_replace(true);
        let closed = ended.recv();
        tokio::pin!(closed);
        tokio::select! {
            _ = &mut closed => return,
            () = self.calls.none() => {}
        }
        if tokio::time::timeout(CLOSING_TIME, closed).await.is_err() {
            tracing::info!("not waiting for peers that keep their connections open");
        }
    }
}

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

fn builder(limits: &ConnectionLimits) -> auto::Builder<CallExecutor> {
    let mut builder = auto::Builder::new(CallExecutor { limit: limits.write_stall });
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.max_streams)
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(limits.max_local_resets)
        .max_header_list_size(limits.max_header_bytes);
    if !limits.keepalive.is_zero() {
        http2.keep_alive_interval(limits.keepalive).keep_alive_timeout(limits.keepalive_timeout);
    }
    let header_bytes = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.http1_idle)
        .max_buf_size(header_bytes.max(HTTP1_BUFFER_BYTES));
    builder
}

/// The HTTP library takes no less for a request's head.
const HTTP1_BUFFER_BYTES: usize = 8 << 10;

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
