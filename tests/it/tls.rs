//! TLS on the data ports: who is served, who is not, and new files while calls run. All certificates
//! are made here.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onnxd::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::harness::{Client, TestServer, request, values};
use crate::scripted::{NAMES, ScriptedLoader};

const PATIENCE: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Somebody who signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }

    fn pair(&self) -> Pair {
        self.issue(|_| {})
    }
}

/// Files as the settings name them.
struct Files(tempfile::TempDir);

impl Files {
    fn new(pair: &Pair, client_ca: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(pair);
        files.put("ca.pem", client_ca);
        files
    }

    fn put(&self, name: &str, text: &str) {
        // Renamed into place, so that nobody reads a half of it.
        let draft = self.0.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.0.path().join(name)).unwrap();
    }

    fn write(&self, pair: &Pair) {
        self.put("cert.pem", &pair.cert);
        self.put("key.pem", &pair.key);
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    async fn server(&self, more: &[(&str, &str)]) -> TestServer {
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| self.path(name));
        let mut settings = vec![("tls_cert", &*cert), ("tls_key", &*key)];
        settings.extend(more);
        TestServer::start(&settings).await
    }
}

async fn channel(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&Pair>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&authority.pem))
        .domain_name("localhost");
    if let Some(own) = own {
        tls = tls.identity(Identity::from_pem(&own.cert, &own.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

async fn client(address: SocketAddr, authority: &Authority, own: Option<&Pair>) -> Client {
    GrpcInferenceServiceClient::new(channel(address, authority, own).await.unwrap())
}

/// A bare TLS connection.
async fn connect(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&Pair>,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// Whether a peer that says `words` is let go without an answer: not one byte of HTTP comes back.
async fn is_turned_away(stream: std::io::Result<TlsStream<TcpStream>>, words: &[u8]) -> bool {
    let Ok(mut stream) = stream else { return true };
    let mut heard = Vec::new();
    let talk = async {
        stream.write_all(words).await?;
        stream.read_to_end(&mut heard).await
    };
    let ended = tokio::time::timeout(PATIENCE, talk).await.unwrap();
    drop(ended);
    heard.is_empty()
}

#[tokio::test]
async fn both_data_ports_answer_over_tls() {
    let authority = Authority::new("one");
    let files = Files::new(&authority.pair(), "");
    let server = files.server(&[]).await;
    let mut client = client(server.grpc, &authority, None).await;
    let answer = client.model_infer(request("echo", &[2.0])).await.unwrap().into_inner();
    assert_eq!(values(&answer), [2.0]);

    let mut stream = connect(server.http, &authority, None, &["http/1.1"]).await.unwrap();
    let question = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(question).await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 OK"), "{heard}");
    server.finish().await;
}

#[tokio::test]
async fn peers_that_are_not_as_they_should_reach_nothing() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = Files::new(&ours.pair(), &ours.pem);
    let ca = files.path("ca.pem");
    let server = files.server(&[("tls_client_ca", &ca), ("handshake_ms", "300")]).await;
    let (grpc, h2) = (server.grpc, &["h2"][..]);

    let strangers = [
        ("no certificate", None),
        ("another authority's", Some(theirs.pair())),
        ("expired", Some(ours.issue(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)))),
        (
            "not yet valid",
            Some(ours.issue(|params| params.not_before = rcgen::date_time_ymd(2999, 1, 1))),
        ),
    ];
    for (what, own) in &strangers {
        let stream = connect(grpc, &ours, own.as_ref(), h2).await;
        assert!(is_turned_away(stream, PREFACE).await, "{what}");
        let stream = connect(server.http, &ours, own.as_ref(), &["http/1.1"]).await;
        let question = b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert!(is_turned_away(stream, question).await, "{what}");
    }
    let own = ours.pair();
    for protocols in [&[][..], &["spdy/1"]] {
        let stream = connect(grpc, &ours, Some(&own), protocols).await;
        assert!(is_turned_away(stream, PREFACE).await, "{protocols:?}");
    }
    assert!(channel(grpc, &theirs, Some(&own)).await.is_err(), "the server is not theirs");

    // TLS 1.1 is version 0x0302; then half a hello, silence, clear text.
    let old = [&[22, 3, 1, 0, 47, 1, 0, 0, 43, 3, 2][..], &[7; 32], &[0, 0, 4, 0, 47, 0, 53, 1, 0]];
    for words in [&old.concat(), &old.concat()[..20], &b""[..], PREFACE, b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut socket = TcpStream::connect(grpc).await.unwrap();
        socket.write_all(words).await.unwrap();
        let mut heard = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut heard)).await.unwrap();
        // At most an alert of TLS.
        assert!(ended.is_err() || heard.len() <= 7, "{words:?}: {heard:?}");
    }

    assert!(server.loader.control("echo").runs_so_far().is_empty());
    let answer = client(grpc, &ours, Some(&own)).await.model_infer(request("echo", &[1.0])).await;
    assert_eq!(values(answer.unwrap().get_ref()), [1.0]);
    server.finish().await;
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_wrong() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let files = Files::new(&ours.pair(), &ours.pem);
    let ca = files.path("ca.pem");
    let server = files.server(&[("tls_client_ca", &ca), ("tls_client_auth", "optional")]).await;
    let mut anybody = client(server.grpc, &ours, None).await;
    anybody.model_infer(request("echo", &[1.0])).await.unwrap();
    let wrong = theirs.pair();
    let stream = connect(server.grpc, &ours, Some(&wrong), &["h2"]).await;
    assert!(is_turned_away(stream, PREFACE).await);
    server.finish().await;
}

