//! `ModelInfer`, the call that nearly all are, from its HTTP request to its HTTP response.
//!
//! The framework's way leads through a router, the gateway for browsers, one stream for the message
//! that comes and one for the message that goes, each with a box and a copy: a sixth of the
//! instructions of a small answer, a third of those of a refusal, and a copy of all bytes of a message.
//! What has nothing to it but a message goes here instead: no compression, no browser, no credentials
//! to look at. All else takes the framework's way; both end in [`InferenceService`]. A second message
//! in a call, which is a caller's mistake, is an error here and ignored there.
//!
//! Refusals for want of time repeat in overload, and what they say is put into headers once.
//!
//! Source: gRPC over HTTP/2, "Requests" and "Responses".

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use prost::Message;
use quick_cache::sync::Cache;
use tokio::time::Instant;
use tonic::Status;

use super::inference::{Call, Failure, Sender};
use super::receive::{FRAME_BYTES, Receiving, prefix, too_many_calls};
use super::service::InferenceService;
use super::status::status;
use super::{deadline, request_id, wire};
use crate::access::methods;
use crate::connection::{Calls, Origin};
use crate::error::{PredictError, Stage, rounded};
use crate::job::ByteBudget;
use crate::pb::{ModelInferRequest, ModelInferResponse};
use crate::telemetry::metrics::calls::CallMetrics;

mod head;

use head::Head;

/// The method.
const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";
/// Refusals whose words are kept; there are some hundreds of different ones.
const KEPT_REFUSALS: usize = 1024;

/// Answers plain calls itself and hands the others on to `S`.
#[derive(Debug)]
pub(super) struct PlainCalls<S>(Arc<Shared<S>>);

/// What settings mean for the way of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// Whether calls have to pass the gate: then there is one way only, and no call is plain.
    pub(super) guarded: bool,
    /// Whether answers are compressed for callers that read that.
    pub(super) compresses: bool,
}

#[derive(Debug)]
struct Shared<S> {
    service: Arc<InferenceService>,
    memory: ByteBudget,
    /// Where messages are counted, and the place of this method there.
    metrics: (CallMetrics, usize),
    ways: Ways,
    refusals: Cache<Refusal, HeaderMap>,
    others: S,
}

impl<S> Clone for PlainCalls<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> PlainCalls<S> {
    /// Plain calls are answered by `service` within `memory` and counted in `calls`; all others are
    /// handed to `others`.
    pub(super) fn new(
        service: Arc<InferenceService>,
        (memory, calls): (ByteBudget, CallMetrics),
        ways: Ways,
        others: S,
    ) -> Self {
        let refusals = Cache::new(KEPT_REFUSALS);
        let place = calls.place(methods::index(PATH));
        let metrics = (calls, place);
        Self(Arc::new(Shared { service, memory, metrics, ways, refusals, others }))
    }
}

impl<S: Calls> Calls for PlainCalls<S> {
    type Body = AnswerBody<S::Body>;
    type Answering = Pin<Box<dyn Future<Output = Response<Self::Body>> + Send>>;

    fn call(&self, request: Request<Incoming>, origin: &Origin) -> Self::Answering {
        let Some(head) = Head::of(&request, origin, self.0.ways) else {
            let answering = self.0.others.call(request, origin);
            return Box::pin(async move { answering.await.map(AnswerBody::Other) });
        };
        let (shared, body) = (Arc::clone(&self.0), request.into_body());
        Box::pin(async move { shared.answer(body, head).await.map(AnswerBody::Plain) })
    }
}

impl<S> Shared<S> {
    async fn answer(&self, body: Incoming, head: Head) -> Response<PlainBody> {
        let message = if let Some(crowded) = head.crowded {
            Err(status(&too_many_calls(crowded), ""))
        } else {
            let (limits, memory) = (self.service.limits(), self.memory.clone());
            // Gone at the end of this block: from then on the request counts, not its body.
            let mut body = Receiving::new(body, false, limits, memory, self.metrics.clone());
            read(&mut body, limits.max_message_bytes).await
        };
        let (message, call) = match message.and_then(|message| self.call(message, head)) {
            Ok(call) => call,
            Err(status) => return status.into_http(),
        };
        let id = match message.id.as_str() {
            "" => call.request_id.clone().unwrap_or_default(),
            own => own.to_owned(),
        };
        let mut response = match self.service.answer(message, call).await {
            Ok(answer) => encode(&answer).unwrap_or_else(Status::into_http),
            Err(failure) => self.refuse(&failure, &id),
        };
        if let Some(told) = request_id::told(&id) {
            response.headers_mut().insert(&request_id::HEADER, told);
        }
        response
    }

    /// A message that has come, and what is known beside it.
    fn call(&self, message: Bytes, head: Head) -> Result<(ModelInferRequest, Call), Status> {
        let message = wire::decode(message)?;
        let arrived_at = Instant::now();
        let timeout = head.timeout.map_err(|error| status(&error.into(), ""))?;
        let deadline = deadline::of(head.lay.came_at(arrived_at), timeout, self.service.limits());
        // Where callers have names, no call is plain.
        let sender = self.service.sender(&http::Extensions::new())?;
        let sender = Sender { tenant: head.connection.0, ..sender };
        let (request_id, trace) = (head.request_id, head.trace);
        Ok((message, Call { arrived_at, deadline, sender, request_id, trace }))
    }

