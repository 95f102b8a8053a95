//! Settings of TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Reader, named, values};

/// Files that prove who this server is, and whom it asks for the same.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Chain of certificates, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities of callers' certificates, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether callers show a certificate.
    pub client_auth: ClientAuth,
    /// Time between two looks at the files.
    pub reload: Duration,
    /// Handshakes at a time, on each port.
    pub max_handshakes: usize,
}

/// Whether callers show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is not asked for.
    Off,
    /// One that is shown must be right.
    Optional,
    /// Nobody is served without.
    Required,
}

impl Reader<'_> {
    /// Refuses ports that others than this host reach in clear text, unless that is wanted. Metrics and
    /// probes may be read by whoever reaches them; tokens and control of models may not.
    pub(super) fn in_clear_text(
        &mut self,
        is_secured: bool,
        is_explicit: bool,
        [grpc, http, admin]: [Option<SocketAddr>; 3],
    ) -> Option<()> {
        let modes = [("loopback", false), ("anywhere", true)];
        let is_wanted = self.value("clear_text", |text| values::choice(text, &modes))?;
        let is_delicate = is_explicit || !(self.text)("access_file").0.is_empty();
        let ports = [
            ("grpc_addr", grpc, !is_secured, "give tls_cert and tls_key, or "),
            ("http_addr", http, !is_secured, "give tls_cert and tls_key, or "),
            ("admin_addr", admin, is_delicate, ""),
        ];
        for (name, address, is_refused, way_out) in ports {
            let Some(address) = address else { continue };
            if is_wanted || !is_refused || address.ip().is_loopback() {
                continue;
            }
            let (_, origin) = (self.text)(name);
            let problem = format!(
                "{address} is not a loopback address and would be served in clear text: {way_out}\
                 say clear_text = anywhere"
            );
            self.errors.push(&named(name, origin), problem);
        }
        Some(())
    }

    /// The settings, if TLS is switched on. Mistakes are noted and are `None` too.
    pub(super) fn tls(&mut self) -> Option<TlsSettings> {
        let reload = self.value("tls_reload_ms", values::some_millis)?;
        let max_handshakes = self.value("max_handshakes", |text| values::number(text, 1))?;
        let [cert, key, client_ca] =
            ["tls_cert", "tls_key", "tls_client_ca"].map(|name| (self.text)(name));
        let modes = [
            ("", if client_ca.0.is_empty() { ClientAuth::Off } else { ClientAuth::Required }),
            ("off", ClientAuth::Off),
            ("optional", ClientAuth::Optional),
            ("required", ClientAuth::Required),
        ];
        let auth_origin = (self.text)("tls_client_auth").1;
        let client_auth = self.value("tls_client_auth", |text| values::choice(text, &modes))?;
        let mut lacks = |name: &str, other: &str, origin| {
            self.errors.push(&named(name, origin), format!("has a meaning only with {other}"));
        };
        match (cert.0.is_empty(), key.0.is_empty()) {
            (false, true) => lacks("tls_cert", "tls_key", cert.1),
            (true, false) => lacks("tls_key", "tls_cert", key.1),
            (true, true) if !client_ca.0.is_empty() => {
                lacks("tls_client_ca", "tls_cert", client_ca.1);
            }
            // Whoever asks for certificates must not get a server in clear text.
            (true, true) if client_auth != ClientAuth::Off => {
                lacks("tls_client_auth", "tls_cert", auth_origin);
            }
            (false, false) if client_auth != ClientAuth::Off && client_ca.0.is_empty() => {
                lacks("tls_client_auth", "tls_client_ca", auth_origin);
            }
            (true, true) => return None,
            (false, false) => {}
        }
        Some(TlsSettings {
            cert: cert.0.into(),
            key: key.0.into(),
            client_ca: (!client_ca.0.is_empty()).then(|| client_ca.0.into()),
            client_auth,
            reload,
            max_handshakes,
        })
    }
}