fn leaf(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()
}

/// Waits until new connections are shown this certificate.
async fn until_shown(address: SocketAddr, authority: &Authority, own: &Pair, wanted: &Pair) {
    let shown = async {
        loop {
            let stream = connect(address, authority, Some(own), &["h2"]).await.unwrap();
            if stream.get_ref().1.peer_certificates().unwrap()[0] == leaf(wanted) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.unwrap();
}

#[tokio::test]
async fn new_files_are_taken_and_no_call_fails() {
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let (first, own) = (ours.pair(), ours.pair());
    let files = Files::new(&first, &ours.pem);
    let ca = files.path("ca.pem");
    let server = files.server(&[("tls_client_ca", &ca), ("tls_reload_ms", "5")]).await;

    let mut old = client(server.grpc, &ours, Some(&own)).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let calls = tokio::spawn(async move {
        let mut count = 0_u32;
        while stopped.try_recv().is_err() {
            old.model_infer(request("echo", &[1.0])).await.unwrap();
            count += 1;
        }
        (old, count)
    });
    for _ in 0..3 {
        let pair = ours.pair();
        files.write(&pair);
        until_shown(server.grpc, &ours, &own, &pair).await;
        client(server.grpc, &ours, Some(&own))
            .await
            .model_infer(request("echo", &[1.0]))
            .await
            .unwrap();
    }
    // A key of another certificate, and text that is none: what was there stays.
    let (kept, other) = (ours.pair(), ours.pair());
    files.write(&kept);
    until_shown(server.grpc, &ours, &own, &kept).await;
    let mut failures = 0;
    for text in [&*other.key, "no key"] {
        files.put("key.pem", text);
        failures += 1;
        failed_reloads(&server, failures).await;
        until_shown(server.grpc, &ours, &own, &kept).await;
    }
    // Callers of the old authority are not taken any more, connections that are there are.
    files.write(&ours.pair());
    files.put("ca.pem", &next.pem);
    let refused = async {
        while !is_turned_away(connect(server.grpc, &ours, Some(&own), &["h2"]).await, b"").await {}
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let fresh = next.pair();
    client(server.grpc, &ours, Some(&fresh))
        .await
        .model_infer(request("echo", &[1.0]))
        .await
        .unwrap();
    stop.send(()).unwrap();
    let (mut old, count) = calls.await.unwrap();
    assert!(count > 0);
    old.model_infer(request("echo", &[1.0])).await.unwrap();
    drop(old);
    server.finish().await;
}

/// Waits until the server has met so many sets of files that it cannot use.
async fn failed_reloads(server: &TestServer, wanted: u32) {
    let counted = async {
        loop {
            let text = metrics(server.admin).await;
            let is_it =
                |line: &&str| line.starts_with("onnxd_tls_reloads_total{result=\"failed\"}");
            let line = text.lines().find(is_it).unwrap();
            if line.rsplit(' ').next().unwrap().parse::<u32>().unwrap() >= wanted {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
}

async fn metrics(address: SocketAddr) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let question = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(question).await.unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).await.unwrap();
    heard
}

/// Why a server with these files does not start.
async fn refusal(cert: &Path, key: &Path) -> String {
    let (cert, key) = (cert.to_string_lossy(), key.to_string_lossy());
    let settings = [("tls_cert", &*cert), ("tls_key", &*key)];
    let server = TestServer::start_with(&settings, &NAMES, ScriptedLoader::default()).await;
    server.ended().await.unwrap_err().to_string()
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_start() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.pair(), "nothing");
    files.put("other.pem", &authority.pair().key);
    let path = |name: &str| Path::new(&files.path(name)).to_owned();
    let cases = [
        ("missing.pem", "key.pem", "tls_cert: "),
        ("ca.pem", "key.pem", "tls_cert: no certificate in it"),
        ("cert.pem", "ca.pem", "tls_key: "),
        ("cert.pem", "other.pem", "tls_key: "),
    ];
    for (cert, key, wanted) in cases {
        let found = refusal(&path(cert), &path(key)).await;
        assert!(found.starts_with(wanted), "{cert} {key}: {found}");
    }
}
