//! Callers that leave before their answer: while they wait, while they run, too late, and at their
//! deadline, on a paused clock and without threads.

use super::*;

#[test]
fn leaving_the_queue_frees_the_place_at_once() {
    let batcher = batcher(eager(8));
    let mut tickets: Vec<Ticket> = (1..=8).map(|rows| submit(&batcher, rows)).collect();
    assert!(matches!(refusal(&batcher, 1), PredictError::Full { .. }));
    drop(tickets.remove(3));
    assert_eq!(batcher.depth(), depth(7, 32, 0));
    assert_eq!(budget(&batcher).taken(), 32 * ROW_BYTES);
    tickets.push(submit(&batcher, 5));
    assert_eq!(batcher.depth(), depth(8, 37, 0));
    let mut order = Vec::new();
    while batcher.depth().jobs > 0 {
        order.extend(next(&batcher).0.jobs.iter().map(|job| job.request.rows()));
    }
    assert_eq!(order, [1, 2, 3, 5, 6, 7, 8, 5]);
}

#[test]
fn the_last_rider_to_leave_stops_the_run() {
    let batcher = batcher(eager(8));
    let [one, two, three] = [1, 1, 1].map(|rows| submit(&batcher, rows));
    let (batch, stops) = next(&batcher);
    assert_eq!(batch.jobs.len(), 3);
    drop(two);
    drop(one);
    assert_eq!(stops.count(), 0, "somebody still waits");
    drop(three);
    assert_eq!(stops.count(), 1);
    assert_eq!(budget(&batcher).taken(), 3 * ROW_BYTES, "the worker still holds the tensors");
    drop(batch);
    assert_eq!(budget(&batcher).taken(), 0);
}

#[test]
fn an_answered_rider_does_not_count_as_leaving() {
    let batcher = batcher(eager(8));
    let [one, two] = [1, 1].map(|rows| submit(&batcher, rows));
    let (mut batch, stops) = next(&batcher);
    let job = batch.jobs.remove(0);
    let answer = response(&job, 2);
    job.reply.send(Ok(answer));
    assert!(wait(one).is_ok());
    assert_eq!((batcher.depth().running, stops.count()), (1, 0));
    drop((two, batch));
}

#[test]
fn a_late_departure_cannot_stop_the_next_run() {
    let batcher = batcher(eager(1));
    let [one, two] = [1, 1].map(|rows| submit(&batcher, rows));
    let (first, first_stops) = next(&batcher);
    answer_all(first);
    let (second, second_stops) = next(&batcher);
    // Its answer is there, but its caller goes without having looked.
    drop(one);
    assert_eq!((first_stops.count(), second_stops.count()), (0, 0));
    drop(two);
    assert_eq!((first_stops.count(), second_stops.count()), (0, 1));
    drop(second);
}

#[test]
fn a_departure_after_the_last_run_stops_nothing() {
    let batcher = batcher(eager(8));
    let ticket = submit(&batcher, 1);
    let (batch, stops) = next(&batcher);
    drop(batch);
    batcher.drain();
    let stop: Arc<dyn Stop> = Arc::new(Stops::default());
    assert!(batcher.next_batch(0, &stop).is_none());
    drop(ticket);
    assert_eq!((stops.count(), batcher.depth().running), (0, 0));
}

#[test]
fn leaving_one_run_does_not_touch_the_other() {
    let batcher = batcher(eager(1));
    let [one, two] = [1, 1].map(|rows| submit(&batcher, rows));
    let (first, first_stops) = next(&batcher);
    let second_stops = Arc::new(Stops::default());
    let stop = Arc::clone(&second_stops) as Arc<dyn Stop>;
    let second = batcher.next_batch(1, &stop).unwrap();
    assert_eq!(batcher.depth().running, 2);
    drop(two);
    assert_eq!((first_stops.count(), second_stops.count()), (0, 1));
    drop(one);
    assert_eq!((first_stops.count(), second_stops.count()), (1, 1));
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_waiting_request_goes_with_its_place() {
    let batcher = batcher(eager(8));
    let now = Instant::now();
    let limit = Duration::from_millis(200);
    let ticket = batcher.submit(request(2, 1), Deadline::after(now, limit), now).unwrap();
    let stage = Stage::Queue;
    assert_eq!(ticket.answer().await.unwrap_err(), PredictError::DeadlineExceeded { stage });
    assert_eq!(now.elapsed(), limit);
    assert_eq!((batcher.depth(), budget(&batcher).taken()), (depth(0, 0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn at_its_deadline_a_running_request_leaves_its_run() {
    let batcher = batcher(eager(8));
    let now = Instant::now();
    let limit = Duration::from_millis(200);
    let [short, long] = [1, 2].map(|times| {
        batcher.submit(request(1, 1), Deadline::after(now, limit * times), now).unwrap()
    });
    let (batch, stops) = next(&batcher);
    assert_eq!(batch.jobs.len(), 2);
    let stage = Stage::Execution;
    assert_eq!(short.answer().await.unwrap_err(), PredictError::DeadlineExceeded { stage });
    assert_eq!((now.elapsed(), stops.count()), (limit, 0));
    assert!(batch.jobs[0].reply.is_abandoned());
    assert_eq!(long.answer().await.unwrap_err(), PredictError::DeadlineExceeded { stage });
    assert_eq!((now.elapsed(), stops.count()), (limit * 2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_at_the_deadline_counts() {
    let batcher = batcher(eager(8));
    let now = Instant::now();
    let limit = Duration::from_millis(200);
    let ticket = batcher.submit(request(1, 1), Deadline::after(now, limit), now).unwrap();
    answer_all(next(&batcher).0);
    tokio::time::advance(limit * 2).await;
    assert!(ticket.answer().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_waiting_future_gives_the_place_up() {
    let batcher = batcher(eager(8));
    let now = Instant::now();
    let ticket = batcher.submit(request(1, 1), Deadline::after(now, HOUR), now).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(10), ticket.answer()).await;
    assert!(waited.is_err(), "nobody answers");
    assert_eq!((batcher.depth(), budget(&batcher).taken()), (depth(0, 0, 0), 0));
}
