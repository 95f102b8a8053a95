//! The loop of one worker thread.
//!
//! Takes batches until the queue is drained. Catches panics, answers their riders, and builds a
//! new executor: whatever a panic left behind is not trusted again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Executor, PoolShared, REBUILD_PAUSE, batch};
use crate::error::{ExecuteError, PredictError};
use crate::processor;

/// Serves the queue with `executor` until it is drained.
pub(super) fn work(shared: &PoolShared, instance: usize, mut executor: Box<dyn Executor>) {
    let _last = LastOut(shared);
    loop {
        let stop = executor.stopper();
        let Some(batch) = shared.batcher.next_batch(instance, &stop) else { return };
        let sequence = batch.sequence;
        let mut riders = Some(batch);
        // Unwind safety: the executor is replaced after a panic; all else in reach is shared with
        // other threads already and keeps its own order.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            if let Some(batch) = riders.take() {
                batch::run(shared, executor.as_mut(), batch);
            }
        }));
        shared.batch_over(sequence);
        if let Err(panic) = outcome {
            let (error, now) = (ExecuteError::Panicked(panic_text(panic.as_ref())), Instant::now());
            if let Some(left_out) = shared.failure_lines.allow(now) {
                tracing::error!(
                    model = %shared.model, version = shared.version, instance, %error, left_out, "instance is built anew"
                );
            }
            shared.fitness.panicked(now);
            shared.metrics.panics.inc();
            drop(executor);
            let Some(rebuilt) = rebuild(shared, instance) else { return };
            executor = rebuilt;
        }
        processor::let_in();
    }
}

/// Answers what still waits as lost when the last thread ends: nobody is left to run it.
struct LastOut<'a>(&'a PoolShared);

impl Drop for LastOut<'_> {
    fn drop(&mut self) {
        // AcqRel: the last one sees what the others have done.
        if self.0.at_work.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.batcher.fail_pending(&PredictError::WorkerLost);
        }
    }
}

/// Builds a new executor, again and again while the queue is open. `None` once it is drained and
/// no executor could be built; what still waits is left to the other instances.
fn rebuild(shared: &PoolShared, instance: usize) -> Option<Box<dyn Executor>> {
    loop {
        // Unwind safety: what a panic leaves half made is dropped with it.
        let made = catch_unwind(AssertUnwindSafe(|| (shared.make)(instance)));
        match made.unwrap_or_else(|panic| Err(panic_text(panic.as_ref()))) {
            Ok(executor) => return Some(executor),
            Err(reason) => {
                tracing::error!(model = %shared.model, version = shared.version, instance, %reason, "cannot rebuild instance");
                if shared.batcher.wait_for_drain(REBUILD_PAUSE) {
                    return None;
                }
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}
