//! TLS on the data ports: who is served, who is not, and new files while calls run. All certificates
//! are made here.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Authority, Files, Pair, channel, client, connect};
use crate::harness::{TestServer, request, values};
use crate::scripted::{NAMES, ScriptedLoader};

const PATIENCE: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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

/// A certificate of whoever stands at the end of so many who vouch for each other, with all of them.
fn at_the_end_of(ours: &Authority, count: usize) -> Pair {
    let mut chain = vec![ours.vouched("1")];
    while chain.len() < count {
        let next = chain[chain.len() - 1].vouched(&(chain.len() + 1).to_string());
        chain.push(next);
    }
    let mut pair = chain[count - 1].pair();
    for authority in chain.iter().rev() {
        pair.cert.push_str(&authority.pem);
    }
    pair
}

#[tokio::test]
async fn a_chain_without_end_is_turned_away() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours.pair(), &ours.pem);
    let ca = files.path("ca.pem");
    let server = files.server(&[("tls_client_ca", &ca)]).await;
    for (count, is_served) in [(3, true), (99, false)] {
        let own = at_the_end_of(&ours, count);
        let stream = connect(server.grpc, &ours, Some(&own), &["h2"]).await;
        let hello = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        if is_served {
            let (mut stream, mut heard) = (stream.unwrap(), [0]);
            stream.write_all(&hello).await.unwrap();
            let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await;
            read.unwrap().unwrap();
        } else {
            assert!(is_turned_away(stream, &hello).await, "{count}");
        }
    }
    let refused = "onnxd_refused_connections_total{port=\"grpc\",reason=\"tls\"}";
    server.counted(refused, |count| count == 1).await;
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
async fn failed_reloads(server: &TestServer, wanted: u64) {
    server.counted("onnxd_tls_reloads_total{result=\"failed\"}", |count| count >= wanted).await;
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
        ("missing.pem", "key.pem", "tls_cert", "missing.pem"),
        ("ca.pem", "key.pem", "tls_cert", "ca.pem"),
        ("cert.pem", "ca.pem", "tls_key", "ca.pem"),
        ("cert.pem", "other.pem", "tls_key", "other.pem"),
    ];
    for (cert, key, setting, file) in cases {
        let found = refusal(&path(cert), &path(key)).await;
        let wanted = format!("{setting}: {}: ", files.path(file));
        assert!(found.starts_with(&wanted) && found.len() > wanted.len(), "{cert} {key}: {found}");
    }
}

#[tokio::test]
async fn handshakes_that_stall_take_the_places_of_their_port_only_and_not_for_long() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.pair(), "");
    let server = files.server(&[("max_handshakes", "2"), ("handshake_ms", "2000")]).await;
    // Whoever has shaken hands holds no place, even if it says nothing more.
    let quiet = connect(server.grpc, &authority, None, &["h2"]).await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(server.grpc).await.unwrap();
        socket.write_all(&[22, 3, 1, 0, 47]).await.unwrap();
        stalled.push(socket);
    }
    server.counted("onnxd_handshakes{port=\"grpc\"}", |count| count == 2).await;
    connect(server.http, &authority, None, &["http/1.1"]).await.unwrap();
    // Whoever has stalled the longest gives way to a peer that goes on, once it had its time.
    let served = async { while connect(server.grpc, &authority, None, &["h2"]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    let refused = |reason: &str| {
        format!("onnxd_refused_connections_total{{port=\"grpc\",reason=\"{reason}\"}}")
    };
    server.counted(&refused("handshakes"), |count| count >= 1).await;

    for mut socket in stalled {
        let closed = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await;
        drop(closed.unwrap());
    }
    server.counted("onnxd_handshakes{port=\"grpc\"}", |count| count == 0).await;
    let mut client = client(server.grpc, &authority, None).await;
    client.model_infer(request("echo", &[1.0])).await.unwrap();
    server.counted(&refused("silent"), |count| count == 2).await;
    server.counted(&refused("tls"), |count| count == 0).await;
    drop((client, quiet));
    server.counted("onnxd_connections{port=\"grpc\"}", |count| count == 0).await;
    server.finish().await;
}
