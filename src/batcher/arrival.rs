//! A request that comes to the queue: what is known of it, and the parts that it is split into.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::admission::Newcomer;
use super::pending::Entry;
use super::state::State;
use super::ticket::Places;
use crate::deadline::Deadline;
use crate::job::{Answer, BytePermit, Job, Part, Reply};
use crate::request::{BatchKey, ValidRequest};

/// Most parts of one request: more would fill the queue.
const MOST_PARTS: usize = 64;

/// A request that has just come.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) key: Option<BatchKey>,
    pub(super) rows: usize,
    pub(super) now: Instant,
    pub(super) newcomer: Newcomer,
}

impl Arrival {
    pub(super) fn new(
        request: &ValidRequest,
        deadline: Deadline,
        now: Instant,
        default_priority: u64,
        state: &State,
    ) -> Self {
        let is_suspect = state.suspects.is_suspect(request.tenant(), now);
        let key = request.batch_key().filter(|_| !is_suspect).cloned();
        let (all, length) = (request.rows(), request.length());
        let splits = state.policy.splits && request.batch_key().is_some();
        let parts = if splits { state.parts(all, length) } else { 1 };
        let priority = match request.priority() {
            0 => default_priority,
            stated => stated,
        };
        let (tenant, work) = (request.tenant(), state.work(all, length));
        let rows = all.div_ceil(parts);
        let newcomer = Newcomer { rows, parts, length, priority, tenant, deadline, work };
        Self { key, rows: all, now, newcomer }
    }

    fn entry(&self, rows: usize, payload: Job) -> Entry<Job> {
        let Newcomer { parts, length, priority, tenant, deadline, work, .. } = self.newcomer;
        let work = work / u32::try_from(parts).unwrap_or(u32::MAX);
        let enqueued_at = self.now;
        Entry { rows, length, enqueued_at, deadline, priority, tenant, work, payload }
    }
}

impl State {
    /// How many parts a request is split into: one, unless it has more rows than a run may have. Then
    /// each is as large as a run should be.
    fn parts(&self, rows: usize, length: usize) -> usize {
        let most = self.policy.max_rows.max(1);
        if rows <= most {
            return 1;
        }
        let size = if self.policy.measured { self.costs.best_rows(length, most) } else { most };
        rows.div_ceil(size).clamp(1, MOST_PARTS.max(rows.div_ceil(most)))
    }

    /// Queues a request. Returns where it lies, and the end on which its caller waits.
    pub(super) fn push(
        &mut self,
        arrival: Arrival,
        request: ValidRequest,
        (permit, answer_permit): (BytePermit, Arc<BytePermit>),
    ) -> (Places, oneshot::Receiver<Answer>) {
        let (deadline, enqueued_at) = (arrival.newcomer.deadline, arrival.now);
        let parts = arrival.newcomer.parts;
        let permit = Arc::new(permit);
        if parts <= 1 {
            let (reply, receiver) = Reply::channel();
            let rows = None;
            let job = Job {
                request,
                deadline,
                enqueued_at,
                rows,
                place: None,
                reply,
                permit,
                answer_permit,
            };
            let entry = arrival.entry(arrival.rows, job);
            return (Places::One([self.pending.push(arrival.key, entry)]), receiver);
        }
        let (replies, receiver) = Part::channel(parts);
        let ranges = ranges(arrival.rows, parts);
        let mut keys = Vec::with_capacity(parts);
        for (reply, rows) in replies.into_iter().zip(ranges) {
            let (request, permit) = (request.clone(), Arc::clone(&permit));
            let (answer_permit, count) = (Arc::clone(&answer_permit), rows.len());
            let rows = Some(rows);
            let job = Job {
                request,
                deadline,
                enqueued_at,
                rows,
                place: None,
                reply,
                permit,
                answer_permit,
            };
            let entry = arrival.entry(count, job);
            keys.push(self.pending.push(arrival.key.clone(), entry));
        }
        (Places::Many(keys), receiver)
    }
}

/// `rows` in `parts` ranges that differ by one at most.
fn ranges(rows: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let edge = move |part: usize| rows * part / parts;
    (0..parts).map(move |part| edge(part)..edge(part + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_rows_in_order() {
        for (rows, parts) in [(7, 3), (64, 1), (65, 2), (4096, 64)] {
            let all: Vec<Range<usize>> = ranges(rows, parts).collect();
            assert_eq!((all[0].start, all[parts - 1].end), (0, rows));
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(all.iter().all(|range| range.len().abs_diff(rows / parts) <= 1));
        }
    }
}
