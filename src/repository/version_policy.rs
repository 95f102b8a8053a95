//! Which of the versions on disk are served. Pure.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use crate::model::ModelVersion;

/// Which versions of a model are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many.
    Latest(NonZeroUsize),
    /// All.
    All,
    /// These, if they are there.
    Specific(BTreeSet<ModelVersion>),
}

impl VersionPolicy {
    /// The versions to serve, oldest first.
    pub fn select(&self, available: &BTreeSet<ModelVersion>) -> Vec<ModelVersion> {
        match self {
            Self::Latest(count) => {
                let mut newest: Vec<_> =
                    available.iter().rev().take(count.get()).copied().collect();
                newest.reverse();
                newest
            }
            Self::All => available.iter().copied().collect(),
            Self::Specific(wanted) => available.intersection(wanted).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_selects_what_it_says() {
        let versions = |numbers: &[u64]| -> BTreeSet<ModelVersion> {
            numbers.iter().filter_map(|number| ModelVersion::new(*number)).collect()
        };
        let numbers = |policy: &VersionPolicy| -> Vec<u64> {
            policy.select(&versions(&[1, 2, 10])).into_iter().map(ModelVersion::number).collect()
        };
        let two = NonZeroUsize::new(2).unwrap();
        assert_eq!(numbers(&VersionPolicy::Latest(NonZeroUsize::MIN)), [10]);
        assert_eq!(numbers(&VersionPolicy::Latest(two)), [2, 10]);
        assert_eq!(numbers(&VersionPolicy::All), [1, 2, 10]);
        assert_eq!(numbers(&VersionPolicy::Specific(versions(&[1, 3]))), [1]);
    }
}
