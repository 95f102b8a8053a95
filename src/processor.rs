//! How the threads that serve connections and the workers share a processor, where they have to.
//!
//! *When bytes come.* Usually the run that keeps the processor busy is interrupted: the request is
//! taken in at once. In overload it is not: each refusal then costs a change of threads and cold
//! caches, several times of what the refusal itself does. So while a thread refuses many requests it
//! is put into the scheduling class that never interrupts, and takes what came in one go, when a
//! processor is free or the run has used its slice of some milliseconds.
//!
//! *When a run ends*, and there is one processor only. The system gives each side half of it, which can
//! be too little for the one that takes requests in: they then wait in sockets, where their age cannot
//! be seen, nothing looks like too much, and what runs is answered too late, all of it, for as long as
//! that lasts. So a worker lets the other side catch up before its next run: what waits, waits in a
//! queue, where it is seen and rides in the same batch.
//!
//! With processors to spare the first changes nothing. Source: `sched(7)`, `SCHED_BATCH`.
#![expect(unsafe_code, reason = "one system call that no library in the tree wraps")]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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
/// Turns of that thread and of the workers on the one processor.
static TURNS: Turns = Turns::new();

/// The manners of a thread that serves connections.
struct Thread(Cell<Manners>);

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

/// Who waits for whom: workers between two runs, for the thread that serves connections.
///
/// Sequential consistency, because each side says something and then looks at what the other said:
/// one of the two has to see the other.
struct Turns {
    /// Whether that thread has nothing to do.
    idle: AtomicBool,
    /// Workers that wait until it has.
    waiting: AtomicUsize,
    /// How often it had nothing more to do while a worker waited.
    times: Mutex<u64>,
    caught_up: Condvar,
}

impl Turns {
    const fn new() -> Self {
        let (idle, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { idle, waiting, times: Mutex::new(0), caught_up: Condvar::new() }
    }

    fn times(&self) -> MutexGuard<'_, u64> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nothing_to_do(&self) {
        self.idle.store(true, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            *self.times() += 1;
            self.caught_up.notify_all();
        }
    }

    fn something_to_do(&self) {
        self.idle.store(false, Ordering::SeqCst);
    }

    /// Waits until there is nothing to do, at most for `patience`.
    fn wait(&self, patience: Duration) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let times = self.times();
        if !self.idle.load(Ordering::SeqCst) {
            let before = *times;
            let still = |times: &mut u64| *times == before;
            drop(self.caught_up.wait_timeout_while(times, patience, still));
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// To be called when a thread that serves connections is about to wait for events.
pub fn parking() {
    if SHARED.load(Ordering::Relaxed) {
        TURNS.nothing_to_do();
    }
    THREAD.with(|Thread(thread)| {
        let before = thread.get();
        if before == Manners::NEW {
            return;
        }
        let manners = before.at(Instant::now());
        thread.set(manners);
        match (before.waits, manners.waits) {
            (false, true) => set_class(libc::SCHED_BATCH),
            (true, false) => set_class(libc::SCHED_OTHER),
            _ => {}
        }
    });
}

/// To be called when events have come for a thread that waited for them.
pub fn woken() {
    if SHARED.load(Ordering::Relaxed) {
        TURNS.something_to_do();
    }
}

/// To be called once, at the start: all threads share one processor.
pub fn is_the_only_one() {
    SHARED.store(true, Ordering::Relaxed);
}

/// Called by a worker between two runs: what arrived during the run is let in, so that it rides in
/// the next one. On the only processor the worker waits until that is done, at most for
/// [`PATIENCE`]; with processors to spare this returns at once.
pub fn let_in() {
    // First a thread that was woken and has not run yet.
    std::thread::yield_now();
    if SHARED.load(Ordering::Relaxed) {
        TURNS.wait(PATIENCE);
    }
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
        end_of_window();
        assert_eq!(class(), libc::SCHED_OTHER);
    }

    #[test]
    fn a_worker_waits_until_the_thread_has_nothing_more_to_do_and_not_for_ever() {
        let (turns, long) = (Turns::new(), Duration::from_mins(1));
        let asked_at = Instant::now();
        turns.nothing_to_do();
        turns.wait(long);
        for times in 1..=50 {
            turns.something_to_do();
            std::thread::scope(|scope| {
                let worker = scope.spawn(|| turns.wait(long));
                while turns.waiting.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                turns.nothing_to_do();
                worker.join().unwrap();
            });
            assert_eq!(*turns.times(), times);
            assert!(asked_at.elapsed() < long, "it is told");
        }
        turns.something_to_do();
        let asked_at = Instant::now();
        turns.wait(Duration::from_millis(1));
        assert!(asked_at.elapsed() >= Duration::from_millis(1));
    }
}
