//! Requests that cannot be in time are told so at once, and estimates do not refuse for ever.

use super::*;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// One worker that takes 10 ms for a row, and 2 ms for each one more.
fn slow() -> Batcher {
    let limits = QueueLimits { max_jobs: 64, bytes: ByteBudget::new(4000), default_priority: 100 };
    let mut costs = CostModel::new(4, Duration::ZERO);
    costs.set(1, 1, ms(10));
    costs.set(4, 1, ms(16));
    Batcher::new(eager(4), limits, 1, costs)
}

fn ask(batcher: &Batcher, left: Duration) -> Result<Ticket, PredictError> {
    let now = Instant::now();
    batcher.submit(request(1, 1), Deadline::after(now, left), now)
}

#[test]
fn too_little_time_is_said_whoever_waits() {
    let batcher = slow();
    let error = ask(&batcher, ms(9)).unwrap_err();
    assert_eq!(error, PredictError::TooLittleTime { needed: ms(10), left: ms(9) });
    assert_eq!((batcher.depth(), budget(&batcher).taken()), (depth(0, 0, 0), 0));
    assert!(ask(&batcher, ms(11)).is_ok());
}

#[test]
fn a_wait_that_is_too_long_is_said_with_the_time_to_come_back() {
    let batcher = slow();
    let (mut tickets, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        match ask(&batcher, ms(30)) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => refused.push(error),
        }
    }
    // Rows take 4 ms in full runs; 20 ms are left beside the own run, three quarters to wait.
    assert_eq!(tickets.len(), 4);
    let PredictError::Congested { wait, left, retry_after } = &refused[0] else {
        panic!("{refused:?}")
    };
    assert_eq!((*wait, *left, *retry_after), (ms(16), ms(30), ms(1)));
    assert!(ask(&batcher, ms(60)).is_ok(), "there is room for those with more time");
    drop(tickets);
    assert!(ask(&batcher, ms(30)).is_ok(), "and when the others are gone");
}

#[test]
fn a_run_under_way_counts_until_it_should_be_over() {
    let batcher = slow();
    let ticket = ask(&batcher, HOUR).unwrap();
    let (batch, _) = next(&batcher);
    let error = ask(&batcher, ms(12)).unwrap_err();
    assert!(matches!(error, PredictError::Congested { wait, .. } if wait <= ms(10)), "{error:?}");
    answer_all(batch);
    drop(ticket);
}
