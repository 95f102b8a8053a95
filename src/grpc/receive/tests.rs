//! Bodies on virtual time.

use std::collections::VecDeque;
use std::future::poll_fn;

use futures_util::FutureExt;
use tokio::time::{advance, sleep};
use tonic::Code;

use super::*;

/// Parts that come after so many seconds each; then nothing, without an end.
struct Slow {
    parts: VecDeque<(u64, Bytes)>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Slow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((seconds, _)) = self.parts.front() else { return Poll::Pending };
        let wait = Duration::from_secs(*seconds);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
        ready!(timer.as_mut().poll(context));
        self.timer = None;
        let (_, bytes) = self.parts.pop_front().unwrap();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

fn limits() -> RequestLimits {
    RequestLimits {
        max_message_bytes: 1000,
        body_read: Duration::from_secs(30),
        max_timeout: Duration::from_secs(100),
        ..crate::config::Config::resolve(|_| None).unwrap().requests
    }
}

fn message(length: u8, there: usize) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, length];
    bytes.resize(FRAME_BYTES + there, 7);
    bytes
}

fn receiving(budget: &ByteBudget, is_stream: bool, parts: &[(u64, Vec<u8>)]) -> Receiving<Slow> {
    let parts = parts.iter().map(|(after, bytes)| (*after, Bytes::from(bytes.clone()))).collect();
    Receiving::new(
        Slow { parts, timer: None },
        is_stream,
        &limits(),
        budget.clone(),
        (CallMetrics::new(Vec::new()), 0),
    )
}

async fn next(body: &mut Receiving<Slow>) -> Option<Result<usize, Status>> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(frame.map(|frame| frame.data_ref().unwrap().len()))
}

