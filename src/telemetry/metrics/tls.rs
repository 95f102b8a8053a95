//! Metrics of TLS: there only where it is switched on.

use std::sync::PoisonError;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{Metrics, ResultLabels};

/// What TLS counts.
#[derive(Debug, Clone, Default)]
pub struct TlsMetrics {
    /// When the certificate ends, in seconds of the Unix epoch.
    pub expiry: Gauge,
    /// New files that were taken.
    pub reloads: Counter,
    /// New files that could not be used.
    pub failed_reloads: Counter,
}

impl Metrics {
    /// The part that TLS counts, at zero. To be called once.
    pub fn tls(&self) -> TlsMetrics {
        let (expiry, reloads) = (Gauge::default(), Family::<ResultLabels, Counter>::default());
        let of = |result| reloads.get_or_create_owned(&ResultLabels { result });
        let found =
            TlsMetrics { expiry: expiry.clone(), reloads: of("ok"), failed_reloads: of("failed") };
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let text = "When the certificate ends, in seconds of the Unix epoch";
        registry.register("tls_certificate_expiry_timestamp_seconds", text, expiry);
        registry.register("tls_reloads", "New files of TLS by whether they could be used", reloads);
        found
    }
}
