//! Who has had how much: so that a greedy caller gets the capacity that the others leave, and no more.
//!
//! Each caller has a count of the batches, and parts of batches, that were taken for it. Whoever comes
//! anew starts where the one that was served last stands; whoever comes again after a pause starts
//! where it stood, but no more than some rounds behind: who asks for less than its share goes first
//! when its requests come close together, and nobody saves up for long. Callers within the same
//! round, which is one batch, are equals. Sources: start-time fair queueing; Linux's fair scheduler
//! for the few rounds of those who slept.

use std::collections::BTreeMap;

/// Parts of a round that are told apart.
const ROUND: u64 = 1 << 20;
/// Rounds that a caller may be behind after a pause.
pub(super) const BEHIND: u64 = 4;
const CREDIT: u64 = BEHIND * ROUND;
/// Callers without waiting requests that are remembered.
const RESTING: usize = 1024;

/// Counts of all callers that wait, and of those that did a moment ago.
#[derive(Debug, Default)]
pub(super) struct Shares {
    callers: BTreeMap<u64, Share>,
    /// Callers without waiting requests, by when their last one left.
    resting: BTreeMap<u64, u64>,
    rests: u64,
    /// Where the caller that was served last stood.
    standing: u64,
    /// Time of an instance, in nanoseconds, that a round takes, of requests as the last one served.
    round_work: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Share {
    /// In parts of a round. Only rises, whatever the size of batches becomes.
    served: u64,
    jobs: usize,
    /// Its place among the resting if it has no jobs.
    rest: u64,
}

impl Shares {
    /// A request of `tenant` waits from now on.
    pub(super) fn enter(&mut self, tenant: u64) {
        let served = self.stands(tenant);
        let share = self.callers.entry(tenant).or_default();
        if share.jobs == 0 {
            self.resting.remove(&share.rest);
        }
        *share = Share { served, jobs: share.jobs + 1, ..*share };
    }

    /// A request of `tenant` waits no more.
    pub(super) fn leave(&mut self, tenant: u64) {
        let Some(share) = self.callers.get_mut(&tenant) else { return };
        share.jobs -= 1;
        if share.jobs > 0 {
            return;
        }
        self.rests += 1;
        share.rest = self.rests;
        self.resting.insert(self.rests, tenant);
        if self.resting.len() > RESTING
            && let Some((_, oldest)) = self.resting.pop_first()
        {
            self.callers.remove(&oldest);
        }
    }

    /// `rows` of `tenant`, which still waits, are taken for a run, where a full one has `full`; at
    /// best they take an instance for `work` nanoseconds.
    pub(super) fn serve(&mut self, tenant: u64, (rows, full): (usize, usize), work: u64) {
        if let Some(share) = self.callers.get_mut(&tenant) {
            self.standing = self.standing.max(share.served);
            share.served += rows as u64 * ROUND / full.max(1) as u64;
            self.round_work = work.saturating_mul(full as u64) / rows.max(1) as u64;
        }
    }

    /// The round of `tenant`; lower rounds go first.
    pub(super) fn round(&self, tenant: u64) -> u64 {
        self.stands(tenant) / ROUND
    }

    /// Time of an instance, in nanoseconds, that a round takes.
    pub(super) fn round_work(&self) -> u64 {
        self.round_work
    }

    /// Where `tenant` stands, or would if a request of it came now.
    fn stands(&self, tenant: u64) -> u64 {
        match self.callers.get(&tenant) {
            None => self.standing,
            Some(share) if share.jobs > 0 => share.served,
            Some(share) => share.served.max(self.standing.saturating_sub(CREDIT)),
        }
    }

    /// Waiting requests of `tenant`.
    pub(super) fn jobs(&self, tenant: u64) -> usize {
        self.callers.get(&tenant).map_or(0, |share| share.jobs)
    }

    /// Forgets everybody.
    pub(super) fn clear(&mut self) {
        self.callers.clear();
        self.resting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_those_who_rest_are_remembered_and_all_who_wait() {
        let mut shares = Shares::default();
        shares.enter(0);
        for _ in 0..3 {
            for tenant in 1..3000 {
                shares.enter(tenant);
                shares.serve(0, (1, 1), 1);
                shares.leave(tenant);
            }
        }
        assert_eq!((shares.resting.len(), shares.callers.len()), (RESTING, RESTING + 1));
        assert_eq!(shares.round(0), 3 * 2999);
        // Standing is where the one stood that was served last, before it was.
        assert_eq!(shares.round(2999), 3 * 2999 - 2, "came when the last but one was served");
        assert_eq!(shares.round(2998), 3 * 2999 - 3);
        assert_eq!(shares.round(2000), 3 * 2999 - 1 - 4, "as far behind as one can be");
        assert_eq!(shares.round(1), 3 * 2999 - 1, "forgotten");
    }
}
