//! Wakes workers when the async side has nothing else to do.
//!
//! A worker that is woken by the first request of many takes that one alone, often by interrupting
//! the very thread that is about to bring the others. So a thread of the async runtime that says so
//! keeps its wake-ups until it is about to sleep: whatever arrived together then runs together. A
//! bound in requests and one in time keep a busy thread from keeping a worker idle. Every other
//! thread wakes at once.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;

/// Requests after which a busy thread wakes workers all the same.
const MAX_KEPT_REQUESTS: usize = 64;
/// Time after which a busy thread wakes workers at its next request.
const MAX_KEPT_TIME: Duration = Duration::from_micros(100);

/// Wake-ups that this thread keeps; `None` on a thread that never said that it would deliver them.
#[derive(Default)]
struct Kept {
    queues: Vec<Arc<Shared>>,
    requests: usize,
    since: Option<Instant>,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// Says that this thread will call [`deliver`] whenever it is about to sleep.
pub fn keep_on_this_thread() {
    KEPT.with_borrow_mut(|kept| *kept = Some(Kept::default()));
}

/// Delivers what this thread has kept. Called before it sleeps or ends.
pub fn deliver() {
    let queues = KEPT.with_borrow_mut(|kept| match kept {
        Some(kept) if !kept.queues.is_empty() => std::mem::take(kept).queues,
        _ => Vec::new(),
    });
    for queue in queues {
        queue.work.notify_one();
    }
}

/// Wakes a worker of `queue`, for a request that arrived at `now`: at once, or when this thread is
/// about to sleep.
pub(super) fn one(queue: &Arc<Shared>, now: Instant) {
    let at_once = KEPT.with_borrow_mut(|kept| {
        let Some(kept) = kept else { return true };
        if !kept.queues.iter().any(|known| Arc::ptr_eq(known, queue)) {
            kept.queues.push(Arc::clone(queue));
        }
        kept.requests += 1;
        let since = *kept.since.get_or_insert(now);
        if kept.requests >= MAX_KEPT_REQUESTS || now - since >= MAX_KEPT_TIME {
            return true;
        }
        false
    });
    if at_once {
        deliver();
        // On a thread that keeps nothing there was nothing to deliver.
        if !keeps() {
            queue.work.notify_one();
        }
    }
}

fn keeps() -> bool {
    KEPT.with_borrow(Option::is_some)
}
