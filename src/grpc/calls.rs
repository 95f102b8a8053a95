//! Calls of the data port are counted here: when they begin, what they end with, and what they send.
//!
//! Outermost, so that everything counts that somebody is told, whoever refuses it. Only calls from
//! pages are counted further in: what those end with is a part of their body, in a form of its own.
//! What calls receive is counted where it is bounded ([`super::receive`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use opentelemetry::KeyValue;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tower::Service;

use super::receive::{Framing, Part};
use crate::access::methods::{self, Need};
use crate::connection::{Calls, Origin};
use crate::error::Right;
use crate::telemetry::metrics::calls::{CODES, CallMetrics, Method};
use crate::telemetry::traces::{CallTrace, Traces};

/// Every method, and what its calls usually end with on the data port.
pub fn methods(guarded: bool) -> Vec<Method> {
    let usual = |name: &str, need: Need| {
        let own: &[Code] = match (name.rsplit('/').next().unwrap_or(name), need) {
            ("ModelInfer", _) => &[
                Code::Ok,
                Code::Cancelled,
                Code::InvalidArgument,
                Code::DeadlineExceeded,
                Code::NotFound,
                Code::ResourceExhausted,
                Code::Internal,
                Code::Unavailable,
            ],
            ("ModelStreamInfer", _) => &[
                Code::Ok,
                Code::Cancelled,
                Code::DeadlineExceeded,
                Code::ResourceExhausted,
                Code::Unavailable,
            ],
            ("Watch" | "ServerReflectionInfo", _) => &[Code::Ok, Code::Cancelled],
            ("TraceSetting" | "LogSettings", _) => &[Code::Unimplemented],
            (name, _) if name.ends_with("egister") => &[Code::Unimplemented],
            (_, Need::Model(Right::Control)) => &[Code::Unimplemented],
            (_, Need::Model(_)) => &[Code::Ok, Code::NotFound],
            _ => &[Code::Ok],
        };
        let denied: &[Code] = match need {
            Need::Model(_) if guarded => &[Code::Unauthenticated, Code::PermissionDenied],
            Need::Caller if guarded => &[Code::Unauthenticated],
            _ => &[],
        };
        own.iter().chain(denied).map(|code| number(*code)).collect()
    };
    let method = |(path, need): (String, Need)| {
        let name = path.trim_start_matches('/').to_owned();
        Method { usual: usual(&name, need), name }
    };
    methods::all().map(method).collect()
}

fn number(code: Code) -> usize {
    usize::try_from(i32::from(code)).unwrap_or_default()
}

/// Marks calls from pages on their way in.
#[derive(Debug, Clone, Copy)]
struct FromPage;

/// Which calls are counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    AllButPages,
    Pages,
}

/// Counts the calls of a service.
#[derive(Debug, Clone)]
pub(super) struct CountCalls<S> {
    inner: S,
    metrics: CallMetrics,
    traces: Traces,
    counts: Counts,
}

impl<S> CountCalls<S> {
    /// All but those from pages.
    pub(super) fn outermost(inner: S, metrics: CallMetrics, traces: Traces) -> Self {
        Self { inner, metrics, traces, counts: Counts::AllButPages }
    }

    /// Those from pages.
    pub(super) fn of_pages(inner: S, metrics: CallMetrics, traces: Traces) -> Self {
        Self { inner, metrics, traces, counts: Counts::Pages }
    }

    /// Begins to count a call, if it is counted here.
    fn begin<B>(&self, request: &mut Request<B>) -> Option<OpenCall> {
        match self.counts {
            Counts::Pages => {
                request.extensions().get::<FromPage>()?;
            }
            Counts::AllButPages if is_from_page(request) => {
                // A question whether a page may call is none.
                if request.method() == http::Method::POST {
                    request.extensions_mut().insert(FromPage);
                }
                return None;
            }
            Counts::AllButPages => {}
        }
        let (metrics, begun_at) = (self.metrics.clone(), Instant::now());
        let path = request.uri().path();
        let place = metrics.place(methods::index(path));
        metrics.begin(place);
        // Probes come all the time, and nobody wants to know how each one went.
        let follows = || matches!(methods::need(path), None | Some(Need::Open));
        let trace = self.traces.of_call(request.headers(), follows, || {
            let name = metrics.name(place).to_owned();
            let attributes = vec![
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", name.clone()),
            ];
            (name.into(), attributes)
        });
        if let Some(trace) = &trace {
            request.extensions_mut().insert(trace.clone());
        }
        Some(OpenCall { metrics, place, begun_at, ended: false, trace })
    }
}

fn is_from_page<B>(request: &Request<B>) -> bool {
    let content = request.headers().get(header::CONTENT_TYPE);
    content.is_none_or(|content| content.as_bytes().starts_with(b"application/grpc-web"))
}

