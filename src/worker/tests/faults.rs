//! Requests, runs and executors that fail: the guilty one alone pays, and the pool serves on.

use super::scripted::{Build, PANIC, RUNTIME_FAULT, WRONG_INPUT};
use super::*;

fn is_invalid(error: &PredictError) -> bool {
    matches!(error, PredictError::Invalid(_))
}

fn is_failed(error: &PredictError) -> bool {
    matches!(error, PredictError::ExecutionFailed(_))
}

/// Seven neighbours and one guilty request in the middle of a batch of eight.
async fn one_of_eight(marker: i64, is_right: fn(&PredictError) -> bool) {
    let (bench, hold) = Bench::held(64);
    let plug = bench.plug(&hold).await;
    let tickets: Vec<_> =
        (1..=8).map(|number| bench.submit(&[if number == 4 { marker } else { number }])).collect();
    drop(hold);
    numbers(plug).await;
    for (ticket, number) in tickets.into_iter().zip(1..) {
        if number == 4 {
            let error = answer(ticket).await.unwrap_err();
            assert!(is_right(&error), "{error:?}");
            assert!(!error.to_string().contains("as told"), "causes stay in the log: {error}");
        } else {
            assert_eq!(numbers(ticket).await, [number]);
        }
    }
    assert_eq!(bench.script.runs(), [1, 8, 4, 2, 2, 1, 1, 4]);
    assert_eq!(bench.counter("failed_runs", ""), 1);
    let sums = bench.snapshot();
    assert_eq!((sums.executions, sums.queue.count), (4, 8), "runs that gave answers");
    bench.finish().await;
}

#[tokio::test]
async fn a_wrong_input_is_refused_alone() {
    one_of_eight(WRONG_INPUT, is_invalid).await;
}

#[tokio::test]
async fn a_runtime_fault_fails_its_request_alone() {
    one_of_eight(RUNTIME_FAULT, is_failed).await;
}

#[tokio::test]
async fn several_guilty_requests_are_all_found() {
    let (bench, hold) = Bench::held(64);
    let plug = bench.plug(&hold).await;
    let rows = [&[1][..], &[WRONG_INPUT], &[3, 3], &[4, RUNTIME_FAULT], &[5]];
    let tickets = rows.map(|rows| bench.submit(rows));
    drop(hold);
    numbers(plug).await;
    let [one, two, three, four, five] = tickets;
    assert_eq!(numbers(one).await, [1]);
    assert!(is_invalid(&answer(two).await.unwrap_err()));
    assert_eq!(numbers(three).await, [3, 3]);
    assert!(is_failed(&answer(four).await.unwrap_err()));
    assert_eq!(numbers(five).await, [5]);
    bench.finish().await;
}

#[tokio::test]
async fn without_budget_a_fault_is_shared() {
    let (bench, hold) = Bench::held(2);
    // Two guilty requests in a batch cost a split and give no run that succeeds. A burst of 14
    // splits is allowed; one that succeeds earns a tenth, which is not enough for another.
    for round in 0..15 {
        let plug = bench.plug(&hold).await;
        let guilty = [[RUNTIME_FAULT], [RUNTIME_FAULT]].map(|rows| bench.submit(&rows));
        hold.release();
        numbers(plug).await;
        let runs = if round < 14 { &[2, 1, 1][..] } else { &[2] };
        for rows in runs {
            assert_eq!(hold.entered().await, *rows, "round {round}");
            hold.release();
        }
        for ticket in guilty {
            assert!(is_failed(&answer(ticket).await.unwrap_err()));
        }
    }
    let plug = bench.plug(&hold).await;
    let [guilty, innocent] = [[WRONG_INPUT], [1]].map(|rows| bench.submit(&rows));
    drop(hold);
    numbers(plug).await;
    // Nothing is left to find the guilty one with, so nobody is told that its input was wrong.
    assert!(is_failed(&answer(guilty).await.unwrap_err()));
    assert!(is_failed(&answer(innocent).await.unwrap_err()));
    bench.finish().await;
}

#[tokio::test]
async fn halves_are_not_run_for_callers_that_left() {
    let (bench, hold) = Bench::held(64);
    let plug = bench.plug(&hold).await;
    let rows = [[1], [2], [WRONG_INPUT], [4]];
    let [one, two, guilty, four] = rows.map(|rows| bench.submit(&rows));
    hold.release();
    numbers(plug).await;
    assert_eq!(hold.entered().await, 4);
    drop((one, two));
    drop(hold);
    assert!(is_invalid(&answer(guilty).await.unwrap_err()));
    assert_eq!(numbers(four).await, [4]);
    assert_eq!(bench.script.runs(), [1, 4, 2, 1, 1]);
    bench.finish().await;
}

