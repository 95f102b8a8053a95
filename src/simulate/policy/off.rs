//! No batching: one request a run, first in, first out; expired ones are not run.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Admission, Instances, Next, Picked, Policy, Request};

/// Batching switched off.
#[derive(Debug, Default)]
pub struct Off {
    queue: VecDeque<Request>,
}

impl Policy for Off {
    fn arrive(&mut self, _: Duration, request: &Request, _: &Instances<'_>) -> Admission {
        self.queue.push_back(*request);
        Admission::Accepted
    }

    fn next(&mut self, now: Duration, _: &Instances<'_>, picked: &mut Picked) -> Next {
        while let Some(request) = self.queue.pop_front() {
            if request.is_expired(now) {
                picked.dropped.push(request);
            } else {
                picked.riders.push(request);
                return Next::Run;
            }
        }
        Next::Idle
    }

    fn ran(&mut self, _: u32, _: Duration) {}
}
