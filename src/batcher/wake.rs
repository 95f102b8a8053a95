//! Wakes a worker after the requests that arrived together.
//!
//! A worker that is woken by the first of many requests takes that one alone, often by interrupting
//! the very thread that is about to bring the others. So the wake-up is a task of its own, which
//! lets everything that is ready on its thread run first: whatever arrived together is then queued
//! and runs together. It waits for nothing else, so an idle server loses no time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use super::Shared;

/// Schedules a wake-up of one worker of `queue`. Without a runtime there are no others to wait
/// for, and it comes at once.
pub(super) fn after_others(queue: &Arc<Shared>) {
    match Handle::try_current() {
        Ok(runtime) => {
            let queue = Arc::clone(queue);
            drop(runtime.spawn(async move {
                AfterOthers { yielded: false }.await;
                queue.wake_one();
            }));
        }
        Err(_) => queue.wake_one(),
    }
}

/// Ready when every task has run that was ready on this thread before it. A task that wakes itself
/// goes to the end of the line.
struct AfterOthers {
    yielded: bool,
}

impl Future for AfterOthers {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
