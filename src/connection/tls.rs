//! TLS: who this server is, which callers it takes, and how both change while it runs.
//!
//! TLS 1.2 and 1.3. A caller of the data port says by ALPN that it speaks HTTP/2 (or HTTP/1.1, for
//! browsers), as gRPC wants it; on the REST port it may say nothing. A handshake and the first words
//! after it have the time that first words have in clear text, and on each port no more than
//! [`TlsSettings::max_handshakes`] handshakes go on at a time.
//!
//! The files are read again and again ([`Identity::watch`]), by contents and not by age, because a
//! Kubernetes secret is a link that is swapped. Certificate, key and callers' authorities change
//! together or not at all: what cannot be used leaves everything as it was. Connections that are open
//! go on.
//!
//! Source: RFC 8446; gRPC over HTTP/2, "Security".

use std::fmt;
use std::io::{self, Cursor};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PREFACE;
use super::arrivals::Arrivals;
use crate::config::{ClientAuth, TlsSettings};
use crate::reload::{self, Reload};
use crate::telemetry::metrics::{ConnectionMetrics, Refused, TlsMetrics};

/// Who a caller is by its certificate, in the extensions of its requests: the first URI that it
/// names, else the first DNS name, else its common name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity(pub Arc<str>);

/// Why the files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct TlsError {
    setting: &'static str,
    reason: String,
}

impl TlsError {
    /// The same, with the path of the setting's file.
    fn located(mut self, settings: &TlsSettings) -> Self {
        let path = match self.setting {
            "tls_cert" => Some(&settings.cert),
            "tls_key" => Some(&settings.key),
            _ => settings.client_ca.as_ref(),
        };
        if let Some(path) = path {
            self.reason = format!("{}: {}", path.display(), self.reason);
        }
        self
    }
}

fn wrong(setting: &'static str, reason: &impl ToString) -> TlsError {
    TlsError { setting, reason: reason.to_string() }
}

/// The contents of the files.
#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Nothing of a key is ever written.
impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

impl Files {
    fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let read = |setting, path: &Path| {
            std::fs::read(path).map_err(|error| wrong(setting, &error).located(settings))
        };
        Ok(Self {
            certificate: read("tls_cert", &settings.cert)?,
            key: read("tls_key", &settings.key)?,
            client_ca: settings
                .client_ca
                .as_deref()
                .map(|path| read("tls_client_ca", path))
                .transpose()?,
        })
    }

    /// What serves with them, and when the certificate ends, in seconds of the Unix epoch.
    fn server(&self, settings: &TlsSettings) -> Result<(ServerConfig, i64), TlsError> {
        self.agreed(settings.client_auth).map_err(|error| error.located(settings))
    }

    fn agreed(&self, auth: ClientAuth) -> Result<(ServerConfig, i64), TlsError> {
        let chain = certificates("tls_cert", &self.certificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| wrong("tls_key", &error))?;
        let ends_at = chain.first().map_or(Ok(0), |leaf| ends_at(leaf))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| wrong("tls_cert", &error))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(_) if auth == ClientAuth::Off => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = rustls::RootCertStore::empty();
                for authority in certificates("tls_client_ca", pem)? {
                    roots.add(authority).map_err(|error| wrong("tls_client_ca", &error))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    ClientAuth::Off | ClientAuth::Required => verifier,
                };
                let verifier = verifier.build().map_err(|error| wrong("tls_client_ca", &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        // The library holds the key against the certificate.
        let mut server =
            builder.with_single_cert(chain, key).map_err(|error| wrong("tls_key", &error))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((server, ends_at))
    }
}

fn certificates(
    setting: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| wrong(setting, &error))?;
    if found.is_empty() { Err(wrong(setting, &"no certificate in it")) } else { Ok(found) }
}

fn ends_at(leaf: &CertificateDer<'_>) -> Result<i64, TlsError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| wrong("tls_cert", &error))?;
    Ok(parsed.validity().not_after.timestamp())
}

/// What this server shows to callers, and whom it takes.
#[derive(Debug, Clone)]
pub struct Identity {
    current: Arc<ArcSwap<ServerConfig>>,
    settings: Arc<TlsSettings>,
    /// What was read at start.
    loaded: Arc<Files>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] naming the setting whose file cannot be used.
    pub fn load(settings: TlsSettings, metrics: &TlsMetrics) -> Result<Self, TlsError> {
        let files = Files::read(&settings)?;
        let (server, ends_at) = files.server(&settings)?;
        metrics.expiry.set(ends_at);
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(server)),
            settings: Arc::new(settings),
            loaded: Arc::new(files),
        })
    }

    /// Looks at the files again and again, on a thread of its own, until the answer is dropped.
    ///
    /// # Errors
    /// The system's, if there can be no thread.
    pub fn watch(&self, metrics: TlsMetrics) -> io::Result<Reload> {
        let identity = self.clone();
        let mut known = Ok(Arc::clone(&self.loaded));
        let look = move || {
            let found = Files::read(&identity.settings).map(Arc::new);
            if known != found {
                take(&identity, &found, &metrics);
                known = found;
            }
        };
        reload::every(self.settings.reload, "certificates", look)
    }
}

