//! Puts load on a server and measures what comes back.
//!
//! Closed loop: so many callers, each with one request in flight. Open loop: requests leave at
//! random intervals of a given rate whatever the server does, and latency counts from the moment
//! when a request should have left, so that a stalled server cannot hide its stall. The message is
//! encoded once; a request costs the generator as little as it can. Used by `onnxd bench` and by
//! the benches; nothing of the server uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

pub mod client;
pub mod input;
pub mod load;

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
}

impl Measured {
    fn new() -> Self {
        // Three digits at any magnitude: the histogram grows as it must.
        let latency = Histogram::new(3).unwrap_or_else(|_| unreachable!("3 is a valid precision"));
        Self { elapsed: Duration::ZERO, latency, codes: BTreeMap::new(), late: 0 }
    }

    /// Requests that ended in an answer.
    pub fn answers(&self) -> u64 {
        self.codes.get(&0).copied().unwrap_or(0)
    }

    /// Answers a second.
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 answers")]
    pub fn rate(&self) -> f64 {
        self.answers() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Latency in microseconds that the given share of answers stayed below.
    pub fn quantile(&self, share: f64) -> u64 {
        self.latency.value_at_quantile(share)
    }

    /// All figures, for programs.
    pub fn to_json(&self) -> Value {
        let codes: BTreeMap<String, u64> =
            self.codes.iter().map(|(code, count)| (code.to_string(), *count)).collect();
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "answers": self.answers(),
            "answers_per_second": self.rate(),
            "late": self.late,
            "codes": codes,
            "latency_us": {
                "p50": self.quantile(0.5),
                "p90": self.quantile(0.9),
                "p99": self.quantile(0.99),
                "p999": self.quantile(0.999),
                "max": self.latency.max(),
            },
        })
    }

    /// All figures, for people.
    pub fn to_text(&self) -> String {
        let others: Vec<String> = self
            .codes
            .iter()
            .filter(|(code, _)| **code != 0)
            .map(|(code, count)| format!("{count} x {:?}", tonic::Code::from_i32(*code)))
            .collect();
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        format!(
            "answers   {} in {:.1} s = {:.0}/s, {} late\n\
             errors    {others}\n\
             latency   p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us",
            self.answers(),
            self.elapsed.as_secs_f64(),
            self.rate(),
            self.late,
            self.quantile(0.5),
            self.quantile(0.9),
            self.quantile(0.99),
            self.quantile(0.999),
            self.latency.max(),
        )
    }
}
