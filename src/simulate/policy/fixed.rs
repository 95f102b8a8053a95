//! Fixed settings, as Triton's dynamic batcher has them: the policy to be measured against.
//!
//! Modelled on its behaviour: a batch is the longest prefix of the queue within the maximum size. A
//! preferred size that is reached runs at once; with none stated the maximum is the only one. Less
//! waits until the oldest has waited for the delay. A request that waited longer than the queue's
//! timeout is rejected when it is looked at, not before. The caller's own deadline is not looked at,
//! unless callers state a timeout in the message and the queue lets it count.
//!
//! Two things are easier here than there, both to the good of the figures: a batch is formed when
//! an instance is free, not ahead of that, and deciding costs no time.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Admission, Instances, Next, Picked, Policy, Request};

/// When a request has waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueTimeout {
    /// Never.
    Off,
    /// After this time in the queue (`default_timeout_microseconds`).
    After(Duration),
    /// As each caller states (`allow_timeout_override`): this long before its deadline.
    Callers {
        /// Time that callers set aside for the run.
        margin: Duration,
    },
}

/// What an operator can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most rows in a run.
    pub max_batch: u32,
    /// Sizes that run at once; none: only the largest.
    pub preferred: Vec<u32>,
    /// How long the oldest waits for company.
    pub delay: Duration,
    /// Most requests that wait; more are refused.
    pub queue_limit: Option<usize>,
    /// When a request has waited too long.
    pub queue_timeout: QueueTimeout,
}

impl Settings {
    /// What Triton does when nothing but dynamic batching is asked for: all that waits, at once, and
    /// a queue without bounds.
    pub fn out_of_the_box(max_batch: u32) -> Self {
        Self {
            max_batch,
            preferred: Vec::new(),
            delay: Duration::ZERO,
            queue_limit: None,
            queue_timeout: QueueTimeout::Off,
        }
    }
}

/// A queue with fixed settings.
#[derive(Debug)]
pub struct Fixed {
    settings: Settings,
    queue: VecDeque<Request>,
    rows: u32,
}

impl Fixed {
    /// An empty queue.
    pub fn new(mut settings: Settings) -> Self {
        settings.max_batch = settings.max_batch.max(1);
        if settings.preferred.is_empty() {
            settings.preferred.push(settings.max_batch);
        }
        settings.preferred.sort_unstable();
        Self { settings, queue: VecDeque::new(), rows: 0 }
    }

    /// When the request is rejected if it still waits.
    fn timeout(&self, request: &Request) -> Duration {
        match self.settings.queue_timeout {
            QueueTimeout::Off => Duration::MAX,
            QueueTimeout::After(limit) => request.came_at + limit,
            QueueTimeout::Callers { margin } => request.deadline.saturating_sub(margin),
        }
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.queue.pop_front()?;
        self.rows -= request.rows;
        Some(request)
    }

    /// Whether no size that is worth looking for can be there.
    fn is_short(&self) -> bool {
        self.settings.preferred.first().is_some_and(|smallest| self.rows < *smallest)
    }

    /// Rows of the batch to run now; `None` if it is worth waiting.
    fn size(&self, now: Duration, elapsed: bool) -> Option<u32> {
        let largest = self.settings.preferred.last().copied().unwrap_or(self.settings.max_batch);
        let (mut rows, mut preferred, mut full) = (0, None, false);
        for request in self.queue.iter().filter(|request| now <= self.timeout(request)) {
            let with = rows + request.rows;
            if rows > 0 && with > largest && preferred.is_none() {
                preferred = Some(rows);
            }
            if rows > 0 && with > self.settings.max_batch {
                full = true;
                break;
            }
            rows = with;
            if self.settings.preferred.binary_search(&rows).is_ok() {
                preferred = Some(rows);
            }
            if rows >= self.settings.max_batch {
                full = true;
                break;
            }
        }
        if elapsed {
            return Some(rows);
        }
        let at_once = full || self.settings.delay.is_zero();
        preferred.or_else(|| at_once.then_some(rows))
    }
}

impl Policy for Fixed {
    fn arrive(&mut self, _: Duration, request: &Request, _: &Instances<'_>) -> Admission {
        if self.settings.queue_limit.is_some_and(|limit| self.queue.len() >= limit) {
            return Admission::Refused;
        }
        self.queue.push_back(*request);
        self.rows += request.rows;
        Admission::Accepted
    }

    fn next(&mut self, now: Duration, _: &Instances<'_>, picked: &mut Picked) -> Next {
        while self.queue.front().is_some_and(|front| self.timeout(front) < now) {
            picked.dropped.extend(self.pop());
        }
        let Some(oldest) = self.queue.front() else { return Next::Idle };
        let patience = oldest.came_at + self.settings.delay;
        let elapsed = !self.settings.delay.is_zero() && patience <= now;
        // One nanosecond later it is rejected.
        let timeout = self.timeout(oldest).saturating_add(Duration::from_nanos(1));
        let later = Next::Wait(patience.min(timeout));
        if self.is_short() && !elapsed && !self.settings.delay.is_zero() {
            return later;
        }
        let Some(size) = self.size(now, elapsed) else { return later };
        let mut rows = 0;
        while rows < size
            && let Some(request) = self.pop()
        {
            if self.timeout(&request) < now {
                picked.dropped.push(request);
            } else {
                rows += request.rows;
                picked.riders.push(request);
            }
        }
        Next::Run
    }

    fn ran(&mut self, _: u32, _: Duration) {}
}
