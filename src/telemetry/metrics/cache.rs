//! Metrics of response caches: there only for the model versions that have one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::ModelLabels;
use crate::cache::ResponseCache;

/// What the cache of one model version counts. A request that looked for its answer and neither
/// left nor was refused meanwhile is in exactly one of them.
#[derive(Debug, Clone)]
pub struct CacheMetrics {
    /// Answered from memory.
    pub hits: Counter,
    /// Sent to run.
    pub misses: Counter,
    /// Answered by the run of an equal request.
    pub coalesced: Counter,
}

#[derive(Debug, Default)]
pub(super) struct CacheFamilies {
    hits: Family<ModelLabels, Counter>,
    misses: Family<ModelLabels, Counter>,
    coalesced: Family<ModelLabels, Counter>,
    bytes: Family<ModelLabels, Gauge>,
    /// Weak, so that a cache goes with its model version.
    caches: Mutex<Vec<(ModelLabels, Weak<ResponseCache>)>>,
}

impl CacheFamilies {
    /// The part that one cache counts, all its series at zero.
    pub(super) fn model(&self, labels: &ModelLabels, cache: &Arc<ResponseCache>) -> CacheMetrics {
        let mut caches = self.caches();
        caches.retain(|(known, _)| known != labels);
        caches.push((labels.clone(), Arc::downgrade(cache)));
        self.bytes.get_or_create(labels).set(0);
        CacheMetrics {
            hits: self.hits.get_or_create_owned(labels),
            misses: self.misses.get_or_create_owned(labels),
            coalesced: self.coalesced.get_or_create_owned(labels),
        }
    }

    pub(super) fn forget(&self, labels: &ModelLabels) {
        self.caches().retain(|(known, _)| known != labels);
        for family in [&self.hits, &self.misses, &self.coalesced] {
            family.remove(labels);
        }
        self.bytes.remove(labels);
    }

    /// Reads how full the caches are now.
    pub(super) fn read(&self) {
        for (labels, cache) in self.caches().iter() {
            let bytes = cache.upgrade().map_or(0, |cache| cache.bytes());
            self.bytes.get_or_create(labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("cache_hits", "Requests answered from a response cache", self.hits.clone());
        let misses = self.misses.clone();
        r.register("cache_misses", "Requests that a response cache had no answer for", misses);
        let coalesced = self.coalesced.clone();
        r.register("coalesced", "Requests answered by the run of an equal request", coalesced);
        r.register("cache_bytes", "Memory that kept answers take", self.bytes.clone());
    }

    fn caches(&self) -> MutexGuard<'_, Vec<(ModelLabels, Weak<ResponseCache>)>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