async fn refused(body: &mut Receiving<Slow>) -> Status {
    next(body).await.unwrap().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn bytes_count_as_they_come_and_a_length_alone_does_not() {
    let budget = ByteBudget::new(100);
    let parts = [(0, message(90, 10)), (0, vec![7; 30])];
    let mut body = receiving(&budget, false, &parts);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), 15);
    assert_eq!(budget.taken(), 10);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), 30);
    assert_eq!(budget.taken(), 40);
    drop(body);
    assert_eq!(budget.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_before_it_is_read() {
    let budget = ByteBudget::new(100);
    let never = refused(&mut receiving(&budget, false, &[(0, message(101, 0))])).await;
    assert_eq!(never.code(), Code::ResourceExhausted);
    assert_eq!(never.message(), "memory for requests is full: 0 of 100 bytes taken");
    assert!(never.metadata().get("grpc-retry-pushback-ms").is_none());
    let held = budget.take(50).unwrap();
    let mut later = receiving(&budget, false, &[(0, message(51, 0))]);
    let now_full = refused(&mut later).await;
    assert!(now_full.metadata().get("grpc-retry-pushback-ms").is_some());
    assert!(next(&mut later).await.is_none(), "it has ended");
    // There was room when it began, and others came before its bytes.
    let mut body = receiving(&budget, false, &[(0, message(50, 0)), (0, vec![7; 50])]);
    next(&mut body).await.unwrap().unwrap();
    let other = budget.take(1).unwrap();
    assert_eq!(refused(&mut body).await.code(), Code::ResourceExhausted);
    drop((held, other));
    assert_eq!(budget.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_above_the_limit_is_left_to_the_codec() {
    let budget = ByteBudget::new(100);
    let head = [0, 0, 0, 4, 0].to_vec();
    assert!(next(&mut receiving(&budget, false, &[(0, head)])).await.unwrap().is_ok());
}

/// A frame that announces `length` bytes, and `there` of them.
fn large(length: usize, there: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    let mut bytes = [&[0], &length[..]].concat();
    bytes.resize(FRAME_BYTES + there, 7);
    bytes
}

fn receiving_large(is_stream: bool, parts: Vec<Vec<u8>>) -> Receiving<Slow> {
    let parts = parts.into_iter().map(|bytes| (1, Bytes::from(bytes))).collect();
    let limits = RequestLimits { max_message_bytes: 1 << 20, ..limits() };
    let budget = ByteBudget::new(1 << 30);
    Receiving::new(
        Slow { parts, timer: None },
        is_stream,
        &limits,
        budget,
        (CallMetrics::new(Vec::new()), 0),
    )
}

#[tokio::test(start_paused = true)]
async fn a_large_message_is_seen_when_half_of_it_is_there() {
    let half = 500_000;
    let parts = vec![large(2 * half, 1), vec![7; half - 2], vec![7; 1], vec![7; half]];
    let (began, mut body) = (Instant::now(), receiving_large(false, parts));
    // Nothing in the first two seconds, though bytes came: one of a million, then all but one half.
    assert_eq!(next(&mut body).await.unwrap().unwrap(), FRAME_BYTES + 1);
    assert_eq!(began.elapsed().as_secs(), 3);
    let mut seen = FRAME_BYTES + 1;
    while seen < FRAME_BYTES + 2 * half {
        seen += next(&mut body).await.unwrap().unwrap();
    }
    assert_eq!((seen, began.elapsed().as_secs()), (FRAME_BYTES + 2 * half, 4));
    assert!(body.held.is_empty());
    // One above the limit is the codec's to refuse, and a small one is not kept back.
    for (length, there) in [((1 << 20) + 1, 1), (SMALL_MESSAGE_BYTES, 1)] {
        let mut body = receiving_large(false, vec![large(length, there)]);
        assert_eq!(next(&mut body).await.unwrap().unwrap(), FRAME_BYTES + there);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_before_a_large_one_does_not_wait_for_it() {
    let (small, size) = (message(20, 20), 100_000);
    for cut in [0, 1, FRAME_BYTES] {
        let begins = large(size, 9);
        let parts = vec![[&small[..], &begins[..cut]].concat(), begins[cut..].to_vec()];
        let mut body = receiving_large(true, parts);
        let begun = if cut == FRAME_BYTES { 0 } else { cut };
        assert_eq!(next(&mut body).await.unwrap().unwrap(), small.len() + begun);
        assert!(next(&mut body).now_or_never().is_none());
    }
    let both = [small.clone(), large(size, 9)].concat();
    let mut body = receiving_large(true, vec![both, vec![7; size - 9]]);
    let began = Instant::now();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), small.len());
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), FRAME_BYTES + 9);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), size - 9);
    assert!(body.framing.is_between() && body.held.is_empty());
    // The end of a large one and the beginning of the next in one part.
    let end = [vec![7; size - 1], large(size, 1)].concat();
    let mut body = receiving_large(true, vec![large(size, 1), end, vec![7; size - 1]]);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), FRAME_BYTES + 1);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), size - 1);
    assert!(next(&mut body).now_or_never().is_none(), "the next one begins");
    assert_eq!(next(&mut body).await.unwrap().unwrap(), FRAME_BYTES + 1);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), size - 1);
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_stream_count_one_by_one_wherever_they_are_cut() {
    let budget = ByteBudget::new(100);
    let bytes = [message(60, 60), message(0, 0), message(70, 70), message(80, 80)].concat();
    for size in [1, 3, 4, 7, 64, 66, bytes.len()] {
        let parts: Vec<_> = bytes.chunks(size).map(|part| (0, part.to_vec())).collect();
        let mut body = receiving(&budget, true, &parts);
        for _ in &parts {
            next(&mut body).await.unwrap().unwrap();
        }
        assert_eq!(budget.taken(), 0);
        assert!(body.framing.is_between());
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_come_is_given_up() {
    let budget = ByteBudget::new(100);
    for (is_stream, parts) in [
        // Not even a frame; half a frame; half a message; all of it, and no end.
        (false, vec![]),
        (false, vec![(1, vec![0, 0])]),
        (true, vec![(40, vec![0, 0])]),
        (true, vec![(40, message(50, 10))]),
        (false, vec![(1, message(50, 50))]),
    ] {
        let mut body = receiving(&budget, is_stream, &parts);
        for _ in &parts {
            next(&mut body).await.unwrap().unwrap();
        }
        let began = Instant::now();
        let stalled = refused(&mut body).await;
        assert_eq!(stalled.code(), Code::DeadlineExceeded);
        assert_eq!(stalled.message(), "the message did not come: no byte of it in 30000 ms");
        assert_eq!(began.elapsed().as_secs(), 30);
        assert_eq!(budget.taken(), 0, "what had come is freed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_be_idle_between_messages() {
    let budget = ByteBudget::new(100);
    let parts = [(1000, message(10, 10)), (1000, message(10, 10))];
    let mut body = receiving(&budget, true, &parts);
    for _ in &parts {
        next(&mut body).await.unwrap().unwrap();
    }
    assert!(next(&mut body).now_or_never().is_none());
    advance(Duration::from_secs(1000)).await;
    assert!(next(&mut body).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_drips_is_given_up_too() {
    let budget = ByteBudget::new(100);
    let mut parts = vec![(0, message(50, 1))];
    parts.extend((0..20).map(|_| (20, vec![7])));
    let mut body = receiving(&budget, true, &parts);
    let began = Instant::now();
    let stalled = loop {
        if let Err(stalled) = next(&mut body).await.unwrap() {
            break stalled;
        }
    };
    assert_eq!(stalled.message(), "the message did not come: not all of it in 100000 ms");
    assert_eq!(began.elapsed().as_secs(), 100);
}
