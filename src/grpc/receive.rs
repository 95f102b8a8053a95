//! Messages on their way in: their memory counts while they come, and they must come.
//!
//! The frame in front of a message announces its length. One that will never fit, or does not now, is
//! refused there, before its bytes are read; then every byte counts as it comes, so that a length by
//! itself takes nothing from others, and the codec sees a large message only when half of it is there
//! ([`held`]). A body that brings no byte for a while is given up, unless it is a stream between two
//! messages. What is compressed is made plain last ([`decompressed`](mod@decompressed)).
//!
//! Source: gRPC over HTTP/2, "Requests" (`Length-Prefixed-Message`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tower::BoxError;

use super::status::status;
use crate::access::methods;
use crate::config::RequestLimits;
use crate::connection::Crowded;
use crate::error::PredictError;
use crate::job::{ByteBudget, BytePermit};
use crate::telemetry::metrics::calls::CallMetrics;

mod decompressed;
mod held;

pub(super) use decompressed::decompressed;
use held::{Held, SMALL_MESSAGE_BYTES};

/// Methods that take a stream of messages; all others take one.
const STREAMS: [&str; 2] = ["ModelStreamInfer", "ServerReflectionInfo"];

/// `request` with a body that is counted and waited for with an end.
pub(super) fn bounded(
    request: http::Request<Body>,
    limits: &RequestLimits,
    budget: &ByteBudget,
    calls: &CallMetrics,
) -> http::Request<Body> {
    let path = request.uri().path();
    let method = path.rsplit('/').next();
    let is_stream = method.is_some_and(|method| STREAMS.contains(&method));
    let metrics = (calls.clone(), calls.place(methods::index(path)));
    let crowded = request.extensions().get::<Crowded>().copied();
    request.map(|body| {
        let receiving = Receiving::new(body, is_stream, limits, budget.clone(), metrics);
        Body::new(Receiving { crowded, ..receiving })
    })
}

/// A body that is counted and waited for with an end.
#[derive(Debug)]
pub(super) struct Receiving<B> {
    body: B,
    is_stream: bool,
    message_limit: usize,
    patience: Patience,
    budget: ByteBudget,
    permit: Option<BytePermit>,
    framing: Framing,
    /// The beginning of a message that the codec is not to see yet.
    held: Held,
    /// Whether what is held goes on to the codec, because enough of it is there.
    releases: bool,
    /// The beginning of the message after the one that is released.
    next: Bytes,
    /// The call is not to be taken.
    crowded: Option<Crowded>,
    failed: bool,
    /// Where messages are counted, and the place of their method there.
    metrics: (CallMetrics, usize),
}

impl<B> Receiving<B> {
    pub(super) fn new(
        body: B,
        is_stream: bool,
        limits: &RequestLimits,
        budget: ByteBudget,
        metrics: (CallMetrics, usize),
    ) -> Self {
        Self {
            body,
            is_stream,
            message_limit: limits.max_message_bytes,
            patience: Patience::new(limits),
            budget,
            permit: None,
            framing: Framing::default(),
            held: Held::default(),
            releases: false,
            next: Bytes::new(),
            crowded: None,
            failed: false,
            metrics,
        }
    }

    /// Counts what has come and says how much of it the codec may see now; the rest is held.
    fn pass(&mut self, mut data: Bytes) -> Result<Option<Bytes>, PredictError> {
        self.count(&data)?;
        let keeps = self.framing.is_large_and_begins(self.message_limit);
        if self.held.is_empty() && !keeps {
            return Ok(Some(data));
        }
        // What belongs to the message before does not wait for this one.
        let before = self.framing.began_at.filter(|_| keeps).map(|at| data.split_to(at));
        if self.held.is_empty() {
            self.held.push(data);
            return Ok(before.filter(|before| !before.is_empty()));
        }
        self.releases = before.is_some() || !keeps;
        if let Some(before) = before {
            self.held.push(before);
            self.next = data;
        } else {
            self.held.push(data);
        }
        Ok(self.release())
    }

    /// The next part of what was held, if it may go on.
    fn release(&mut self) -> Option<Bytes> {
        if !self.releases {
            return None;
        }
        let part = self.held.pop();
        if self.held.is_empty() {
            self.releases = false;
            self.held.push(std::mem::take(&mut self.next));
        }
        part
    }

