//! The calls of a connection: what they are known by, what answers them, and their end.
//!
//! Everything that a connection knows of its calls comes beside the request and not among its
//! extensions, each of which is an entry of a table and two allocations; what goes through a router
//! finds it there all the same ([`Routed`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::ServiceExt;
use tower::util::Oneshot;

use super::Connections;
use super::answers::PiecedBody;
use super::backlog::Backlog;
use super::tls::PeerIdentity;
use crate::job::ByteBudget;

/// Which connection a request came in on; tells callers apart that have no name. Chosen at random,
/// so that the connections of all ports differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

/// A call beyond those that may be open: it is to be refused, and is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded {
    /// How many may be.
    pub limit: usize,
}

/// How long a call at least lay in its socket before it was read: its deadline has run since then.
/// Messages of an open stream do not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lay(pub Duration);

impl Lay {
    /// When a call came that was read at `read_at`.
    pub fn came_at(self, read_at: Instant) -> Instant {
        read_at.checked_sub(self.0).unwrap_or(read_at)
    }
}

/// What a connection knows of a call.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where it came in.
    pub connection: ConnectionId,
    /// Who is at the other end, if a certificate says so.
    pub peer: Option<PeerIdentity>,
    /// Whether it is one too many.
    pub crowded: Option<Crowded>,
    /// How long what is read from the connection has lain there.
    pub backlog: Backlog,
}

/// What answers the calls of a connection.
pub trait Calls: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body;
    /// A call that is being answered.
    type Answering: Future<Output = Response<Self::Body>> + Send + 'static;

    /// Answers a call.
    fn call(&self, request: Request<Incoming>, origin: &Origin) -> Self::Answering;
}

/// The body of an answer. Everything that can be one is.
pub trait Answer:
    Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static
{
}

impl<B> Answer for B where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static
{
}

/// A router, or another service of the framework, which finds the parts of the [`Origin`] among the
/// extensions of a request.
#[derive(Debug, Clone)]
pub struct Routed<S>(pub S);

impl<S, B> Calls for Routed<S>
where
    S: tower::Service<
            Request<Incoming>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static,
    B: 'static,
{
    type Body = B;
    type Answering = Infallibly<Oneshot<S, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>, origin: &Origin) -> Self::Answering {
        let extensions = request.extensions_mut();
        extensions.insert(origin.connection);
        if let Some(peer) = &origin.peer {
            extensions.insert(peer.clone());
        }
        if let Some(crowded) = origin.crowded {
            extensions.insert(crowded);
        }
        match origin.backlog.age() {
            Duration::ZERO => {}
            age => drop(extensions.insert(Lay(age))),
        }
        Infallibly { future: self.0.clone().oneshot(request) }
    }
}

pin_project! {
    /// A future that cannot fail.
    #[derive(Debug)]
    pub struct Infallibly<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future<Output = Result<T, Infallible>>, T> Future for Infallibly<F> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Ok(output) = ready!(self.project().future.poll(context));
        Poll::Ready(output)
    }
}

/// What answers the calls of one connection, and counts them.
pub(super) struct CallsOfConnection<S> {
    pub(super) service: S,
    /// Of a call for which there is room.
    pub(super) origin: Origin,
    pub(super) port: Arc<Connections>,
}

impl<S: Calls> hyper::service::Service<Request<Incoming>> for CallsOfConnection<S> {
    type Response = Response<PiecedBody<S::Body, OpenCall>>;
    type Error = Infallible;
    type Future = Answering<S::Answering>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let call = OpenCall::begin(&self.port);
        let future = match call.crowded() {
            None => self.service.call(request, &self.origin),
            crowded => self.service.call(request, &Origin { crowded, ..self.origin.clone() }),
        };
        Answering { future, call: Some(call) }
    }
}

pin_project! {
    /// A call until it has an answer's head.
    pub(super) struct Answering<F> {
        #[pin]
        future: F,
        call: Option<OpenCall>,
    }
}

impl<F: Future<Output = Response<B>>, B> Future for Answering<F> {
    type Output = Result<Response<PiecedBody<B, OpenCall>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(context));
        match this.call.take() {
            Some(call) => Poll::Ready(Ok(response.map(|body| PiecedBody::new(body, call)))),
            // Polled again after its end, which no caller does.
            None => Poll::Pending,
        }
    }
}

/// One open call, of all ports and of its own, until it is dropped.
pub(super) struct OpenCall {
    port: Arc<Connections>,
    counts: bool,
}

impl OpenCall {
    fn begin(port: &Arc<Connections>) -> Self {
        let counts = port.calls.begin(port.limits.max_calls);
        if counts {
            port.metrics.call_begun();
        } else {
            port.metrics.refused_call();
        }
        Self { port: Arc::clone(port), counts }
    }

    fn crowded(&self) -> Option<Crowded> {
        (!self.counts).then_some(Crowded { limit: self.port.limits.max_calls })
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.counts {
            self.port.calls.end();
            self.port.metrics.call_ended();
        }
    }
}

impl AsRef<ByteBudget> for OpenCall {
    fn as_ref(&self) -> &ByteBudget {
        &self.port.memory
    }
}
