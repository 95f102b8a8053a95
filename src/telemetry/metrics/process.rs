//! Metrics of the process, under the names that every client library gives them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::histogram::write_seconds;
use crate::runtime::process::{Usage, processors};

/// Looks at the process when somebody scrapes.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    /// Seconds of the Unix epoch.
    started_at: f64,
}

impl ProcessMetrics {
    /// To be made when the process starts.
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_at: since.as_secs_f64() }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = Usage::now();
        let gauges = [
            ("process_resident_memory_bytes", "Memory in the machine's.", usage.resident_bytes),
            ("process_virtual_memory_bytes", "Memory with addresses.", usage.virtual_bytes),
            ("process_threads", "Threads.", usage.threads),
            ("process_open_fds", "Open descriptors.", usage.open_files),
            ("process_max_fds", "Descriptors that may be open.", usage.most_files),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let kind = MetricType::Gauge;
                encoder.encode_descriptor(name, help, None, kind)?.encode_gauge(&value)?;
            }
        }
        let (name, help) = ("process_cpu_seconds", "Time of processors.");
        let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        write_seconds(counter, usage.processor_time)?;
        let (name, help) = ("process_start_time_seconds", "Start, in seconds of the Unix epoch.");
        let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode_gauge(&self.started_at)?;
        let (name, help) = ("onnxd_cpu_quota_cores", "Processors that it may use at a time.");
        let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode_gauge(&processors())
    }
}
