//! Counts calls from their headers to the last byte of their answer.
//!
//! A drain waits for calls, not for connections: a peer that keeps a connection open and says
//! nothing must not hold the server up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

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

    /// A call begins, unless `limit` are open; whether it does. Then it has to [`Self::end`].
    pub(super) fn begin(&self, limit: usize) -> bool {
        let raise = |open: usize| (open < limit).then_some(open + 1);
        self.0.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).is_ok()
    }

    /// A call ends.
    pub(super) fn end(&self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_open_than_may_be() {
        let calls = OpenCalls::default();
        assert!(calls.begin(2) && calls.begin(2) && !calls.begin(2));
        assert_eq!(calls.count(), 2);
        calls.end();
        assert!(calls.begin(2));
        calls.end();
        calls.end();
        assert_eq!(calls.count(), 0);
    }
}
