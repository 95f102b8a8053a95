//! One request in flight, from submit to reply, and the way back to its caller.
//!
//! A job is moved, never shared: whoever holds it owes the reply. Dropping it unanswered closes
//! the channel, which the caller reads as a lost worker, so no path can leave a caller hanging.
//! Knows no queue, no thread and no message.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batcher::pending::JobKey;
use crate::deadline::Deadline;
use crate::error::PredictError;
use crate::request::{InferResponse, ValidRequest};

pub mod courier;
mod parts;

pub use parts::Part;

/// What a caller gets.
pub type Answer = Result<InferResponse, PredictError>;

/// One request in flight.
#[derive(Debug)]
pub struct Job {
    /// The request.
    pub request: ValidRequest,
    /// When the answer is worth nothing any more.
    pub deadline: Deadline,
    /// When it was submitted.
    pub enqueued_at: Instant,
    /// The rows that this job is for, where a request was split into several; `None` for all.
    pub rows: Option<Range<usize>>,
    /// Where it waited, once it was handed to a worker: its caller leaves by this.
    pub place: Option<JobKey>,
    /// The way back.
    pub reply: Reply,
    /// Share of the memory budget, given back when the last job of the request is dropped.
    pub permit: Arc<BytePermit>,
    /// The share of the answer, which is nothing before there is one. Given back when the caller
    /// has taken the answer or left.
    pub answer_permit: Arc<BytePermit>,
}

/// The right and duty to answer one caller, once; or a part of it.
#[derive(Debug)]
pub enum Reply {
    /// For all rows of a request.
    Whole(oneshot::Sender<Answer>),
    /// For one part of them.
    Part(Part),
}

impl Reply {
    /// A reply and the end on which its caller waits.
    pub fn channel() -> (Self, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (Self::Whole(sender), receiver)
    }

    /// Answers; an error in place of a part is the answer to the whole. A caller that has left in
    /// the meantime is no error.
    pub fn send(self, answer: Answer) {
        match self {
            Self::Whole(sender) => drop(sender.send(answer)),
            Self::Part(part) => part.send(answer),
        }
    }

    /// Whether the caller has left, or was answered already.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Self::Whole(sender) => sender.is_closed(),
            Self::Part(part) => part.is_abandoned(),
        }
    }
}

/// Ends a run from another thread.
pub trait Stop: Send + Sync {
    /// Asks the run to end at its next node. Called at most while that run is under way.
    fn stop(&self);
}

impl fmt::Debug for dyn Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

/// Memory that all requests in the process may hold together, in bytes.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

impl AsRef<Self> for ByteBudget {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A share of a [`ByteBudget`]; dropping it gives the share back.
#[derive(Debug)]
pub struct BytePermit {
    taken: Arc<AtomicUsize>,
    bytes: AtomicUsize,
}

impl ByteBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { taken: Arc::default(), limit }
    }

    /// Takes `bytes`; `None` if that would exceed the limit.
    pub fn take(&self, bytes: usize) -> Option<BytePermit> {
        // Relaxed: the number guards no other memory.
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let permit = self.permit(bytes);
        // Over the limit, the permit's drop gives back what was taken a moment too much.
        (before.saturating_add(bytes) <= self.limit).then_some(permit)
    }

    /// Takes `bytes` that are there already, whatever the limit; newcomers wait for their end.
    pub fn charge(&self, bytes: usize) -> BytePermit {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.permit(bytes)
    }

    /// Whether `bytes` could be taken now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.taken().saturating_add(bytes) <= self.limit
    }

    /// Takes `bytes` more for `permit`, unless that would exceed the limit; whether it did.
    pub fn extend(&self, permit: &BytePermit, bytes: usize) -> bool {
        let Some(more) = self.take(bytes) else { return false };
        permit.bytes.fetch_add(more.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        true
    }

    fn permit(&self, bytes: usize) -> BytePermit {
        BytePermit { taken: Arc::clone(&self.taken), bytes: bytes.into() }
    }

    /// Bytes that are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl BytePermit {
    /// Holds `bytes` more, which are there already.
    pub fn grow(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.taken.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_whatever_became_of_it() {
        let budget = ByteBudget::new(100);
        let request = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        assert!(budget.extend(&request, 30));
        assert!(!budget.extend(&request, 11));
        assert_eq!(budget.taken(), 90);
        request.grow(5);
        assert_eq!(budget.taken(), 95);
        let answer = budget.charge(200);
        assert!(budget.take(1).is_none(), "answers are there, so newcomers wait");
        drop((request, answer));
        assert_eq!(budget.taken(), 0);
    }
}
