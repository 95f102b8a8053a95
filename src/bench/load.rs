//! The two kinds of load, and streams.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::Measured;
use super::client::RawClient;

/// What load to put on.
#[derive(Debug, Clone)]
pub struct Load {
    /// How requests leave.
    pub pace: Pace,
    /// For how long.
    pub duration: Duration,
    /// Connections that callers share.
    pub connections: usize,
    /// Deadline of each request.
    pub timeout: Option<Duration>,
    /// Whether a caller gives up at its deadline, as most clients do, or waits for the answer.
    pub cancels: bool,
    /// The encoded request.
    pub message: Bytes,
}

/// How requests leave.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many callers, each with one request in flight.
    Closed(usize),
    /// At random intervals, so many a second on average.
    Open(f64),
    /// One stream, so many messages in flight.
    Stream(usize),
}

/// One request's end.
type End = (Result<(), Status>, Duration);

/// Requests of an open loop that may be in flight: beyond it the generator is the bottleneck.
const OPEN_IN_FLIGHT: usize = 20_000;

/// Puts the load on a server. `tick` is called now and then with the number of ends so far.
///
/// # Errors
/// A sentence, if no connection can be made.
pub async fn run(
    address: &str,
    load: &Load,
    mut tick: impl FnMut(u64),
) -> Result<Measured, String> {
    let mut clients = Vec::with_capacity(load.connections);
    for _ in 0..load.connections.max(1) {
        let client = RawClient::connect(address).await;
        clients.push(client.map_err(|error| format!("cannot reach {address}: {error}"))?);
    }
    let (ends, mut ended) = mpsc::channel::<End>(1024);
    let begun_at = Instant::now();
    let until = begun_at + load.duration;
    let mut callers = JoinSet::new();
    match load.pace {
        Pace::Closed(count) => {
            for index in 0..count {
                let client = clients[index % clients.len()].clone();
                callers.spawn(closed(client, load.clone(), until, ends.clone()));
            }
        }
        Pace::Open(rate) => {
            callers.spawn(open(clients, load.clone(), rate, until, ends.clone()));
        }
        Pace::Stream(window) => {
            let client = clients.swap_remove(0);
            callers.spawn(stream(client, load.clone(), window, until, ends.clone()));
        }
    }
    drop(ends);
    let mut measured = Measured::new();
    let mut count = 0;
    while let Some((result, took)) = ended.recv().await {
        record(&mut measured, result, took, load.timeout);
        count += 1;
        if count % 1024 == 0 {
            tick(count);
        }
    }
    measured.elapsed = begun_at.elapsed();
    Ok(measured)
}

fn record(
    measured: &mut Measured,
    result: Result<(), Status>,
    took: Duration,
    timeout: Option<Duration>,
) {
    let code = result.map_or_else(|status| i32::from(status.code()), |()| 0);
    *measured.codes.entry(code).or_default() += 1;
    if code == 0 {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        measured.latency.record(micros.max(1)).ok();
        if timeout.is_some_and(|timeout| took > timeout) {
            measured.late += 1;
        }
    }
}

/// One request that should leave at `due`.
async fn call(client: &mut RawClient, load: &Load, due: Instant) -> End {
    let mut request = Request::new(load.message.clone());
    let Some(timeout) = load.timeout else {
        let result = client.call(request).await.map(drop);
        return (result, due.elapsed());
    };
    let result = if load.cancels {
        request.set_timeout(timeout);
        match tokio::time::timeout_at(due + timeout, client.call(request)).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(Status::deadline_exceeded("gave up")),
        }
    } else {
        // The server is told by the protocol's parameter only: the channel watches the header.
        client.call(request).await.map(drop)
    };
    (result, due.elapsed())
}

async fn closed(mut client: RawClient, load: Load, until: Instant, ends: mpsc::Sender<End>) {
    loop {
        let now = Instant::now();
        if now >= until {
            return;
        }
        let end = call(&mut client, &load, now).await;
        if ends.send(end).await.is_err() {
            return;
        }
    }
}

async fn open(
    clients: Vec<RawClient>,
    load: Load,
    rate: f64,
    until: Instant,
    ends: mpsc::Sender<End>,
) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut due = Instant::now();
    let mut in_flight = JoinSet::new();
    let mut index = 0;
    while due < until {
        sleep_until(due).await;
        while in_flight.len() >= OPEN_IN_FLIGHT {
            in_flight.join_next().await;
        }
        while in_flight.try_join_next().is_some() {}
        let mut client = clients[index % clients.len()].clone();
        index += 1;
        let (load, ends, intended) = (load.clone(), ends.clone(), due);
        in_flight.spawn(async move {
            let end = call(&mut client, &load, intended).await;
            drop(ends.send(end).await);
        });
        due += exponential(&mut state, rate);
    }
    while in_flight.join_next().await.is_some() {}
}

/// Time to the next arrival of a Poisson process.
fn exponential(state: &mut u64, rate: f64) -> Duration {
    // xorshift64*: any generator will do.
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    let bits = u32::try_from(state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or(1);
    let uniform = (f64::from(bits) + 1.0) / (f64::from(u32::MAX) + 2.0);
    Duration::from_secs_f64((-uniform.ln() / rate).min(60.0))
}

/// Keeps `window` messages of one stream in flight.
async fn stream(
    mut client: RawClient,
    load: Load,
    window: usize,
    until: Instant,
    ends: mpsc::Sender<End>,
) {
    let (sender, receiver) = mpsc::channel(window.max(1));
    let mut sent = std::collections::VecDeque::with_capacity(window);
    for _ in 0..window {
        drop(sender.send(load.message.clone()).await);
        sent.push_back(Instant::now());
    }
    let mut sender = Some(sender);
    let mut answers = match client.stream(ReceiverStream::new(receiver)).await {
        Ok(answers) => answers,
        Err(status) => {
            drop(ends.send((Err(status), Duration::ZERO)).await);
            return;
        }
    };
    while let Some(answer) = answers.next().await {
        let took = sent.pop_front().map_or(Duration::ZERO, |sent_at| sent_at.elapsed());
        if ends.send((answer.map(drop), took)).await.is_err() {
            return;
        }
        if Instant::now() >= until {
            // Closing our side ends the stream once all answers have come.
            sender = None;
        } else if let Some(sender) = &sender {
            sent.push_back(Instant::now());
            drop(sender.send(load.message.clone()).await);
        }
    }
}