/// The handshakes of one port.
#[derive(Debug, Clone)]
pub(super) struct Handshakes {
    identity: Identity,
    places: Arrivals,
    needs_alpn: bool,
}

/// A connection over TLS whose first words were read, and who the peer is.
pub(super) type Secured<S> = (Greeted<TlsStream<S>>, Option<PeerIdentity>);

impl Handshakes {
    /// None under way. A peer that does not say which protocol it speaks is refused where the port
    /// `needs_alpn`.
    pub(super) fn new(identity: Identity, needs_alpn: bool) -> Self {
        let places = Arrivals::new(identity.settings.max_handshakes);
        Self { identity, places, needs_alpn }
    }

    /// Shakes hands and waits for the first words.
    ///
    /// # Errors
    /// Why the connection has to be closed.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        metrics: &ConnectionMetrics,
    ) -> Result<Secured<S>, (Refused, io::Error)> {
        let crowded = || {
            let limit = self.identity.settings.max_handshakes;
            let error = io::Error::other(format!("all places for handshakes are taken: {limit}"));
            (Refused::Handshakes, error)
        };
        let mut place = self.places.enter().ok_or_else(crowded)?;
        let counted = metrics.handshake();
        let acceptor = TlsAcceptor::from(self.identity.current.load_full());
        let stream = tokio::select! {
            biased;
            stream = acceptor.accept(socket) => stream.map_err(|error| (Refused::Tls, error))?,
            () = place.gave_way() => return Err(crowded()),
        };
        if self.needs_alpn && stream.get_ref().1.alpn_protocol().is_none() {
            let error = io::Error::other("the peer does not say which protocol it speaks");
            return Err((Refused::Tls, error));
        }
        // A peer that has shaken hands and says nothing keeps nobody from doing so.
        drop((place, counted));
        let chain = stream.get_ref().1.peer_certificates();
        let peer = chain.and_then(|chain| chain.first()).and_then(identity);
        let greeted = Greeted::of(stream).await.map_err(|error| (Refused::Gone, error))?;
        Ok((greeted, peer))
    }
}

/// Serves with what was found from now on, if it can be used.
fn take(identity: &Identity, found: &Result<Arc<Files>, TlsError>, metrics: &TlsMetrics) {
    let settings = &identity.settings;
    match found.as_ref().map_err(Clone::clone).and_then(|files| files.server(settings)) {
        Ok((server, ends_at)) => {
            identity.current.store(Arc::new(server));
            metrics.expiry.set(ends_at);
            metrics.reloads.inc();
            tracing::info!(ends_at, "certificate read");
        }
        Err(error) => {
            metrics.failed_reloads.inc();
            tracing::warn!(%error, "the new certificate cannot be used; the old one stays");
        }
    }
}

/// Who a verified certificate names.
fn identity(certificate: &CertificateDer<'_>) -> Option<PeerIdentity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) => Some(*dns),
        _ => None,
    });
    let common = || parsed.subject().iter_common_name().next()?.as_str().ok();
    uri.or(dns).or_else(common).map(|name| PeerIdentity(name.into()))
}

/// A connection whose first words were read, and will be read again.
#[derive(Debug)]
pub(super) struct Greeted<S> {
    words: Cursor<Vec<u8>>,
    socket: S,
}

impl<S: AsyncRead + Unpin> Greeted<S> {
    /// Waits for all of HTTP/2's preface, or something else: until then a peer has no call, and a
    /// connection that stops here would never end.
    async fn of(mut socket: S) -> io::Result<Self> {
        let mut words = Vec::with_capacity(PREFACE.len());
        while words.len() < PREFACE.len() && PREFACE.starts_with(&words) {
            let missing = u64::try_from(PREFACE.len() - words.len()).unwrap_or(u64::MAX);
            if (&mut socket).take(missing).read_buf(&mut words).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self { words: Cursor::new(words), socket })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.words.position() < self.words.get_ref().len() as u64 {
            ready!(Pin::new(&mut self.words).poll_read(context, buffer))?;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
