//! Callers whose requests keep failing runs: a pure rule. Theirs run alone for a while, so that they
//! cost their neighbours no second run.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// So many guilty requests within [`WINDOW`] make a caller a suspect.
const GUILTY: u32 = 3;
/// For how long guilt counts, and for how long after the last one a suspect's requests run alone.
const WINDOW: Duration = Duration::from_secs(10);
/// Most callers that are kept in mind; beyond it nobody new is suspected.
const MOST: usize = 1024;

/// What is remembered of callers whose requests failed.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<u64, Record>);

#[derive(Debug)]
struct Record {
    /// Guilty requests, each within [`WINDOW`] of the one before.
    count: u32,
    last: Instant,
}

impl Suspects {
    /// A request of `tenant` made a run fail; whether that makes it a suspect.
    pub(super) fn accuse(&mut self, tenant: u64, now: Instant) -> bool {
        // Nobody knows whose it is.
        if tenant == 0 {
            return false;
        }
        if self.0.len() >= MOST && !self.0.contains_key(&tenant) {
            self.0.retain(|_, record| record.counts(now));
            if self.0.len() >= MOST {
                return false;
            }
        }
        let record = self.0.entry(tenant).or_insert(Record { count: 0, last: now });
        record.count = if record.counts(now) { record.count.saturating_add(1) } else { 1 };
        record.last = now;
        record.count == GUILTY
    }

    /// Whether requests of `tenant` should run alone.
    pub(super) fn is_suspect(&self, tenant: u64, now: Instant) -> bool {
        let suspect = |record: &Record| record.count >= GUILTY && record.counts(now);
        self.0.get(&tenant).is_some_and(suspect)
    }
}

impl Record {
    fn counts(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_run_alone_until_ten_seconds_after_the_last() {
        let (mut suspects, begin) = (Suspects::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(!suspects.accuse(1, at(0)));
        assert!(!suspects.accuse(1, at(3)));
        assert!(!suspects.is_suspect(1, at(3)));
        assert!(suspects.accuse(1, at(6)));
        assert!(suspects.is_suspect(1, at(15)));
        assert!(!suspects.is_suspect(2, at(6)));
        assert!(!suspects.is_suspect(1, at(16)));
        // It fails alone: the time begins anew, without another word about it.
        assert!(!suspects.accuse(1, at(15)));
        assert!(suspects.is_suspect(1, at(24)));
        assert!(!suspects.is_suspect(1, at(25)));
        assert!(!suspects.accuse(1, at(25)), "long ago is forgotten");
        assert!(!suspects.is_suspect(1, at(25)));
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let (mut suspects, begin) = (Suspects::default(), Instant::now());
        assert!(!(1..5000).any(|tenant| suspects.accuse(tenant, begin)));
        assert_eq!(suspects.0.len(), MOST);
        suspects.accuse(9999, begin + WINDOW);
        assert_eq!(suspects.0.len(), 1);
    }
}
