//! The edge: accepts connections and serves them, within limits, until the server drains. The same
//! for the gRPC and the REST port, each with places of its own.
//!
//! The framework's own server lets two of HTTP/2's limits fall back to "none", waits without bound
//! for peers when it stops, and retries failed accepts in a busy loop. So the loop is ours, on the
//! HTTP library's connection builder: every limit is set, a failed accept backs off, a drain is
//! bounded by whoever calls it.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use crate::config::ConnectionLimits;
use crate::job::ByteBudget;

mod answers;
pub mod calls;
pub mod socket;
mod stall;
pub mod tls;
pub mod wakeup;

use answers::PiecedBody;
use calls::{CountedBody, OpenCalls};
use socket::{Accept, Socket};
use stall::{CallExecutor, Unstalled};
use tls::{Identity, PeerIdentity};

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
    places: Arc<Semaphore>,
    calls: OpenCalls,
    memory: ByteBudget,
    tls: Option<Identity>,
    needs_alpn: bool,
}

impl Connections {
    /// No connection yet. `calls` counts the calls on all of them, `memory` what waits to be sent.
    pub fn new(limits: ConnectionLimits, calls: OpenCalls, memory: ByteBudget) -> Self {
        let places = Arc::new(Semaphore::new(limits.max_connections));
        Self { limits, places, calls, memory, tls: None, needs_alpn: false }
    }

    /// The same connections over TLS, if there is an identity. Where it `needs_alpn`, a peer that
    /// does not say which protocol it speaks is refused.
    #[must_use]
    pub fn secured(self, tls: Option<Identity>, needs_alpn: bool) -> Self {
        Self { tls, needs_alpn, ..self }
    }

    /// Accepts on `listener` until `stop` is done, then waits for the open calls of all
    /// connections. That wait has no bound of its own; drop the future to cut it short.
    pub async fn serve<L, S, B>(self, listener: L, service: S, stop: impl Future<Output = ()>)
    where
        L: Accept,
        S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static,
    {
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
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                refused.report(self.limits.max_connections);
                continue;
            };
            let connection = Connection {
                service: service.clone(),
                builder: builder.clone(),
                calls: self.calls.clone(),
                memory: self.memory.clone(),
                limits: self.limits,
                tls: self.tls.clone(),
                needs_alpn: self.needs_alpn,
            };
            let (mut stopping, alive) = (stopping.subscribe(), alive.clone());
            tokio::spawn(async move {
                let stopped = async { drop(stopping.wait_for(|stopping| *stopping).await) };
                connection.serve(socket, stopped).await;
                drop((place, alive));
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

/// Which connection a request came in on, in its extensions; tells callers apart that have no name.
/// Chosen at random, so that the connections of all ports differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

/// One accepted connection.
struct Connection<S> {
    service: S,
    builder: auto::Builder<CallExecutor>,
    calls: OpenCalls,
    memory: ByteBudget,
    limits: ConnectionLimits,
    tls: Option<Identity>,
    needs_alpn: bool,
}

impl<S> Connection<S> {
    async fn serve<B>(self, socket: impl Socket, stopped: impl Future<Output = ()>)
    where
        S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static,
    {
        tokio::pin!(stopped);
        // Before its first words a connection has no call, so it can be dropped at any time.
        let greeted = tokio::select! {
            biased;
            () = &mut stopped => return,
            greeted = tokio::time::timeout(self.limits.handshake, greeting(&socket)) => greeted,
        };
        match greeted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return tracing::debug!(%error, "closed before its first words"),
            Err(_) => return tracing::debug!("closed: silent for too long"),
        }
        // Small answers must not wait for the acknowledgement of the last one.
        if let Err(error) = socket.send_at_once() {
            return tracing::debug!(%error, "connection lost at once");
        }
        let Some(identity) = self.tls.clone() else {
            return self.serve_on(socket, None, stopped).await;
        };
        let shaken = tokio::select! {
            biased;
            () = &mut stopped => return,
            shaken = identity.accept(socket, self.limits.handshake, self.needs_alpn) => shaken,
        };
        match shaken {
            Ok((socket, peer)) => self.serve_on(socket, peer, stopped).await,
            Err(error) => tracing::debug!(%error, "closed: no handshake"),
        }
    }

    /// Serves a connection whose first words are there.
    async fn serve_on<B>(
        self,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Option<PeerIdentity>,
        stopped: impl Future<Output = ()>,
    ) where
        S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static,
    {
        let Self { service, builder, calls, memory, limits, .. } = self;
        let random = RandomState::new().hash_one(0_u8);
        let service = tower::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(ConnectionId(random));
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            let (call, memory) = (calls.begin(), memory.clone());
            let answer = service.clone().oneshot(request);
            async move {
                let response = answer.await?;
                Ok::<_, Infallible>(
                    response.map(|body| CountedBody::new(PiecedBody::new(body, memory), call)),
                )
            }
        });
        let service = TowerToHyperService::new(service);
        let socket = Unstalled::new(socket, limits.write_stall);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        tokio::pin!(connection);
        let aged = aged(limits.max_age, random);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
            () = aged => {
                // The peer is told to go elsewhere and has a while to end its calls.
                connection.as_mut().graceful_shutdown();
                let grace = tokio::time::timeout(limits.max_age_grace, connection);
                grace.await.unwrap_or_else(|_| {
                    tracing::debug!("connection is old and its calls do not end: cut");
                    Ok(())
                })
            }
        };
        if let Err(error) = ended {
            // Peers that vanish or break the protocol are everyday.
            tracing::debug!(%error, "connection ended with an error");
        }
    }
}

/// Waits until a connection is old; for ever if age has no limit.
async fn aged(limit: Duration, random: u64) {
    if limit.is_zero() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(lifetime(limit, random)).await;
}

/// `limit`, a tenth more or less: connections that began together do not end together.
///
/// Source: gRFC A9.
fn lifetime(limit: Duration, random: u64) -> Duration {
    const STEPS: u64 = 2001;
    let thousandths = 900 + u32::try_from(random % STEPS).unwrap_or(0) / 10;
    limit * thousandths / 1000
}

/// Waits for a connection's first bytes, without taking them: all of HTTP/2's preface, or something
/// else, which may be HTTP/1.1.
async fn greeting(socket: &impl Socket) -> io::Result<()> {
    let mut first = [0; PREFACE.len()];
    let mut seen = 0;
    loop {
        let count = socket.peek(&mut first).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if count == PREFACE.len() || !PREFACE.starts_with(&first[..count]) {
            return Ok(());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_spread_a_tenth_around_the_limit() {
        let limit = Duration::from_secs(100);
        let all: Vec<u64> = (0..10_000).map(|random| lifetime(limit, random).as_secs()).collect();
        assert_eq!(all.iter().min(), Some(&90));
        assert_eq!(all.iter().max(), Some(&110));
    }
}
