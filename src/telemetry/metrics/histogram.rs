//! Distributions and times that are counted without a lock.
//!
//! The client library's histogram takes a lock for every value. These are on the path of every
//! request: a value is two additions. The library still writes them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, TraceId};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds of durations in nanoseconds, from 100 µs to 10 s, about 2.5 times apart: finer than
/// any alert, coarser than any noise.
const NANOS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds of rows: powers of two, what batches are usually limited to.
const ROWS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// How values are held against bounds, and told.
#[derive(Debug)]
struct Scale {
    bounds: &'static [u64],
    /// How many of what is counted make one of what is told.
    per_unit: f64,
}

static SECONDS: Scale = Scale { bounds: &NANOS, per_unit: 1e9 };
static COUNTS: Scale = Scale { bounds: &ROWS, per_unit: 1.0 };

/// A distribution. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Histogram(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    scale: &'static Scale,
    /// One more than there are bounds: the last has none.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// The last recorded request in each bucket; empty until there is one.
    exemplars: Mutex<Vec<Option<Exemplified>>>,
}

/// A value that stands for others, and where to read on.
#[derive(Debug, Clone)]
pub(super) struct Exemplified {
    pub(super) trace_id: TraceId,
    pub(super) value: f64,
    pub(super) at: SystemTime,
}

impl Histogram {
    /// Of durations, told in seconds.
    pub(super) fn seconds() -> Self {
        Self::new(&SECONDS)
    }

    /// Of rows.
    pub(super) fn rows() -> Self {
        Self::new(&COUNTS)
    }

    fn new(scale: &'static Scale) -> Self {
        let buckets = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Counts {
            scale,
            buckets,
            sum: AtomicU64::new(0),
            exemplars: Mutex::default(),
        }))
    }

    /// Counts a value of a distribution of durations.
    pub(super) fn observe(&self, took: Duration) {
        self.add(nanos(took));
    }

    /// Counts a value of a distribution of rows.
    pub(super) fn add(&self, value: u64) {
        let Counts { buckets, sum, .. } = &*self.0;
        let bucket = self.bucket(value);
        // Relaxed: the numbers guard no other memory, and a scrape may find one without the other.
        buckets[bucket].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(value, Ordering::Relaxed);
    }

    fn bucket(&self, value: u64) -> usize {
        self.0.scale.bounds.partition_point(|bound| *bound < value)
    }

    /// A value that was counted was that of a request whose trace is recorded.
    pub(super) fn exemplify(&self, took: Duration, trace: &SpanContext) {
        let exemplar = Exemplified {
            trace_id: trace.trace_id(),
            value: took.as_secs_f64(),
            at: SystemTime::now(),
        };
        let bucket = self.bucket(nanos(took));
        let mut all = self.0.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() <= bucket {
            all.resize(bucket + 1, None);
        }
        all[bucket] = Some(exemplar);
    }

    /// Upper bounds of the buckets that have an exemplar, and those.
    pub(super) fn exemplars(&self, mut each: impl FnMut(f64, &Exemplified)) {
        let all = self.0.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return;
        }
        for ((bound, _), exemplar) in self.buckets().iter().zip(all.iter()) {
            if let Some(exemplar) = exemplar {
                each(*bound, exemplar);
            }
        }
    }

    /// How many values were counted.
    pub(super) fn count(&self) -> u64 {
        self.0.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Upper bounds and counts, not summed up.
    #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^52")]
    fn buckets(&self) -> Vec<(f64, u64)> {
        let Counts { scale, buckets, .. } = &*self.0;
        let bounds = scale.bounds.iter().map(|bound| *bound as f64 / scale.per_unit);
        let counts = buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        bounds.chain([f64::INFINITY]).zip(counts).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "sums of seconds are not exact anyway")]
    fn sum(&self) -> f64 {
        self.0.sum.load(Ordering::Relaxed) as f64 / self.0.scale.per_unit
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let (buckets, sum) = (self.buckets(), self.sum());
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Seconds that only grow. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Seconds(Arc<AtomicU64>);

impl Seconds {
    /// Adds a duration.
    pub(super) fn add(&self, took: Duration) {
        self.0.fetch_add(nanos(took), Ordering::Relaxed);
    }
}

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Seconds {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        write_seconds(encoder, Duration::from_nanos(self.0.load(Ordering::Relaxed)))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Writes a duration as a counter of seconds.
pub(super) fn write_seconds(mut encoder: MetricEncoder<'_>, total: Duration) -> fmt::Result {
    encoder.encode_counter(&total.as_secs_f64(), None::<&Exemplar<NoLabelSet, f64>>)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_of_the_bound_that_they_do_not_exceed() {
        let histogram = Histogram::seconds();
        let micros = [0, 100, 101, 10_000_000, 10_000_001];
        for value in micros {
            histogram.observe(Duration::from_micros(value));
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets.len(), NANOS.len() + 1);
        assert_eq!(buckets[0], (0.0001, 2));
        assert_eq!(buckets[1], (0.00025, 1));
        assert_eq!(buckets[15], (10.0, 1));
        assert_eq!(buckets[16], (f64::INFINITY, 1));
        assert_eq!(histogram.count(), 5);
        let total = micros.iter().sum::<u64>();
        assert!((histogram.sum() - Duration::from_micros(total).as_secs_f64()).abs() < 1e-9);
    }

    #[test]
    fn rows_are_told_as_they_are() {
        let histogram = Histogram::rows();
        for rows in [1, 2, 3, 300] {
            histogram.add(rows);
        }
        let counts: Vec<u64> = histogram.buckets().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert!((histogram.sum() - 306.0).abs() < f64::EPSILON);
    }
}
