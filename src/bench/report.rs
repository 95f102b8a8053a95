//! The figures of a run, for people and for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Measured, WINDOW};

/// Share of a core from which on the generator of a closed loop may be what limits the rate. In an
/// open loop it looks at the clock whenever it has nothing else to do.
const BUSY: f64 = 0.9;
/// Microseconds by which requests of an open loop may leave late and nobody need be told.
const PUNCTUAL: u64 = 1000;

impl Measured {
    /// All figures, for programs.
    pub fn to_json(&self) -> Value {
        let codes: BTreeMap<String, u64> =
            self.codes.iter().map(|(code, count)| (code.to_string(), *count)).collect();
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "answers": self.answers(),
            "answers_per_second": self.rate(),
            "late": self.late,
            "in_time_share": self.in_time(),
            "codes": codes,
            "latency_us": {
                "p50": self.quantile(0.5),
                "p90": self.quantile(0.9),
                "p99": self.quantile(0.99),
                "p999": self.quantile(0.999),
                "max": self.latency.max(),
            },
            "refusal_us": {
                "p50": self.refusals.value_at_quantile(0.5),
                "p99": self.refusals.value_at_quantile(0.99),
                "max": self.refusals.max(),
            },
            "timeline": {
                "window_ms": WINDOW.as_millis(),
                "requests": self.timeline.iter().map(|window| window.requests).collect::<Vec<_>>(),
                "in_time": self.timeline.iter().map(|window| window.in_time).collect::<Vec<_>>(),
            },
            "generator": {
                "cpu_us_per_request": self.own_micros(),
                "cpu_share": self.own_share(),
                "lag_us": {
                    "p50": self.lag.value_at_quantile(0.5),
                    "p99": self.lag.value_at_quantile(0.99),
                    "max": self.lag.max(),
                },
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
        let refusals = if self.refusals.is_empty() {
            String::new()
        } else {
            let at = |share| self.refusals.value_at_quantile(share);
            format!("\nrefusals  p50 {} us, p99 {} us", at(0.5), at(0.99))
        };
        let generator = match self.own_micros().zip(self.own_share()) {
            None => String::new(),
            Some((micros, share)) => {
                let (lag, percent) = (self.lag.value_at_quantile(0.99), 100.0 * share);
                let slow = if self.lag.is_empty() { share > BUSY } else { lag > PUNCTUAL };
                let warning = if slow { "; it may be what limits the rate" } else { "" };
                let lag = if self.lag.is_empty() {
                    String::new()
                } else {
                    format!(", requests left p99 {lag} us late")
                };
                format!(
                    "\ngenerator {micros:.1} us of CPU per request, {percent:.0} % of a core{lag}{warning}"
                )
            }
        };
        format!(
            "answers   {} in {:.1} s = {:.0}/s; {:.2} % of requests in time, {} late\n\
             errors    {others}\n\
             latency   p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us{refusals}{generator}",
            self.answers(),
            self.elapsed.as_secs_f64(),
            self.rate(),
            100.0 * self.in_time(),
            self.late,
            self.quantile(0.5),
            self.quantile(0.9),
            self.quantile(0.99),
            self.quantile(0.999),
            self.latency.max(),
        )
    }
}