impl<S: Calls> Calls for CountCalls<S> {
    type Body = CountedAnswer<S::Body>;
    type Answering = Counting<S::Answering>;

    fn call(&self, mut request: Request<Incoming>, origin: &Origin) -> Self::Answering {
        let call = self.begin(&mut request);
        Counting { future: self.inner.call(request, origin), call }
    }
}

pin_project! {
    /// A call until it has an answer's head.
    #[derive(Debug)]
    pub(super) struct Counting<F> {
        #[pin]
        future: F,
        call: Option<OpenCall>,
    }
}

impl<F: Future<Output = Response<A>>, A> Future for Counting<F> {
    type Output = Response<CountedAnswer<A>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(context));
        Poll::Ready(answered(response, this.call.take()))
    }
}

impl<S, A> Service<Request<Body>> for CountCalls<S>
where
    S: Service<Request<Body>, Response = Response<A>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<CountedAnswer<A>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = self.begin(&mut request);
        let future = self.inner.call(request);
        Box::pin(async move { Ok(answered(future.await?, call)) })
    }
}

fn answered<A>(response: Response<A>, mut call: Option<OpenCall>) -> Response<CountedAnswer<A>> {
    // Without a message the status is in the head.
    if let Some(call) = &mut call
        && let Some(ended) = ended(response.status(), response.headers())
    {
        call.end(ended);
    }
    let framing = Framing::default();
    response.map(|body| CountedAnswer { body, call, framing })
}

/// The header with what a call has ended with.
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What a call has ended with, if these are the last headers of its answer.
fn ended(status: StatusCode, headers: &HeaderMap) -> Option<Code> {
    match headers.get(&GRPC_STATUS) {
        Some(code) => Some(Code::from_bytes(code.as_bytes())),
        None if status == StatusCode::OK => None,
        // Not an answer to gRPC at all: what asked was none.
        None => Some(Code::Unknown),
    }
}

/// A call that was begun. Dropped before it has ended, its caller has left.
#[derive(Debug)]
struct OpenCall {
    metrics: CallMetrics,
    place: usize,
    begun_at: Instant,
    ended: bool,
    trace: Option<CallTrace>,
}

impl OpenCall {
    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            let took = self.begun_at.elapsed();
            self.metrics.end(self.place, number(code), took);
            if let Some(trace) = &self.trace {
                let name = CODES.get(number(code)).copied().unwrap_or_default();
                let name = KeyValue::new("rpc.response.status_code", name);
                trace.end(name, is_fault(code));
                self.metrics.exemplify(self.place, number(code), took, &trace.context);
            }
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Whether a call that ends so has failed by this server's fault.
///
/// Source: OpenTelemetry semantic conventions, gRPC, "Server".
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// An answer whose messages are counted, and whose end is the end of its call.
#[derive(Debug)]
pub(super) struct CountedAnswer<B> {
    body: B,
    call: Option<OpenCall>,
    framing: Framing,
}

impl CountedAnswer<Body> {
    /// As the framework's body; as it was where the call is not counted here.
    pub(super) fn into_body(self) -> Body {
        if self.call.is_some() { Body::new(self) } else { self.body }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for CountedAnswer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let polled = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let (Some(call), Some(Ok(frame))) = (&mut this.call, &polled) {
            if let Some(data) = frame.data_ref() {
                let (messages, bytes) = this.framing.count(data);
                call.metrics.sent(call.place, messages, bytes);
            } else if let Some(trailers) = frame.trailers_ref() {
                call.end(ended(StatusCode::OK, trailers).unwrap_or(Code::Unknown));
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Framing {
    /// How many messages end in `bytes`, and how many of these are theirs.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> (u64, u64) {
        let (mut messages, mut sum) = (0, 0);
        while !bytes.is_empty() {
            match self.next(&mut bytes, 0) {
                Part::Contents { bytes, is_last } => {
                    messages += u64::from(is_last);
                    sum += bytes as u64;
                }
                Part::Announced(length) => messages += u64::from(length == 0),
                Part::Nothing => {}
            }
        }
        (messages, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_place_and_a_usual_end() {
        let methods = methods(true);
        for (index, method) in methods.iter().enumerate() {
            assert_eq!(methods::index(&format!("/{}", method.name)), Some(index));
            assert!(!method.usual.is_empty(), "{}", method.name);
        }
        assert_eq!(methods::index("/inference.GRPCInferenceService/Nothing"), None);
        assert_eq!(methods::index("/ModelInfer"), None);
    }

    #[test]
    fn messages_are_counted_where_they_end() {
        let mut framing = Framing::default();
        let message = [0, 0, 0, 0, 3, 1, 2, 3];
        assert_eq!(framing.count(&message[..6]), (0, 1));
        assert_eq!(framing.count(&message[6..]), (1, 2));
        let empty = [0; 5];
        assert_eq!(framing.count(&[message.as_slice(), &empty, &message].concat()), (3, 6));
    }
}
