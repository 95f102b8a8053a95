//! The two kinds of load, and streams.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tonic::Code;

use super::client::{RawClient, framed};
use super::{End, Measured, own_cpu};

/// What load to put on.
#[derive(Debug, Clone)]
pub struct Load {
    /// How requests leave.
    pub pace: Pace,
    /// For how long.
    pub duration: Duration,
    /// Connections that callers share.
    pub connections: usize,
    /// Deadline of each request; answers of a stream that come after it are only counted as late.
    pub timeout: Option<Duration>,
    /// Whether a caller gives up at its deadline, as most clients do, or waits for the answer.
    pub cancels: bool,
    /// The encoded requests, sent in turn.
    pub messages: Vec<Bytes>,
}

/// How requests leave.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many callers, each with one request in flight.
    Closed(usize),
    /// At random intervals, so many a second on average.
    Open(f64),
    /// Streams, each with so many messages in flight.
    Streams {
        /// How many.
        count: usize,
        /// Messages in flight in each.
        window: usize,
    },
}

/// Requests of an open loop that may be in flight: beyond it the generator is the bottleneck.
const OPEN_IN_FLIGHT: usize = 20_000;
/// Timers are this coarse; shorter waits are spent looking at the clock.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// Time between two looks at the progress.
const TICK: Duration = Duration::from_millis(100);

/// What callers share.
struct Run {
    clients: Vec<RawClient>,
    load: Load,
    /// The requests with their prefixes.
    frames: Vec<Bytes>,
    /// How often one was taken.
    taken: AtomicUsize,
    begun_at: Instant,
    until: Instant,
    measured: Mutex<Measured>,
}

/// Puts the load on a server. `tick` is called now and then with the number of ends so far.
///
/// # Errors
/// A sentence, if no connection can be made.
pub async fn run(address: &str, load: &Load, tick: impl Fn(u64)) -> Result<Measured, String> {
    let mut clients = Vec::with_capacity(load.connections);
    for _ in 0..load.connections.max(1) {
        clients.push(RawClient::connect(address).await?);
    }
    let frames: Option<Vec<Bytes>> = load.messages.iter().map(|message| framed(message)).collect();
    let frames = frames.ok_or("a request has 4 GiB or more")?;
    if frames.is_empty() {
        return Err("there is no request to send".to_owned());
    }
    let (begun_at, cpu) = (Instant::now(), own_cpu());
    let run = Arc::new(Run {
        clients,
        frames,
        taken: AtomicUsize::new(0),
        begun_at,
        until: begun_at + load.duration,
        load: load.clone(),
        measured: Mutex::new(Measured::new()),
    });
    let mut callers = JoinSet::new();
    match load.pace {
        Pace::Closed(count) => {
            for index in 0..count {
                callers.spawn(closed(Arc::clone(&run), index));
            }
        }
        Pace::Open(rate) => drop(callers.spawn(open(Arc::clone(&run), rate))),
        Pace::Streams { count, window } => {
            for index in 0..count {
                callers.spawn(stream(Arc::clone(&run), index, window));
            }
        }
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            left = callers.join_next() => if left.is_none() { break },
            _ = ticks.tick() => tick(run.measured(|measured| measured.ends())),
        }
    }
    let mut measured = run.measured(|measured| std::mem::replace(measured, Measured::new()));
    measured.elapsed = begun_at.elapsed();
    measured.own_cpu = own_cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    Ok(measured)
}

impl Run {
    fn measured<T>(&self, change: impl FnOnce(&mut Measured) -> T) -> T {
        change(&mut self.measured.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next request.
    fn frame(&self) -> Bytes {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        self.frames[taken % self.frames.len()].clone()
    }

    /// Notes the end of a request that should have left at `due`.
    fn record(&self, result: Result<(), Code>, due: Instant) {
        let (took, timeout) = (due.elapsed(), self.load.timeout);
        let left = due.saturating_duration_since(self.begun_at);
        self.measured(|measured| measured.record(End { result, left, took, timeout }));
    }

    /// One request that should leave at `due`.
    async fn call(&self, index: usize, due: Instant) -> Result<(), Code> {
        let client = &self.clients[index % self.clients.len()];
        let Some(timeout) = self.load.timeout else {
            return client.call(self.frame(), None).await;
        };
        let deadline = due + timeout;
        let left = deadline.saturating_duration_since(Instant::now());
        let call = client.call(self.frame(), Some(left));
        if self.load.cancels {
            timeout_at(deadline, call).await.unwrap_or(Err(Code::DeadlineExceeded))
        } else {
            call.await
        }
    }
}

async fn closed(run: Arc<Run>, index: usize) {
    loop {
        let now = Instant::now();
        if now >= run.until {
            return;
        }
        let result = run.call(index, now).await;
        run.record(result, now);
        if result.is_err() {
            // An error that needs no answer must not keep the others from running.
            yield_now().await;
        }
    }
}

async fn open(run: Arc<Run>, rate: f64) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut in_flight = JoinSet::new();
    let mut due = Instant::now();
    for index in 0.. {
        due += exponential(&mut state, rate);
        if due >= run.until {
            break;
        }
        wait_until(due).await;
        while in_flight.len() >= OPEN_IN_FLIGHT {
            in_flight.join_next().await;
        }
        while in_flight.try_join_next().is_some() {}
        let run = Arc::clone(&run);
        in_flight.spawn(async move {
            let lag = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            run.measured(|measured| measured.lag.record(lag).ok());
            let result = run.call(index, due).await;
            run.record(result, due);
        });
    }
    while in_flight.join_next().await.is_some() {}
}

/// Sleeps as far as timers reach, and lets the others run for the rest.
async fn wait_until(due: Instant) {
    let now = Instant::now();
    if due > now + 2 * TIMER_GRAIN {
        sleep_until(due - 2 * TIMER_GRAIN).await;
    }
    while Instant::now() < due {
        yield_now().await;
    }
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
async fn stream(run: Arc<Run>, index: usize, window: usize) {
    let begun_at = Instant::now();
    let client = &run.clients[index % run.clients.len()];
    let (messages, mut answers) = match client.stream().await {
        Ok(opened) => opened,
        Err(code) => return run.record(Err(code), begun_at),
    };
    let mut messages = Some(messages);
    let mut sent = VecDeque::with_capacity(window);
    for _ in 0..window {
        if let Some(messages) = &mut messages {
            messages.send(run.frame());
            sent.push_back(Instant::now());
        }
    }
    loop {
        match answers.next().await {
            Ok(Some(result)) => run.record(result, sent.pop_front().unwrap_or(begun_at)),
            Ok(None) => return,
            Err(code) => return run.record(Err(code), begun_at),
        }
        let now = Instant::now();
        if now >= run.until {
            // Closing our side ends the stream once all answers have come.
            if let Some(messages) = messages.take() {
                messages.finish();
            }
        } else if let Some(messages) = &mut messages {
            messages.send(run.frame());
            sent.push_back(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_on_average_and_at_random() {
        let mut state = 7;
        let gaps: Vec<f64> =
            (0..100_000).map(|_| exponential(&mut state, 500.0).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / 1e5;
        assert!((mean * 500.0 - 1.0).abs() < 0.02, "{mean}");
        // Of a Poisson process, 63 % of the gaps are shorter than the mean one.
        let shorter = gaps.iter().filter(|gap| **gap < mean).count();
        assert!((62_000..64_500).contains(&shorter), "{shorter}");
    }
}