    fn refuse(&self, failure: &Failure, id: &str) -> Response<PlainBody> {
        let told = || failure.status(id).into_http();
        let Some(refusal) = Refusal::of(failure).filter(|_| id.is_empty()) else { return told() };
        if let Some(headers) = self.refusals.get(&refusal) {
            let mut response = Response::new(PlainBody::Done);
            *response.headers_mut() = headers;
            return response;
        }
        let response: Response<PlainBody> = told();
        self.refusals.insert(refusal, response.headers().clone());
        response
    }
}

/// A refusal for want of time, by the numbers in its words: those of estimates, which have one digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Refusal {
    Congested { wait: Duration, left: Duration, retry_after: Duration },
    TooLittleTime { needed: Duration, left: Duration },
    LateAtArrival,
}

impl Refusal {
    fn of(failure: &Failure) -> Option<Self> {
        match failure {
            Failure::Failed(PredictError::Congested { wait, left, retry_after }) => {
                let [wait, left, retry_after] = [*wait, *left, *retry_after].map(rounded);
                Some(Self::Congested { wait, left, retry_after })
            }
            Failure::Failed(PredictError::TooLittleTime { needed, left }) => {
                Some(Self::TooLittleTime { needed: rounded(*needed), left: rounded(*left) })
            }
            Failure::Failed(PredictError::DeadlineExceeded { stage: Stage::Arrival }) => {
                Some(Self::LateAtArrival)
            }
            _ => None,
        }
    }
}

/// The one message of a body.
async fn read<B>(mut body: B, limit: usize) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    let mut received = Received::Nothing;
    while !body.is_end_stream() {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else { break };
        if let Ok(data) = frame?.into_data() {
            received.push(data, limit)?;
        }
    }
    received.message()
}

/// What has come of a message: usually it comes whole, and then nothing is copied.
enum Received {
    Nothing,
    Whole(Bytes),
    Pieces(BytesMut),
}

impl Received {
    fn push(&mut self, data: Bytes, limit: usize) -> Result<(), Status> {
        match self {
            Self::Nothing if data.is_empty() => {}
            Self::Nothing => *self = Self::Whole(data),
            Self::Whole(first) => {
                let mut pieces = BytesMut::from(&first[..]);
                extend(&mut pieces, &data);
                *self = Self::Pieces(pieces);
            }
            Self::Pieces(pieces) => extend(pieces, &data),
        }
        match prefix(self.bytes()) {
            Some((_, length)) if length > limit => Err(too_large(length, limit)),
            _ => Ok(()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Whole(bytes) => bytes,
            Self::Pieces(bytes) => bytes,
        }
    }

    fn message(self) -> Result<Bytes, Status> {
        let Some((flag, length)) = prefix(self.bytes()) else {
            return Err(Status::internal("the request has no message"));
        };
        let came = self.bytes().len() - FRAME_BYTES;
        if flag != 0 {
            return Err(Status::internal(format!(
                "the message is marked as compressed ({flag}) and the call names no grpc-encoding"
            )));
        }
        if came != length {
            return Err(Status::internal(format!(
                "the request has {came} bytes where its one message of {length} is expected"
            )));
        }
        let mut bytes = match self {
            Self::Nothing => Bytes::new(),
            Self::Whole(bytes) => bytes,
            Self::Pieces(bytes) => bytes.freeze(),
        };
        Ok(bytes.split_off(FRAME_BYTES))
    }
}

/// Why a message is not read.
fn too_large(length: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!("message has {length} bytes, the limit is {limit}"))
}

/// Adds `data`, with room for the whole message as far as what has come bears it out: a length by
/// itself reserves nothing.
fn extend(pieces: &mut BytesMut, data: &[u8]) {
    if pieces.capacity() - pieces.len() < data.len() {
        let whole = prefix(pieces).map_or(0, |(_, length)| length.saturating_add(FRAME_BYTES));
        let room = whole.min(pieces.len() * GROWTH).saturating_sub(pieces.len());
        pieces.reserve(room.max(data.len()));
    }
    pieces.extend_from_slice(data);
}

/// Room is made for so many times what has come.
const GROWTH: usize = 8;

/// An answer that is a message and OK.
fn encode(answer: &ModelInferResponse) -> Result<Response<PlainBody>, Status> {
    let length = answer.encoded_len();
    let too_large = |_| Status::internal(format!("the answer of {length} bytes is too large"));
    let announced = u32::try_from(length).map_err(too_large)?;
    let mut message = BytesMut::with_capacity(FRAME_BYTES + length);
    message.put_u8(0);
    message.put_u32(announced);
    answer.encode(&mut message).map_err(|error| Status::internal(error.to_string()))?;
    let mut response = Response::new(PlainBody::Message(message.freeze()));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// What is left of an answer.
#[derive(Debug, Default)]
pub(super) enum PlainBody {
    /// The message, then its status.
    Message(Bytes),
    /// The status OK.
    Status,
    /// Nothing, or all of it was in the headers.
    #[default]
    Done,
}

impl PlainBody {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        match std::mem::take(self) {
            Self::Message(message) => {
                *self = Self::Status;
                Some(Frame::data(message))
            }
            Self::Status => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Frame::trailers(trailers))
            }
            Self::Done => None,
        }
    }
}

/// The body of an answer, whichever way the call went.
#[derive(Debug)]
pub(super) enum AnswerBody<B> {
    Plain(PlainBody),
    Other(B),
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut *self {
            Self::Plain(body) => Poll::Ready(body.next().map(Ok)),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => matches!(body, PlainBody::Done),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            // Without a length, so that none is announced beside the trailers.
            Self::Plain(_) => SizeHint::default(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests;
