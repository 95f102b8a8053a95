//! Callers and workers in every order of their steps, up to a number of preemptions, with loom
//! (`tests/loom.sh`): no wake-up is lost, each request that was taken gets its one answer, and what it
//! held is given back.
//!
//! A lost wake-up is a thread that waits for ever, which loom reports as a deadlock. Draining wakes
//! everybody and would hide it, so most workers here end by themselves. A step goes from one use of
//! the queue's lock or its conditions to the next. Here a wait with a limit ends by a wake-up only,
//! and whoever has waited longest is woken first.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use loom::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Runtime};

use super::*;

/// The clock of those who look for their answer.
static CLOCK: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

/// Plays `model` in every order. Each of `ends`, which are sorted, must be met, and no other.
fn explore(ends: &[&'static str], model: impl Fn() -> &'static str + Send + Sync + 'static) {
    LazyLock::force(&CLOCK);
    let met = Arc::new(std::sync::Mutex::new(BTreeMap::<_, usize>::new()));
    let notes = Arc::clone(&met);
    loom::model(move || {
        let end = model();
        *notes.lock().unwrap().entry(end).or_default() += 1;
    });
    let met = met.lock().unwrap();
    println!("orders: {met:?}");
    assert!(met.keys().eq(ends), "{met:?}");
}

/// A queue that `instances` workers serve.
fn queue(policy: BatchPolicy, instances: usize) -> Batcher {
    let limits = QueueLimits { max_jobs: 8, bytes: ByteBudget::new(1000), default_priority: 100 };
    Batcher::new(policy, limits, instances, costs())
}

fn start<T: 'static>(
    batcher: &Batcher,
    run: impl FnOnce(&Batcher) -> T + 'static,
) -> JoinHandle<T> {
    let batcher = batcher.clone();
    thread::spawn(move || run(&batcher))
}

fn take(batcher: &Batcher, instance: usize) -> Option<Batch> {
    let stop: Arc<dyn Stop> = Arc::new(Stops::default());
    batcher.next_batch(instance, &stop)
}

/// A worker that ends when it has answered so many requests.
fn serve(batcher: &Batcher, instance: usize, requests: usize) {
    let mut answered = 0;
    while answered < requests {
        let batch = take(batcher, instance).expect("the queue is open");
        answered += batch.jobs.len();
        answer_all(batch);
    }
}

/// A worker as it is.
fn serve_all(batcher: &Batcher, instance: usize) {
    while let Some(batch) = take(batcher, instance) {
        answer_all(batch);
    }
}

fn try_submit(batcher: &Batcher, rows: usize, width: usize) -> Result<Ticket, PredictError> {
    let now = Instant::now();
    batcher.submit(request(rows, width), Deadline::after(now, HOUR), now)
}

/// The answer of a ticket, which must be there.
fn answer(ticket: Ticket) -> Answer {
    let _clock = CLOCK.enter();
    match pin!(ticket.answer()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("a request was forgotten"),
    }
}

/// Nothing waits, and nothing of the memory is taken.
fn assert_settled(batcher: &Batcher) {
    let depth = batcher.depth();
    assert_eq!((depth.jobs, depth.rows, budget(batcher).taken()), (0, 0, 0));
}

#[test]
fn a_request_wakes_the_worker() {
    explore(&["answered"], || {
        let batcher = queue(eager(8), 1);
        let worker = start(&batcher, |batcher| serve(batcher, 0, 2));
        let tickets = [submit(&batcher, 1), submit(&batcher, 2)];
        worker.join().unwrap();
        for ticket in tickets {
            assert!(answer(ticket).is_ok());
        }
        assert_settled(&batcher);
        "answered"
    });
}

#[test]
fn company_that_makes_the_batch_full_ends_the_wait() {
    explore(&["answered"], || {
        let batcher = queue(patient(3), 1);
        let worker = start(&batcher, |batcher| serve(batcher, 0, 2));
        let tickets = [submit(&batcher, 1), submit(&batcher, 2)];
        worker.join().unwrap();
        for ticket in tickets {
            assert_eq!(answer(ticket).unwrap().batch_rows, 3);
        }
        assert_settled(&batcher);
        "answered"
    });
}

#[test]
fn a_new_policy_ends_the_wait_for_company() {
    explore(&["answered"], || {
        let batcher = queue(patient(3), 1);
        let worker = start(&batcher, |batcher| serve(batcher, 0, 1));
        let ticket = submit(&batcher, 1);
        batcher.set_policy(eager(3));
        worker.join().unwrap();
        assert!(answer(ticket).is_ok());
        assert_settled(&batcher);
        "answered"
    });
}

/// Two callers share a wake-up, but their requests cannot share a run, and no run ends before both
/// have begun.
#[test]
fn a_batch_that_leaves_work_behind_wakes_the_next_worker() {
    explore(&["answered"], || {
        let batcher = queue(eager(8), 2);
        let workers =
            [0, 1].map(|instance| start(&batcher, move |batcher| serve(batcher, instance, 1)));
        let caller = start(&batcher, |batcher| try_submit(batcher, 1, 2).unwrap());
        let tickets = [try_submit(&batcher, 1, 1).unwrap(), caller.join().unwrap()];
        for worker in workers {
            worker.join().unwrap();
        }
        for ticket in tickets {
            assert!(answer(ticket).is_ok());
        }
        assert_settled(&batcher);
        "answered"
    });
}

