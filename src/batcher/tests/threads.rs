//! Workers that really wait: what wakes them, and that no wake-up is lost.

use std::thread;

use super::*;

/// Returns once `count` workers wait inside the queue; panics if that takes too long.
fn until_waiting(batcher: &Batcher, count: usize) {
    let begun_at = Instant::now();
    while batcher.shared.lock().waiting_workers != count {
        assert!(begun_at.elapsed() < PATIENCE, "{count} workers should wait");
        thread::yield_now();
    }
}

/// A worker that sends its batches, and then that it has ended.
struct Worker {
    batches: mpsc::Receiver<Option<Batch>>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    fn start(batcher: &Batcher, instance: usize) -> Self {
        let (sender, batches) = mpsc::channel();
        let batcher = batcher.clone();
        let thread = thread::spawn(move || {
            loop {
                let stop: Arc<dyn Stop> = Arc::new(Stops::default());
                let batch = batcher.next_batch(instance, &stop);
                let ended = batch.is_none();
                sender.send(batch).unwrap();
                if ended {
                    return;
                }
            }
        });
        Self { batches, thread }
    }

    fn batch(&self) -> Batch {
        self.batches.recv_timeout(PATIENCE).expect("a batch in time").expect("an open queue")
    }

    fn end(self) {
        assert!(self.batches.recv_timeout(PATIENCE).expect("an end in time").is_none());
        self.thread.join().unwrap();
    }
}

#[test]
fn a_request_wakes_an_idle_worker_and_draining_ends_it() {
    let batcher = batcher(eager(8));
    let worker = Worker::start(&batcher, 0);
    until_waiting(&batcher, 1);
    let ticket = submit(&batcher, 2);
    let batch = worker.batch();
    assert_eq!((batch.rows, batch.reason), (2, CutReason::WorkerFree));
    answer_all(batch);
    assert!(wait(ticket).is_ok());
    until_waiting(&batcher, 1);
    batcher.drain();
    worker.end();
    assert_eq!(batcher.depth(), depth(0, 0, 0));
}

#[test]
fn company_that_makes_the_batch_full_ends_the_wait() {
    let batcher = batcher(patient(3));
    let worker = Worker::start(&batcher, 0);
    let first = submit(&batcher, 1);
    until_waiting(&batcher, 1);
    let second = submit(&batcher, 2);
    let batch = worker.batch();
    assert_eq!((batch.rows, batch.reason), (3, CutReason::Full));
    drop((first, second));
    batcher.drain();
    worker.end();
}

#[test]
fn draining_ends_the_wait_for_company() {
    let batcher = batcher(patient(3));
    let worker = Worker::start(&batcher, 0);
    let ticket = submit(&batcher, 1);
    until_waiting(&batcher, 1);
    batcher.drain();
    assert_eq!(worker.batch().reason, CutReason::Draining);
    drop(ticket);
    worker.end();
}

#[test]
fn a_new_policy_ends_the_wait_for_company() {
    let batcher = batcher(patient(3));
    let worker = Worker::start(&batcher, 0);
    let ticket = submit(&batcher, 1);
    until_waiting(&batcher, 1);
    batcher.set_policy(eager(3));
    assert_eq!(worker.batch().reason, CutReason::WorkerFree);
    drop(ticket);
    batcher.drain();
    worker.end();
}

#[test]
fn the_end_of_a_short_delay_cuts_without_another_event() {
    let policy = BatchPolicy { max_queue_delay: Duration::from_millis(1), ..eager(3) };
    let batcher = batcher(policy.clone());
    let now = Instant::now();
    let ticket = batcher.submit(request(1, 1), Deadline::after(now, HOUR), now).unwrap();
    let (batch, _) = next(&batcher);
    assert_eq!(batch.reason, CutReason::DelayElapsed);
    assert!(batch.cut_at - now >= policy.max_queue_delay);
    drop(ticket);
}

