//! The caller's end of a queued request.
//!
//! Waiting on it gives the answer or, at the deadline, the reason. Dropping it at any point is how
//! a caller leaves: the request gives its place and its memory back at once.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::Shared;
use super::pending::JobKey;
use crate::deadline::Deadline;
use crate::error::{PredictError, Stage};
use crate::job::{Answer, BytePermit};

/// A place in the queue. Dropping it gives the place up.
#[derive(Debug)]
pub struct Ticket {
    place: Place,
    receiver: oneshot::Receiver<Answer>,
    deadline: Deadline,
    /// An answer that its caller has not taken yet is memory too.
    _answer_permit: Arc<BytePermit>,
}

/// Where the parts of a request lie; nearly always there is one.
#[derive(Debug)]
pub(super) enum Places {
    One([JobKey; 1]),
    Many(Vec<JobKey>),
}

impl Places {
    fn keys(&self) -> &[JobKey] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    jobs: Places,
    answered: bool,
}

impl Ticket {
    pub(super) fn new(
        shared: Arc<Shared>,
        (receiver, answer_permit): (oneshot::Receiver<Answer>, Arc<BytePermit>),
        jobs: Places,
        deadline: Deadline,
    ) -> Self {
        let place = Place { shared, jobs, answered: false };
        Self { place, receiver, deadline, _answer_permit: answer_permit }
    }

    /// Waits for the answer, at most until the deadline. Dropping the future gives the place up.
    ///
    /// # Errors
    /// What the request ended with; [`PredictError::DeadlineExceeded`] with the stage that the
    /// deadline met it in; [`PredictError::WorkerLost`] if the worker went away with it.
    pub async fn answer(mut self) -> Answer {
        tokio::select! {
            biased;
            answer = &mut self.receiver => {
                self.place.answered = true;
                answer.unwrap_or(Err(PredictError::WorkerLost))
            }
            () = sleep_until(self.deadline.instant()) => {
                Err(PredictError::DeadlineExceeded { stage: self.place.leave() })
            }
        }
    }
}

impl Place {
    fn leave(&mut self) -> Stage {
        self.answered = true;
        self.shared.leave(self.jobs.keys())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.answered {
            self.leave();
        }
    }
}