#[test]
fn whoever_leaves_frees_its_place_or_stops_the_run_that_it_rides() {
    let ends = ["after them", "in the first run", "in the second run", "while it waited"];
    explore(&ends, || {
        let batcher = queue(eager(8), 1);
        let worker = start(&batcher, |batcher| {
            let stops = [0, 1].map(|_| Arc::new(Stops::default()));
            let [first, second] = stops.clone().map(|stops| stops as Arc<dyn Stop>);
            let batch = batcher.next_batch(0, &first)?;
            let riders = batch.jobs.iter().filter_map(|job| job.place).collect();
            let wanted = batcher.rides(0, riders, second);
            // Another look at the lock: the caller may leave here.
            batcher.depth();
            let stopped = stops.map(|stops| stops.count());
            assert_eq!(batch.jobs[0].reply.is_abandoned(), stopped != [0, 0]);
            answer_all(batch);
            assert!(take(batcher, 0).is_none());
            Some((wanted, stopped))
        });
        drop(submit(&batcher, 1));
        batcher.drain();
        let end = match worker.join().unwrap() {
            None => "while it waited",
            Some((false, [1, 0])) => "in the first run",
            Some((true, [0, 1])) => "in the second run",
            Some((true, [0, 0])) => "after them",
            other => panic!("{other:?}"),
        };
        assert_settled(&batcher);
        end
    });
}

#[test]
fn whoever_leaves_takes_nobodys_wake_up_along() {
    explore(&["answered"], || {
        let batcher = queue(eager(8), 1);
        let worker = start(&batcher, |batcher| {
            let mut stayed = false;
            while !stayed {
                let batch = take(batcher, 0).expect("the queue is open");
                stayed = batch.jobs.iter().any(|job| job.request.rows() == 2);
                answer_all(batch);
            }
        });
        let leaver = start(&batcher, |batcher| drop(submit(batcher, 1)));
        let ticket = submit(&batcher, 2);
        worker.join().unwrap();
        leaver.join().unwrap();
        assert!(answer(ticket).is_ok());
        assert_settled(&batcher);
        "answered"
    });
}

#[test]
fn what_comes_while_draining_begins_is_answered_or_refused() {
    explore(&["answered", "refused"], || {
        let batcher = queue(eager(8), 2);
        let workers =
            [0, 1].map(|instance| start(&batcher, move |batcher| serve_all(batcher, instance)));
        let caller = start(&batcher, |batcher| try_submit(batcher, 1, 1));
        batcher.drain();
        for worker in workers {
            worker.join().unwrap();
        }
        let end = match caller.join().unwrap() {
            Ok(ticket) => {
                assert!(answer(ticket).is_ok());
                "answered"
            }
            Err(error) => {
                assert_eq!(error, PredictError::ShuttingDown);
                "refused"
            }
        };
        assert_settled(&batcher);
        end
    });
}

/// As the last worker ends that could not be built anew.
#[test]
fn what_nobody_is_left_to_run_is_answered_or_refused() {
    explore(&["lost", "refused"], || {
        let batcher = queue(eager(8), 1);
        let caller = start(&batcher, |batcher| try_submit(batcher, 1, 1));
        batcher.drain();
        batcher.fail_pending(&PredictError::WorkerLost);
        let end = match caller.join().unwrap().map(answer) {
            Ok(lost) => {
                assert_eq!(lost.unwrap_err(), PredictError::WorkerLost);
                "lost"
            }
            Err(error) => {
                assert_eq!(error, PredictError::ShuttingDown);
                "refused"
            }
        };
        assert_settled(&batcher);
        end
    });
}

#[test]
fn what_waits_is_run_or_failed() {
    explore(&["failed", "run"], || {
        let batcher = queue(eager(8), 1);
        let worker = start(&batcher, |batcher| serve_all(batcher, 0));
        let caller = start(&batcher, |batcher| submit(batcher, 1));
        batcher.fail_pending(&PredictError::WorkerLost);
        let ticket = caller.join().unwrap();
        batcher.drain();
        worker.join().unwrap();
        let end = match answer(ticket) {
            Ok(_) => "run",
            Err(error) => {
                assert_eq!(error, PredictError::WorkerLost);
                "failed"
            }
        };
        assert_settled(&batcher);
        end
    });
}

#[test]
fn whoever_waits_for_draining_swallows_no_wake_up_and_sees_it_begin() {
    explore(&["answered"], || {
        let batcher = queue(eager(8), 2);
        let rebuilding = start(&batcher, |batcher| batcher.wait_for_drain(HOUR));
        let worker = start(&batcher, |batcher| serve(batcher, 0, 1));
        let ticket = submit(&batcher, 1);
        worker.join().unwrap();
        batcher.drain();
        assert!(rebuilding.join().unwrap());
        assert!(answer(ticket).is_ok());
        assert_settled(&batcher);
        "answered"
    });
}
