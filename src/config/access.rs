//! Settings of credentials and rights.

use std::path::PathBuf;
use std::time::Duration;

use super::{Reader, values};

/// Where it is written who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessSettings {
    /// The access file.
    pub file: PathBuf,
    /// Time between two looks at it.
    pub reload: Duration,
}

impl Reader<'_> {
    /// The settings, if callers need credentials. A mistake is noted and is `None` too.
    pub(super) fn access(&mut self) -> Option<AccessSettings> {
        let reload = self.value("access_reload_ms", values::some_millis)?;
        let (file, _) = (self.text)("access_file");
        (!file.is_empty()).then(|| AccessSettings { file: file.into(), reload })
    }
}
