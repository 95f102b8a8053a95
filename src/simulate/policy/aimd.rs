//! Batch sizes by additive increase and multiplicative decrease, as Clipper found them.
//!
//! The maximum grows by a step after each full run within the latency target and shrinks by a tenth
//! after each run beyond it. Nothing waits for company; expired requests are not run. What it
//! cannot know is where the time per row is best: it grows as long as the target allows.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Admission, Instances, Next, Picked, Policy, Request};

/// A queue whose maximum adapts.
#[derive(Debug)]
pub struct Aimd {
    queue: VecDeque<Request>,
    max_batch: u32,
    top: u32,
    step: u32,
    target: Duration,
}

impl Aimd {
    /// An empty queue that begins with 1 row a run and stays at or below `top`. Runs are to take no
    /// longer than `target`.
    pub fn new(top: u32, target: Duration) -> Self {
        // So large that a short simulation sees it settle.
        let step = (top / 32).max(1);
        Self { queue: VecDeque::new(), max_batch: 1, top: top.max(1), step, target }
    }
}

impl Policy for Aimd {
    fn arrive(&mut self, _: Duration, request: &Request, _: &Instances<'_>) -> Admission {
        self.queue.push_back(*request);
        Admission::Accepted
    }

    fn next(&mut self, now: Duration, _: &Instances<'_>, picked: &mut Picked) -> Next {
        let mut rows = 0;
        while let Some(request) = self.queue.front().copied() {
            let expired = request.is_expired(now);
            if !expired && rows > 0 && rows + request.rows > self.max_batch {
                break;
            }
            self.queue.pop_front();
            if expired {
                picked.dropped.push(request);
            } else {
                rows += request.rows;
                picked.riders.push(request);
            }
        }
        if picked.riders.is_empty() { Next::Idle } else { Next::Run }
    }

    fn ran(&mut self, rows: u32, took: Duration) {
        if took > self.target {
            self.max_batch = (self.max_batch - self.max_batch.div_ceil(10)).max(1);
        } else if rows >= self.max_batch {
            self.max_batch = (self.max_batch + self.step).min(self.top);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Aimd, Policy};
    use std::time::Duration;

    #[test]
    fn the_size_grows_by_steps_and_shrinks_by_a_tenth() {
        let (good, bad) = (Duration::from_millis(1), Duration::from_millis(3));
        let mut aimd = Aimd::new(64, Duration::from_millis(2));
        for rows in (1..64).step_by(2) {
            assert_eq!(aimd.max_batch, rows);
            aimd.ran(rows - rows / 2, good);
            assert_eq!(aimd.max_batch, if rows == 1 { 3 } else { rows }, "a run that was not full");
            if rows > 1 {
                aimd.ran(rows, good);
            }
        }
        aimd.ran(64, good);
        assert_eq!(aimd.max_batch, 64);
        for rows in [57, 51, 45, 40] {
            aimd.ran(1, bad);
            assert_eq!(aimd.max_batch, rows);
        }
        for _ in 0..60 {
            aimd.ran(1, bad);
        }
        assert_eq!(aimd.max_batch, 1);
    }
}
