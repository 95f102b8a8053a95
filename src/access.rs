//! Who may do what: credentials, and a table of rights by caller and model.
//!
//! Without an `access_file` everybody may do everything and a request costs nothing here. With one,
//! nothing is allowed that it does not grant.
//!
//! ```toml
//! [[token]]                    # printed by `onnxd token`
//! name = "ci"
//! sha256 = "9f86d081…"
//!
//! [jwt]                        # tokens that somebody else signs
//! issuer = "https://login.example.com"
//! audience = "onnxd"
//! algorithms = ["ES256"]
//! keys = "jwks.json"           # beside this file
//!
//! [[grant]]
//! to = ["token:ci", "jwt:svc-*", "cert:spiffe://prod/reader"]
//! models = ["resnet*", "magika"]
//! rights = ["infer"]           # or "describe", "control"
//! ```
//!
//! A caller's name tells how it was proven: `token:` a secret of this file, `jwt:` the subject of a
//! signed token, `cert:` the name in a certificate of TLS. So nobody gets rights by choosing a subject
//! that is somebody else's token. A bearer token that is sent must be right, whatever else a caller
//! shows.
//!
//! `infer` and `control` include `describe` of the same models. Model patterns are held against the
//! name as the caller wrote it, before it is looked up: one that is not there and one that is not
//! granted get the same answer. Listings leave out what a caller may not describe.
//!
//! The path of a request: the gate of its port ([`Access::admit`]) turns credentials into a [`Caller`],
//! once a call; what serves the call asks the caller for the right to the model that the message names
//! ([`Caller::may`]), in each message. A call that has passed no gate has no caller, and is refused. The
//! file is read again while the server runs; a call that is open goes by the new table from its next
//! message on.
//!
//! Source: RFC 6750 (bearer tokens), RFC 7519 (JWT), RFC 8725 (its best current practice).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config::AccessSettings;
use crate::error::{Denial, Right};
use crate::model::quoted;
use crate::reload::{self, Reload};
use crate::telemetry::metrics::AccessMetrics;

mod jwt;
pub mod methods;
pub mod table;

use table::{Digest, Table};

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("access_file: {path}: {reason}")]
pub struct AccessError {
    path: String,
    reason: String,
}

impl AccessError {
    fn new(path: &Path, reason: &dyn fmt::Display) -> Self {
        Self { path: path.display().to_string(), reason: reason.to_string() }
    }
}

/// The access file and the keys that it names, as they were read.
#[derive(PartialEq, Eq)]
struct Files {
    access: String,
    keys: Option<String>,
}

/// Nothing of a digest is ever written.
impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// Reads the file, and the keys beside it.
///
/// # Errors
/// [`AccessError`] naming the file.
fn read(path: &Path) -> Result<(Files, Table), AccessError> {
    let text =
        |path: &Path| std::fs::read_to_string(path).map_err(|error| AccessError::new(path, &error));
    let access = text(path)?;
    let wrong = |reason: String| AccessError::new(path, &reason);
    let written = table::parse(&access).map_err(wrong)?;
    let keys = written.keys().map(|keys| text(&path.with_file_name(keys))).transpose()?;
    let table = written.table(keys.as_deref()).map_err(wrong)?;
    Ok((Files { access, keys }, table))
}

/// What decides on callers. Clones share it.
#[derive(Debug, Clone)]
pub struct Access(Option<Arc<Guarded>>);

