//! How the threads that serve connections and the workers share a processor, where they have to.
//!
//! *When bytes come.* Usually the run that keeps the processor busy is interrupted: the request is
//! taken in at once. In overload it is not: each refusal then costs a change of threads and cold
//! caches, several times of what the refusal itself does. So while a thread refuses many requests it
//! is put into the scheduling class that never interrupts, and takes what came in one go, when a
//! processor is free or the run has used its slice of some milliseconds.
//!
//! *When a run ends*, and there is one processor only. The system gives each side half of it. In
//! overload that can be too little for the one that takes requests in: they then wait in sockets, where
//! their age cannot be seen, and what runs is answered too late, all of it, for as long as the overload
//! lasts. So while requests are refused, a worker lets the other side catch up before its next run.
//!
//! With processors to spare the first changes nothing. Source: `sched(7)`, `SCHED_BATCH`.
#![expect(unsafe_code, reason = "one system call that no library in the tree wraps")]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Refusals are counted in windows of this length.
const WINDOW: Duration = Duration::from_millis(100);
/// A thread that refuses so many in a window stops to interrupt: they cost about 2 % of a processor.
const MANY: u32 = 30;
/// A thread that refuses no more than so many in a window interrupts again.
const FEW: u32 = 10;

/// Longest that a worker lets the others go first. Not reached unless they are busy without an end.
const PATIENCE: Duration = Duration::from_millis(20);

thread_local! {
    static THREAD: Thread = const { Thread(Cell::new(Manners::NEW)) };
}

/// Whether all threads share one processor.
static SHARED: AtomicBool = AtomicBool::new(false);
/// Threads that serve connections and wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// How often one of them had nothing more to do.
static CAUGHT_UP: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());

/// The manners of a thread that serves connections.
struct Thread(Cell<Manners>);

impl Drop for Thread {
    fn drop(&mut self) {
        if self.0.get().waits {
            WAITING.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a thread does when bytes come, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Manners {
    waits: bool,
    refusals: u32,
    since: Option<Instant>,
}

impl Manners {
    const NEW: Self = Self { waits: false, refusals: 0, since: None };

    /// At the end of a window, what holds in the next one.
    fn at(self, now: Instant) -> Self {
        match self.since {
            Some(since) if now.saturating_duration_since(since) < WINDOW => self,
            None if self.refusals == 0 => self,
            None => Self { since: Some(now), ..self },
            Some(_) => {
                let waits = self.refusals > if self.waits { FEW } else { MANY };
                let since = (waits || self.refusals > 0).then_some(now);
                Self { waits, refusals: 0, since }
            }
        }
    }
}

/// A request was refused on this thread, for want of time or room.
pub fn refused() {
    THREAD.with(|Thread(thread)| {
        let manners = thread.get();
        thread.set(Manners { refusals: manners.refusals.saturating_add(1), ..manners });
    });
}

/// To be called when this thread is about to wait for events.
pub fn parking() {
    THREAD.with(|Thread(thread)| {
        let before = thread.get();
        if before == Manners::NEW {
            return;
        }
        let manners = before.at(Instant::now());
        thread.set(manners);
        if before.waits {
            *caught_up() += 1;
            CAUGHT_UP.1.notify_all();
        }
        match (before.waits, manners.waits) {
            (false, true) => {
                WAITING.fetch_add(1, Ordering::Relaxed);
                set_class(libc::SCHED_BATCH);
            }
            (true, false) => {
                WAITING.fetch_sub(1, Ordering::Relaxed);
                set_class(libc::SCHED_OTHER);
            }
            _ => {}
        }
    });
}

/// To be called once, at the start: all threads share one processor.
pub fn is_the_only_one() {
    SHARED.store(true, Ordering::Relaxed);
}

fn caught_up() -> std::sync::MutexGuard<'static, u64> {
    CAUGHT_UP.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called by a worker between two runs: what arrived during the run is let in, so that it rides in
/// the next one. In overload of the only processor the worker waits until that is done, at most for
/// [`PATIENCE`]; with processors to spare this returns at once.
pub fn let_in() {
    if !SHARED.load(Ordering::Relaxed) || WAITING.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
        return;
    }
    let before = *caught_up();
    let still = |times: &mut u64| *times == before;
    drop(CAUGHT_UP.1.wait_timeout_while(caught_up(), PATIENCE, still));
}

/// Not allowed (a sandbox forbids the call): then all stays as it is, which is right but slower.
fn set_class(class: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the parameters outlive the call, which does not keep them.
    unsafe { libc::sched_setscheduler(0, class, &raw const parameters) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread does after windows with so many refusals each.
    fn after(windows: &[u32]) -> Manners {
        let mut now = Instant::now();
        windows.iter().fold(Manners::NEW, |manners, &refusals| {
            let manners = Manners { refusals, ..manners }.at(now);
            now += WINDOW;
            manners.at(now)
        })
    }

    #[test]
    fn many_refusals_make_it_wait_and_few_do_not() {
        assert!(!after(&[MANY]).waits);
        assert!(after(&[MANY + 1]).waits);
        assert!(after(&[MANY + 1, FEW + 1]).waits, "it does not go back and forth");
        assert!(!after(&[MANY + 1, FEW]).waits);
    }

    #[test]
    fn a_quiet_thread_reads_no_clock() {
        assert_eq!(after(&[0]), Manners::NEW);
        assert_eq!(after(&[MANY + 1, 0, 0]), Manners::NEW);
    }

    #[test]
    fn the_class_of_the_thread_follows() {
        // SAFETY: 0 is the calling thread.
        let class = || unsafe { libc::sched_getscheduler(0) };
        let end_of_window = || {
            let ago = Instant::now().checked_sub(WINDOW).unwrap();
            THREAD.with(|Thread(thread)| {
                thread.set(Manners { since: Some(ago), ..thread.get() });
            });
            parking();
        };
        (0..=MANY).for_each(|_| refused());
        end_of_window();
        assert_eq!(class(), libc::SCHED_BATCH);
        assert_eq!(WAITING.load(Ordering::Relaxed), 1);
        is_the_only_one();
        // A worker waits until the thread has nothing more to do, and not for ever.
        let asked_at = Instant::now();
        let_in();
        assert!(asked_at.elapsed() >= PATIENCE);
        let worker = std::thread::spawn(let_in);
        while !worker.is_finished() {
            parking();
        }
        end_of_window();
        assert_eq!(class(), libc::SCHED_OTHER);
        assert_eq!(WAITING.load(Ordering::Relaxed), 0);
    }
}