#[tokio::test]
async fn a_half_that_everybody_left_is_stopped_whatever_the_other_half_does() {
    let (bench, hold) = Bench::held(64);
    let plug = bench.plug(&hold).await;
    let rows = [[WRONG_INPUT], [2], [3], [4]];
    let [guilty, two, three, four] = rows.map(|rows| bench.submit(&rows));
    hold.release();
    numbers(plug).await;
    // All four, the half with the fault, its two halves, the other half.
    for rows in [4, 2, 1, 1] {
        assert_eq!(hold.entered().await, rows);
        hold.release();
    }
    assert!(is_invalid(&answer(guilty).await.unwrap_err()));
    assert_eq!(numbers(two).await, [2]);
    assert_eq!(hold.entered().await, 2);
    drop(three);
    assert_eq!(bench.script.stops(), 0, "somebody still waits");
    drop(four);
    assert_eq!(bench.script.stops(), 1);
    hold.release();
    // What was stopped is not what runs next.
    let next = bench.submit(&[7]);
    assert_eq!(hold.entered().await, 1);
    drop(hold);
    assert_eq!(numbers(next).await, [7]);
    assert_eq!(bench.counter("stopped_runs", ""), 1);
    bench.finish().await;
}

#[tokio::test]
async fn a_panic_loses_its_riders_only_and_the_executor_is_built_anew() {
    let (bench, hold) = Bench::held(8);
    let plug = bench.plug(&hold).await;
    let lost = [[1], [PANIC]].map(|rows| bench.submit(&rows));
    hold.release();
    numbers(plug).await;
    assert_eq!(hold.entered().await, 2);
    let next = bench.submit(&[7]);
    drop(hold);
    for ticket in lost {
        assert_eq!(answer(ticket).await.unwrap_err(), PredictError::WorkerLost);
    }
    assert_eq!(numbers(next).await, [7]);
    assert_eq!(bench.script.built.load(Ordering::SeqCst), 1);
    assert_eq!(bench.counter("executor_panics", ""), 1);
    assert_eq!(bench.snapshot().executions, 2);
    bench.finish().await;
}

#[tokio::test]
async fn a_build_that_panics_does_not_end_the_thread() {
    let script = Script::default();
    script.builds.lock().unwrap().extend([Build::Panics; 100]);
    let bench = Bench::start(script, 1, 8);
    let lost = bench.submit(&[PANIC]);
    assert_eq!(answer(lost).await.unwrap_err(), PredictError::WorkerLost);
    // It is built again after a pause; draining ends the pause, so the test does not wait for it.
    until(|| bench.script.built.load(Ordering::SeqCst) > 0).await;
    let waiting = bench.submit(&[1]);
    bench.batcher.drain();
    assert_eq!(answer(waiting).await.unwrap_err(), PredictError::WorkerLost);
    bench.finish().await;
}

#[tokio::test]
async fn without_an_executor_draining_answers_what_waits() {
    let script = Script::default();
    script.builds.lock().unwrap().extend([Build::Fails; 100]);
    let bench = Bench::start(script, 1, 8);
    let lost = bench.submit(&[PANIC]);
    assert_eq!(answer(lost).await.unwrap_err(), PredictError::WorkerLost);
    let waiting = [[1], [2]].map(|rows| bench.submit(&rows));
    bench.batcher.drain();
    for ticket in waiting {
        assert_eq!(answer(ticket).await.unwrap_err(), PredictError::WorkerLost);
    }
    bench.finish().await;
}

#[tokio::test]
async fn an_instance_that_cannot_be_built_leaves_the_queue_to_the_others() {
    let (script, hold) = Script::held();
    script.builds.lock().unwrap().extend([Build::Fails; 100]);
    let bench = Bench::start(script, 2, 1);
    let plug = bench.submit(&[1]);
    assert_eq!(hold.entered().await, 1);
    let lost = bench.submit(&[PANIC]);
    assert_eq!(answer(lost).await.unwrap_err(), PredictError::WorkerLost);
    // One instance runs the plug, the other is broken.
    let waiting = bench.submit(&[2]);
    bench.batcher.drain();
    until(|| bench.pool.threads.iter().any(std::thread::JoinHandle::is_finished)).await;
    drop(hold);
    assert_eq!(numbers(plug).await, [1]);
    assert_eq!(numbers(waiting).await, [2]);
    bench.finish().await;
}
