//! Who has had how much: so that a greedy caller gets the capacity that the others leave, and no more.
//!
//! Each caller with waiting requests has a count of the batches, and parts of batches, that were
//! taken for it. Whoever comes anew starts where the one that was served last stands, so nobody saves
//! up and nobody starves. Callers within the same round, which is one batch, are equals. Source:
//! start-time fair queueing.

use std::collections::BTreeMap;

/// Parts of a round that are told apart.
const ROUND: u64 = 1 << 20;

/// Counts of all callers that wait.
#[derive(Debug, Default)]
pub(super) struct Shares {
    callers: BTreeMap<u64, Share>,
    /// Where the caller that was served last stood.
    standing: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Share {
    /// In parts of a round. Only rises, whatever the size of batches becomes.
    served: u64,
    jobs: usize,
}

impl Shares {
    /// A request of `tenant` waits from now on.
    pub(super) fn enter(&mut self, tenant: u64) {
        let fresh = Share { served: self.standing, jobs: 0 };
        self.callers.entry(tenant).or_insert(fresh).jobs += 1;
    }

    /// A request of `tenant` waits no more.
    pub(super) fn leave(&mut self, tenant: u64) {
        if let Some(share) = self.callers.get_mut(&tenant) {
            share.jobs -= 1;
            if share.jobs == 0 {
                self.callers.remove(&tenant);
            }
        }
    }

    /// `rows` of `tenant`, which still waits, are taken for a run, where a full one has `full`.
    pub(super) fn serve(&mut self, tenant: u64, rows: usize, full: usize) {
        if let Some(share) = self.callers.get_mut(&tenant) {
            self.standing = self.standing.max(share.served);
            share.served += rows as u64 * ROUND / full.max(1) as u64;
        }
    }

    /// The round of `tenant`; lower rounds go first.
    pub(super) fn round(&self, tenant: u64) -> u64 {
        let served = self.callers.get(&tenant).map_or(self.standing, |share| share.served);
        served / ROUND
    }

    /// Waiting requests of `tenant`.
    pub(super) fn jobs(&self, tenant: u64) -> usize {
        self.callers.get(&tenant).map_or(0, |share| share.jobs)
    }

    /// Forgets everybody.
    pub(super) fn clear(&mut self) {
        self.callers.clear();
    }
}