#[derive(Debug)]
struct Guarded {
    table: ArcSwap<Table>,
    /// What was read at start.
    loaded: Arc<Files>,
    path: PathBuf,
    interval: Duration,
    metrics: AccessMetrics,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self(None)
    }

    /// What the file says.
    ///
    /// # Errors
    /// [`AccessError`] for a file that cannot be read or does not say what it must.
    pub fn load(settings: &AccessSettings, metrics: AccessMetrics) -> Result<Self, AccessError> {
        let (files, table) = read(&settings.file)?;
        let (path, interval) = (settings.file.clone(), settings.reload);
        let (table, loaded) = (ArcSwap::from_pointee(table), Arc::new(files));
        Ok(Self(Some(Arc::new(Guarded { table, loaded, path, interval, metrics }))))
    }

    /// Whether credentials are asked for.
    pub fn is_guarded(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the file again and again until the answer is dropped. What cannot be used leaves
    /// everything as it was.
    ///
    /// # Errors
    /// The system's, if there can be no thread.
    pub fn watch(&self) -> io::Result<Option<Reload>> {
        let Some(guarded) = self.0.clone() else { return Ok(None) };
        let mut known = Ok(Arc::clone(&guarded.loaded));
        let interval = guarded.interval;
        let look = move || {
            let (found, table) = match read(&guarded.path) {
                Ok((files, table)) => (Ok(Arc::new(files)), Some(table)),
                Err(error) => (Err(error), None),
            };
            if known == found {
                return;
            }
            if let Some(table) = table {
                guarded.table.store(table.into());
                guarded.metrics.reloads.inc();
                tracing::info!("access file read");
            } else if let Err(error) = &found {
                guarded.metrics.failed_reloads.inc();
                tracing::warn!(%error, "the new access file cannot be used; the old one stays");
            }
            known = found;
        };
        reload::every(interval, "access", look).map(Some)
    }

    /// Who calls, by the headers of the call and the name in its certificate.
    ///
    /// # Errors
    /// [`Denial`]: no credentials, or wrong ones. Counted.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        certificate: Option<&str>,
        now: SystemTime,
    ) -> Result<Caller, Denial> {
        let Some(guarded) = &self.0 else { return Ok(Caller(None)) };
        let known = |name: String, proof| {
            Caller(Some(Arc::new(Known { guarded: Arc::clone(guarded), name, proof })))
        };
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let admitted = match (sent.next(), sent.next(), certificate) {
            (Some(credentials), None, _) => guarded
                .table
                .load()
                .bearer(credentials.as_bytes(), now)
                .map(|(name, proof)| known(name, proof)),
            (Some(_), Some(_), _) => Err(Denial::BadCredentials),
            (None, _, Some(name)) => Ok(known(format!("cert:{name}"), Proof::Certificate)),
            (None, _, None) => Err(Denial::NoCredentials),
        };
        admitted.inspect_err(|denial| guarded.metrics.denied(denial))
    }

    /// Who makes the call that has these extensions.
    ///
    /// # Errors
    /// [`Denial::NoCredentials`] for a call that has passed no gate, where there has to be one.
    pub fn caller(&self, extensions: &http::Extensions) -> Result<Caller, Denial> {
        match (&self.0, extensions.get::<Caller>()) {
            (None, _) => Ok(Caller(None)),
            (Some(_), Some(caller)) => Ok(caller.clone()),
            (Some(guarded), None) => {
                let denial = Denial::NoCredentials;
                guarded.metrics.denied(&denial);
                Err(denial)
            }
        }
    }
}

/// How a name was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// By a secret of the table.
    Token(Digest),
    /// By a signature that holds until then, in seconds of the Unix epoch.
    Signed(u64),
    /// By the certificate of the connection.
    Certificate,
}

/// Who makes a call.
#[derive(Clone)]
pub struct Caller(Option<Arc<Known>>);

struct Known {
    guarded: Arc<Guarded>,
    name: String,
    proof: Proof,
}

/// The name alone.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_ref().map_or("anyone", |known| known.name.as_str());
        f.debug_tuple("Caller").field(&name).finish()
    }
}

impl Caller {
    /// Somebody who may do everything: where nothing is guarded.
    pub fn anyone() -> Self {
        Self(None)
    }

    /// Whether this caller has a right to a model, by the table of this moment.
    ///
    /// # Errors
    /// [`Denial`] for a right that it has not, and for credentials that hold no more. Counted.
    pub fn may(&self, right: Right, model: &str) -> Result<(), Denial> {
        let Some(known) = &self.0 else { return Ok(()) };
        let denial = known.decide(right, model, SystemTime::now());
        denial.inspect_err(|denial| known.guarded.metrics.denied(denial))
    }

    /// Whether a listing shows a model to this caller.
    pub fn sees(&self, model: &str) -> bool {
        let Some(known) = &self.0 else { return true };
        known.decide(Right::Describe, model, SystemTime::now()).is_ok()
    }

    /// Tells this caller from others of the same server; `None` where nobody has a name.
    pub fn tenant(&self) -> Option<u64> {
        let known = self.0.as_ref()?;
        let mut hasher = std::hash::DefaultHasher::new();
        known.name.hash(&mut hasher);
        Some(hasher.finish())
    }
}

impl Known {
    fn decide(&self, right: Right, model: &str, now: SystemTime) -> Result<(), Denial> {
        let table = self.guarded.table.load();
        if !table.still_holds(&self.name, &self.proof, now) {
            return Err(Denial::BadCredentials);
        }
        if table.grants(&self.name, right, model) {
            return Ok(());
        }
        let (caller, model) = (quoted(&self.name), quoted(model));
        Err(Denial::NotAllowed { caller, right, model })
    }
}

#[cfg(test)]
mod tests;
