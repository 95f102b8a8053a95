//! Counts calls from their headers to the last byte of their answer.
//!
//! A drain waits for calls, not for connections: a peer that keeps a connection open and says
//! nothing must not hold the server up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;

use crate::telemetry::metrics::Counted;

/// Calls that are open on all connections. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct OpenCalls(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    open: AtomicUsize,
    none: Notify,
}

impl OpenCalls {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Waits until there are none.
    pub async fn none(&self) {
        loop {
            let notified = self.0.none.notified();
            tokio::pin!(notified);
            // Listening before looking: the last call may end in between.
            notified.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// A call begins, unless `limit` are open; it ends when the guard is dropped.
    pub(super) fn begin(&self, limit: usize) -> Option<OpenCall> {
        let raise = |open: usize| (open < limit).then_some(open + 1);
        self.0.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).ok()?;
        Some(OpenCall(Arc::clone(&self.0)))
    }
}

/// One open call.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<Counter>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

/// An answer that keeps its call open until its last byte was taken, if the call counts.
pub(super) struct CountedBody<B> {
    body: B,
    _call: Option<Call>,
}

/// An open call, counted for all ports and for its own.
pub(super) type Call = (OpenCall, Counted);

impl<B> CountedBody<B> {
    pub(super) fn new(body: B, call: Option<Call>) -> Self {
        Self { body, _call: call }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_open_than_may_be() {
        let calls = OpenCalls::default();
        let (one, two) = (calls.begin(2), calls.begin(2));
        assert!(one.is_some() && two.is_some() && calls.begin(2).is_none());
        assert_eq!(calls.count(), 2);
        drop(one);
        assert!(calls.begin(2).is_some());
        drop(two);
        assert_eq!(calls.count(), 0);
    }
}
