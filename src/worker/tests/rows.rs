//! Each rider gets its own rows, whoever rode with it.

use std::collections::VecDeque;
use std::sync::mpsc;

use tokio::task::JoinSet;

use super::*;

/// Requests of one caller: 25, of 1 to 8 rows, 2 or 3 wide. Every number tells caller, request and
/// place.
fn requests(caller: i64) -> Vec<(Vec<i64>, usize)> {
    let mut state = caller + 1;
    let mut below = |limit: i64| {
        // The multiplier of MINSTD: any generator will do.
        state = state * 48_271 % 2_147_483_647;
        state / 1000 % limit
    };
    let mut request = |request: i64| {
        let (rows, width) = (1 + below(8), 2 + below(2));
        let first = caller * 1_000_000 + request * 1000;
        ((first..first + rows * width).collect(), usize::try_from(width).unwrap())
    };
    (0..25).map(&mut request).collect()
}

#[tokio::test]
async fn each_of_many_riders_gets_exactly_its_own_rows() {
    const CALLERS: i64 = 8;
    let (script, hold) = Script::held();
    let bench = Bench::start(script, 2, 16);
    let (submitted, all_submitted) = mpsc::channel();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (batcher, submitted) = (bench.batcher.clone(), submitted.clone());
        callers.spawn(async move {
            let sent = requests(caller);
            let mut tickets = Vec::new();
            for (values, width) in &sent {
                tickets.push(submit(&batcher, &spec(), values, *width));
                // Lets the other callers' requests in between.
                tokio::task::yield_now().await;
            }
            submitted.send(()).unwrap();
            for (ticket, (values, _)) in tickets.into_iter().zip(sent) {
                assert_eq!(numbers(ticket).await, values);
            }
        });
    }
    // Both instances are held with what came first; the rest meets in the queue.
    until(|| all_submitted.try_recv().is_ok()).await;
    drop(hold);
    while let Some(outcome) = callers.join_next().await {
        outcome.expect("a caller got what it sent");
    }
    let runs = bench.script.runs();
    let rows: usize = (0..CALLERS).flat_map(requests).map(|(v, width)| v.len() / width).sum();
    assert_eq!(runs.iter().sum::<usize>(), rows, "every row is run once");
    assert!(runs.iter().all(|rows| *rows <= 16));
    assert!(runs.len() <= 100, "requests never met: the test says nothing: {}", runs.len());
    let sums = bench.snapshot();
    assert_eq!((sums.queue.count, sums.inferences), (200, u64::try_from(rows).unwrap()));
    bench.finish().await;
}

/// As many as a server answers in some seconds, in three widths, each value with its request's number.
#[tokio::test]
async fn a_hundred_thousand_requests_of_sixty_four_callers() {
    const CALLERS: i64 = 64;
    const EACH: i64 = 1563;
    const AT_A_TIME: usize = 8;
    let bench = Bench::start(Script::default(), 2, 16);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let batcher = bench.batcher.clone();
        callers.spawn(async move {
            let mut waiting = VecDeque::new();
            for number in 0..EACH {
                let (rows, width) = (1 + (number + caller) % 8, 1 + (number * 7 + caller) % 3);
                let first = (caller * EACH + number) * 100;
                let values: Vec<i64> = (first..first + rows * width).collect();
                let width = usize::try_from(width).unwrap();
                waiting.push_back((submit(&batcher, &spec(), &values, width), values));
                while waiting.len() >= AT_A_TIME || number == EACH - 1 && !waiting.is_empty() {
                    let (ticket, values) = waiting.pop_front().unwrap();
                    assert_eq!(numbers(ticket).await, values);
                }
            }
        });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome.expect("a caller got what it sent");
    }
    let runs = bench.script.runs();
    assert!(runs.iter().all(|rows| *rows <= 16));
    let requests = usize::try_from(CALLERS * EACH).unwrap();
    assert!(requests >= 100_000 && runs.len() < requests, "they never met: {}", runs.len());
    assert_eq!(bench.snapshot().queue.count, u64::try_from(requests).unwrap());
    bench.finish().await;
}

#[tokio::test]
async fn wanted_outputs_differ_between_riders() {
    let (bench, hold) = Bench::held(8);
    let plug = bench.plug(&hold).await;
    let named = |outputs: &[&str], value| {
        let tensor = tensor(&[value], Shape::new(vec![1, 1]).unwrap());
        let inputs = vec![NamedTensor { name: "x".into(), tensor }];
        let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
        let request = InferRequest { inputs, outputs, ..InferRequest::default() };
        let request = validate(request, &spec(), 8).unwrap();
        let now = Instant::now();
        bench.batcher.submit(request, Deadline::after(now, HOUR), now).unwrap()
    };
    let (all, one) = (named(&[], 1), named(&["y"], 2));
    drop(hold);
    let responses = [answer(plug).await, answer(all).await, answer(one).await];
    let places = responses.map(|response| {
        let response = response.unwrap();
        (response.batch_rows, response.outputs.iter().map(|(place, _)| *place).collect::<Vec<_>>())
    });
    assert_eq!(places, [(1, vec![0]), (2, vec![0]), (2, vec![0])]);
    bench.finish().await;
}

#[tokio::test]
async fn outputs_that_do_not_split_end_batching_and_every_rider_is_answered() {
    let (script, hold) = Script::held();
    script.loses_rows.store(true, Ordering::SeqCst);
    let bench = Bench::start(script, 1, 8);
    let plug = bench.plug(&hold).await;
    let tickets = [[1], [2], [3]].map(|rows| bench.submit(&rows));
    drop(hold);
    numbers(plug).await;
    for (ticket, number) in tickets.into_iter().zip(1..) {
        assert_eq!(numbers(ticket).await, [number]);
    }
    assert_eq!(bench.script.runs(), [1, 3, 1, 1, 1]);
    assert_eq!(bench.batcher.policy().max_rows, 1);
    assert_eq!(bench.counter("failed_runs", ""), 0);
    let later = [[4], [5]].map(|rows| bench.submit(&rows));
    for (ticket, number) in later.into_iter().zip(4..) {
        assert_eq!(numbers(ticket).await, [number]);
    }
    assert_eq!(bench.script.runs(), [1, 3, 1, 1, 1, 1, 1], "each alone from now on");
    bench.finish().await;
}

#[tokio::test]
async fn riders_that_left_are_not_run_again_alone() {
    let (script, hold) = Script::held();
    script.loses_rows.store(true, Ordering::SeqCst);
    let bench = Bench::start(script, 1, 8);
    let plug = bench.plug(&hold).await;
    let [one, two, three] = [[1], [2], [3]].map(|rows| bench.submit(&rows));
    hold.release();
    numbers(plug).await;
    assert_eq!(hold.entered().await, 3);
    drop(two);
    drop(hold);
    assert_eq!(numbers(one).await, [1]);
    assert_eq!(numbers(three).await, [3]);
    assert_eq!(bench.script.runs(), [1, 3, 1, 1]);
    bench.finish().await;
}