    /// Counts what has come.
    fn count(&mut self, mut bytes: &[u8]) -> Result<(), PredictError> {
        let whole = bytes.len();
        self.framing.began_at = None;
        while !bytes.is_empty() {
            let at = whole - bytes.len();
            match self.framing.next(&mut bytes, at) {
                Part::Nothing => {}
                Part::Announced(length) => {
                    if length == 0 {
                        self.metrics.0.received(self.metrics.1, 1, 0);
                    }
                    // The codec has the better words for a message above its limit.
                    let length = if length > self.message_limit { 0 } else { length };
                    if !self.budget.has_room(length) {
                        return Err(full(&self.budget, length));
                    }
                }
                Part::Contents { bytes, is_last } => {
                    let (calls, place) = &self.metrics;
                    calls.received(*place, u64::from(is_last), bytes as u64);
                    let permit = self.permit.get_or_insert_with(|| self.budget.charge(0));
                    if !self.budget.extend(permit, bytes) {
                        return Err(full(&self.budget, bytes));
                    }
                    // It is decoded before the next one is asked for, and counts as a request.
                    if is_last && self.is_stream {
                        self.permit = None;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Why `bytes` more are not read.
pub fn full(budget: &ByteBudget, bytes: usize) -> PredictError {
    PredictError::Full {
        what: "memory for requests",
        used: budget.taken(),
        limit: budget.limit(),
        unit: "bytes",
        retry_after: (bytes <= budget.limit()).then_some(RETRY_AFTER),
    }
}

/// Why a call beyond those that may be open is not taken.
pub fn too_many_calls(Crowded { limit }: Crowded) -> PredictError {
    let retry_after = Some(RETRY_AFTER);
    PredictError::Full { what: "the server", used: limit, limit, unit: "calls", retry_after }
}

/// When a message that does not fit now is worth another try: runs take this long.
const RETRY_AFTER: Duration = Duration::from_millis(10);

impl<B> HttpBody for Receiving<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        if let Some(crowded) = this.crowded {
            this.failed = true;
            return Poll::Ready(Some(Err(status(&too_many_calls(crowded), ""))));
        }
        loop {
            if let Some(part) = this.release() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            let counted = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending if this.is_stream && this.framing.is_between() => {
                    this.patience.pause();
                    return Poll::Pending;
                }
                Poll::Pending => Err(ready!(this.patience.poll(context))),
                Poll::Ready(Some(Ok(frame))) => {
                    this.patience.progress();
                    match frame.into_data() {
                        Ok(data) => this.pass(data).map(|data| data.map(Frame::data)),
                        Err(trailers) => Ok(Some(trailers)),
                    }
                }
                // The codec has the words for a message that breaks off.
                Poll::Ready(None) if !this.held.is_empty() => {
                    this.releases = true;
                    Ok(None)
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                Poll::Ready(None) => return Poll::Ready(None),
            };
            match counted {
                Ok(None) => {}
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(error) => {
                    (this.failed, this.permit, this.held) = (true, None, Held::default());
                    return Poll::Ready(Some(Err(status(&error, ""))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.held.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

/// Bytes of the frame in front of a message: a flag and a length.
pub(super) const FRAME_BYTES: usize = 5;

/// Flag and length in front of a message, once they are there.
pub(super) fn prefix(bytes: &[u8]) -> Option<(u8, usize)> {
    let ([flag, length @ ..], _) = bytes.split_first_chunk::<FRAME_BYTES>()?;
    Some((*flag, usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX)))
}

/// Where in its messages a body is.
#[derive(Debug, Default)]
pub(super) struct Framing {
    frame: [u8; FRAME_BYTES],
    seen: usize,
    left: usize,
    /// Length of the message that is under way.
    length: usize,
    /// Where its frame lies in the part that came last, if it does.
    began_at: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A part of a frame.
    Nothing,
    /// A message of that length begins.
    Announced(usize),
    /// So many bytes of it.
    Contents { bytes: usize, is_last: bool },
}

impl Framing {
    /// Goes on with `bytes`, which begin `at` so many bytes into the part that came.
    pub(super) fn next(&mut self, bytes: &mut &[u8], at: usize) -> Part {
        let wanted = if self.left > 0 { self.left } else { FRAME_BYTES - self.seen };
        let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
        *bytes = rest;
        if self.left > 0 {
            self.left -= part.len();
            return Part::Contents { bytes: part.len(), is_last: self.left == 0 };
        }
        self.began_at = Some(at);
        self.frame[self.seen..self.seen + part.len()].copy_from_slice(part);
        self.seen += part.len();
        if self.seen < FRAME_BYTES {
            return Part::Nothing;
        }
        self.seen = 0;
        let [_, length @ ..] = self.frame;
        self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        self.length = self.left;
        Part::Announced(self.left)
    }

    /// Whether a large message is under way of which less than half is there. One above `limit` is
    /// none: it is refused at once.
    fn is_large_and_begins(&self, limit: usize) -> bool {
        self.length > SMALL_MESSAGE_BYTES && self.length <= limit && self.left > self.length / 2
    }

    fn is_between(&self) -> bool {
        self.seen == 0 && self.left == 0
    }
}

/// How long a message is waited for.
#[derive(Debug)]
struct Patience {
    silence: Duration,
    whole: Duration,
    /// When the wait for the message began and when its last byte came; `None` while none is
    /// waited for.
    since: Option<(Instant, Instant)>,
    /// Set at the first wait, and then again only when it has rung.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limits: &RequestLimits) -> Self {
        Self { silence: limits.body_read, whole: limits.max_timeout, since: None, timer: None }
    }

    /// Ready when it is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<PredictError> {
        let (began, last) = *self.since.get_or_insert_with(|| {
            let now = Instant::now();
            (now, now)
        });
        let (silent, late) = (last + self.silence, began + self.whole);
        let end = silent.min(late);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.deadline() < end {
            ready!(timer.as_mut().poll(context));
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(context));
        Poll::Ready(if silent <= late {
            PredictError::Stalled { what: "no byte of it", limit: self.silence }
        } else {
            PredictError::Stalled { what: "not all of it", limit: self.whole }
        })
    }

    fn progress(&mut self) {
        if let Some((_, last)) = &mut self.since {
            *last = Instant::now();
        }
    }

    fn pause(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests;
