//! Puts load on a server and measures what comes back.
//!
//! Closed loop: so many callers, each with one request in flight. Open loop: requests leave at
//! random intervals of a given rate whatever the server does, and latency counts from the moment
//! when a request should have left, so that a stalled server cannot hide its stall. The message is
//! encoded once; a request costs the generator as little as it can, and what it costs is among the
//! figures. Used by `onnxd bench` and by the benches; nothing of the server uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tonic::Code;

pub mod client;
pub mod input;
pub mod load;
pub mod plot;
mod report;

/// What a load run saw.
#[derive(Debug)]
pub struct Measured {
    /// Time from first to last request.
    pub elapsed: Duration,
    /// Latencies of answers, in microseconds.
    pub latency: Histogram<u64>,
    /// Ends by gRPC code; 0 is OK.
    pub codes: BTreeMap<i32, u64>,
    /// Answers that came after their deadline.
    pub late: u64,
    /// Latencies of refusals (`RESOURCE_EXHAUSTED`), in microseconds.
    pub refusals: Histogram<u64>,
    /// How late requests left, in microseconds, in an open loop: time that the generator took.
    pub lag: Histogram<u64>,
    /// What became of the requests that should have left within each [`WINDOW`] since the start.
    pub timeline: Vec<Window>,
    /// CPU time of the generator itself, where the system tells.
    pub own_cpu: Option<Duration>,
}

/// Length of a part of the timeline.
pub const WINDOW: Duration = Duration::from_millis(100);

/// Requests that should have left within one part of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// All of them.
    pub requests: u64,
    /// Those that were answered by their deadline.
    pub in_time: u64,
}

/// One request that has ended.
#[derive(Debug, Clone, Copy)]
struct End {
    /// OK or why not.
    result: Result<(), Code>,
    /// When it should have left, since the start.
    left: Duration,
    /// Time from there to its end.
    took: Duration,
    /// Time that it had.
    timeout: Option<Duration>,
}

impl Measured {
    fn new() -> Self {
        Self {
            elapsed: Duration::ZERO,
            latency: histogram(),
            codes: BTreeMap::new(),
            late: 0,
            refusals: histogram(),
            lag: histogram(),
            timeline: Vec::new(),
            own_cpu: None,
        }
    }

    fn record(&mut self, end: End) {
        let code = end.result.map_or_else(i32::from, |()| 0);
        *self.codes.entry(code).or_default() += 1;
        let micros = u64::try_from(end.took.as_micros()).unwrap_or(u64::MAX).max(1);
        let late = end.timeout.is_some_and(|timeout| end.took > timeout);
        match end.result {
            Ok(()) => {
                self.latency.record(micros).ok();
                self.late += u64::from(late);
            }
            Err(Code::ResourceExhausted) => drop(self.refusals.record(micros)),
            Err(_) => {}
        }
        let index = usize::try_from(end.left.as_nanos() / WINDOW.as_nanos()).unwrap_or(0);
        if index >= self.timeline.len() {
            self.timeline.resize(index + 1, Window::default());
        }
        self.timeline[index].requests += 1;
        self.timeline[index].in_time += u64::from(end.result.is_ok() && !late);
    }

    /// Requests that ended in any way.
    pub fn ends(&self) -> u64 {
        self.codes.values().sum()
    }

    /// Requests that ended in an answer.
    pub fn answers(&self) -> u64 {
        self.codes.get(&0).copied().unwrap_or(0)
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        ratio(self.answers()) / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Share of all requests that were answered by their deadline.
    pub fn in_time(&self) -> f64 {
        ratio(self.answers() - self.late) / ratio(self.ends().max(1))
    }

    /// Latency in microseconds that the given share of answers stayed below.
    pub fn quantile(&self, share: f64) -> u64 {
        self.latency.value_at_quantile(share)
    }

    /// Microseconds of the generator's own CPU per request.
    pub fn own_micros(&self) -> Option<f64> {
        self.own_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / ratio(self.ends().max(1)))
    }

    /// Share of a core that the generator itself took.
    pub fn own_share(&self) -> Option<f64> {
        self.own_cpu.map(|cpu| cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9))
    }
}

/// Three digits at any magnitude: the histogram grows as it must.
fn histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap_or_else(|_| unreachable!("3 is a valid precision"))
}

#[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
fn ratio(count: u64) -> f64 {
    count as f64
}

/// CPU time of this process so far, all its threads.
fn own_cpu() -> Option<Duration> {
    cpu_of(std::process::id())
}

/// User and system time of a process so far, where the system tells.
pub fn cpu_of(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks = |index| fields.split_whitespace().nth(index)?.parse::<u64>().ok();
    let (user, system) = (ticks(11)?, ticks(12)?);
    // The clock of this file ticks 100 times a second on every Linux that a program can see.
    Some(Duration::from_millis(10 * (user + system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_answers_and_errors_are_not_in_time() {
        let mut measured = Measured::new();
        let (timeout, ms) = (Some(Duration::from_millis(10)), Duration::from_millis);
        let ends = [
            (Ok(()), 0, 10),
            (Ok(()), 99, 11),
            (Err(Code::ResourceExhausted), 100, 1),
            (Err(Code::DeadlineExceeded), 310, 10),
        ];
        for (result, left, took) in ends {
            measured.record(End { result, left: ms(left), took: ms(took), timeout });
        }
        assert_eq!((measured.ends(), measured.answers(), measured.late), (4, 2, 1));
        assert!((measured.in_time() - 0.25).abs() < 1e-9);
        assert_eq!(measured.codes, BTreeMap::from([(0, 2), (4, 1), (8, 1)]));
        // Errors have no place among latencies: a fast refusal is no fast answer.
        assert_eq!((measured.latency.len(), measured.refusals.max()), (2, 1000));
        let window = |requests, in_time| Window { requests, in_time };
        let timeline = [window(2, 1), window(1, 0), window(0, 0), window(1, 0)];
        assert_eq!(measured.timeline, timeline);
    }

    #[test]
    fn a_process_has_used_some_time_and_one_that_is_not_there_has_not() {
        assert!(own_cpu().is_some());
        assert!(cpu_of(u32::MAX).is_none());
    }
}
