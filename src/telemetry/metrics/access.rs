//! Metrics of credentials and rights: there only where an access file is.

use std::sync::PoisonError;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::{Metrics, ResultLabels};
use crate::error::Denial;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    reason: &'static str,
}

/// What credentials and rights count.
#[derive(Debug, Clone, Default)]
pub struct AccessMetrics {
    denied: [Counter; 3],
    /// New files that were taken.
    pub reloads: Counter,
    /// New files that could not be used.
    pub failed_reloads: Counter,
}

const REASONS: [&str; 3] = ["no_credentials", "bad_credentials", "not_allowed"];

impl AccessMetrics {
    /// A call or a message was refused.
    pub fn denied(&self, denial: &Denial) {
        let index = match denial {
            Denial::NoCredentials => 0,
            Denial::BadCredentials => 1,
            Denial::NotAllowed { .. } => 2,
        };
        self.denied[index].inc();
    }
}

impl Metrics {
    /// The part that access counts, at zero. To be called once.
    pub fn access(&self) -> AccessMetrics {
        let denied = Family::<DenialLabels, Counter>::default();
        let reloads = Family::<ResultLabels, Counter>::default();
        let of = |result| reloads.get_or_create_owned(&ResultLabels { result });
        let found = AccessMetrics {
            denied: REASONS.map(|reason| denied.get_or_create_owned(&DenialLabels { reason })),
            reloads: of("ok"),
            failed_reloads: of("failed"),
        };
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let text = "Calls and messages of a stream that were refused for who sent them";
        registry.register("denied", text, denied);
        let text = "New access files by whether they could be used";
        registry.register("access_reloads", text, reloads);
        found
    }
}