#[test]
fn a_batch_that_leaves_work_behind_wakes_the_next_worker() {
    let batcher = batcher(patient(2));
    let first = submit(&batcher, 1);
    let workers = [0, 1].map(|instance| {
        let batcher = batcher.clone();
        let (sender, batch) = mpsc::channel();
        let work = move || {
            let stop: Arc<dyn Stop> = Arc::new(Stops::default());
            sender.send(batcher.next_batch(instance, &stop)).unwrap();
        };
        (thread::spawn(work), batch)
    });
    until_waiting(&batcher, 2);
    // One request wakes one worker, but what waits is now two full batches.
    let second = submit(&batcher, 2);
    let mut rows: Vec<usize> = Vec::new();
    for (thread, batch) in workers {
        rows.push(batch.recv_timeout(PATIENCE).expect("a batch in time").unwrap().rows);
        thread.join().unwrap();
    }
    rows.sort_unstable();
    assert_eq!(rows, [1, 2]);
    drop((first, second));
}

#[test]
fn a_worker_that_waits_for_draining_does_not_swallow_wake_ups() {
    let batcher = batcher(eager(8));
    let worker = Worker::start(&batcher, 0);
    let (ready, readied) = mpsc::channel();
    let rebuilding: Vec<_> = (0..8)
        .map(|_| {
            let (batcher, ready) = (batcher.clone(), ready.clone());
            thread::spawn(move || {
                ready.send(()).unwrap();
                batcher.wait_for_drain(HOUR)
            })
        })
        .collect();
    for _ in &rebuilding {
        readied.recv_timeout(PATIENCE).unwrap();
    }
    for _ in 0..100 {
        until_waiting(&batcher, 1);
        let ticket = submit(&batcher, 1);
        answer_all(worker.batch());
        assert!(wait(ticket).is_ok());
    }
    batcher.drain();
    worker.end();
    for waiting in rebuilding {
        assert!(waiting.join().unwrap());
    }
}

#[test]
fn many_callers_and_workers_lose_nothing() {
    let limits =
        QueueLimits { max_jobs: 64, bytes: ByteBudget::new(1 << 20), default_priority: 100 };
    let batcher = Batcher::new(eager(16), limits, 3, costs());
    let workers: Vec<_> = (0..3)
        .map(|instance| {
            let batcher = batcher.clone();
            thread::spawn(move || {
                let stop: Arc<dyn Stop> = Arc::new(Stops::default());
                let (mut runs, mut requests) = (0, 0);
                while let Some(batch) = batcher.next_batch(instance, &stop) {
                    assert!(batch.rows <= 16);
                    runs += 1;
                    requests += batch.jobs.len();
                    answer_all(batch);
                }
                (runs, requests)
            })
        })
        .collect();
    let callers: Vec<_> = (0..4_usize)
        .map(|caller| {
            let batcher = batcher.clone();
            thread::spawn(move || {
                let mut left = 0;
                for round in 0..50 {
                    let tickets: Vec<Ticket> = (1..=8).map(|rows| submit(&batcher, rows)).collect();
                    for (index, ticket) in tickets.into_iter().enumerate() {
                        if (round + index + caller).is_multiple_of(5) {
                            drop(ticket);
                            left += 1;
                        } else {
                            let rows = i64::try_from(index + 1).unwrap();
                            let answer = wait(ticket).unwrap();
                            assert_eq!(answer.outputs[0].1.shape().dims(), [rows, 1]);
                        }
                    }
                }
                left
            })
        })
        .collect();
    let left: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    batcher.drain();
    let totals = workers.into_iter().map(|worker| worker.join().unwrap());
    let (runs, requests) = totals.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
    assert!(requests >= 1600 - left && requests <= 1600, "{requests} of 1600, {left} left");
    assert!(runs < requests, "requests never met: the test says nothing");
    assert_eq!((batcher.depth(), budget(&batcher).taken()), (depth(0, 0, 0), 0));
}
