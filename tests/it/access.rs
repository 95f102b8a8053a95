//! Who is served, on every port and by every method, where an access file says so.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onnxd::pb;
use onnxd::runtime::digest::hex;
use prost_reflect::DescriptorPool;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Request, Status};

use crate::certificates::{Authority, Files, client as secure_client};
use crate::harness::{Client, TestServer, request, values};

const PATIENCE: Duration = Duration::from_secs(30);

/// An access file that changes.
struct AccessFile(tempfile::TempDir);

fn token(name: &str) -> String {
    let digits = hex(&Sha256::digest(format!("{name}-secret")));
    format!("[[token]]\nname = '{name}'\nsha256 = '{digits}'\n")
}

fn grant(to: &str, models: &str, right: &str) -> String {
    format!("[[grant]]\nto = ['{to}']\nmodels = ['{models}']\nrights = ['{right}']\n")
}

impl AccessFile {
    /// `reader` may infer with `echo`, `operator` may control everything, `idle` nothing.
    fn new() -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.put(&Self::usual());
        file
    }

    fn usual() -> String {
        token("reader")
            + &token("operator")
            + &token("idle")
            + &grant("token:reader", "echo", "infer")
            + &grant("token:operator", "*", "control")
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("access.toml")
    }

    fn put(&self, text: &str) {
        let draft = self.0.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, self.path()).unwrap();
    }

    async fn server(&self, more: &[(&str, &str)]) -> TestServer {
        let path = self.path();
        let mut settings = vec![("access_file", path.to_str().unwrap()), ("access_reload_ms", "5")];
        settings.extend(more);
        TestServer::start(&settings).await
    }
}

/// A message with somebody's token.
fn from<T>(name: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !name.is_empty() {
        let value = format!("Bearer {name}-secret").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

async fn infer(client: &mut Client, name: &str, model: &str) -> Result<(), Status> {
    client.model_infer(from(name, request(model, &[1.0]))).await.map(drop)
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn rights_decide_over_grpc() {
    let file = AccessFile::new();
    let server = file.server(&[]).await;
    let mut client = server.client().await;
    for (name, model, wanted) in [
        ("", "echo", Code::Unauthenticated),
        ("nobody", "echo", Code::Unauthenticated),
        ("idle", "echo", Code::PermissionDenied),
        ("reader", "echo", Code::Ok),
        ("reader", "gate", Code::PermissionDenied),
        // Whether a model is there is told to nobody who has no right to it.
        ("reader", "absent", Code::PermissionDenied),
        ("operator", "echo", Code::PermissionDenied),
    ] {
        let answer = infer(&mut client, name, model).await;
        assert_eq!(code(answer), wanted, "{name} {model}");
    }
    let refused = infer(&mut client, "reader", "absent").await.unwrap_err();
    let other = infer(&mut client, "reader", "gate").await.unwrap_err();
    assert_eq!(refused.message().replace("absent", "gate"), other.message());

    let describe =
        |name: &str| pb::ModelMetadataRequest { name: name.into(), ..Default::default() };
    for (name, model, wanted) in [
        ("", "echo", Code::Unauthenticated),
        ("reader", "echo", Code::Ok),
        ("reader", "gate", Code::PermissionDenied),
        ("operator", "gate", Code::Ok),
        ("operator", "absent", Code::NotFound),
    ] {
        let answer = client.model_metadata(from(name, describe(model))).await;
        assert_eq!(code(answer), wanted, "{name} {model}");
    }
    // Listings show what the caller may know of.
    for (name, wanted) in [("reader", Some(1)), ("idle", Some(0)), ("operator", None)] {
        let index = client.repository_index(from(name, pb::RepositoryIndexRequest::default()));
        let index = index.await.unwrap().into_inner().models;
        let all = pb::ModelStatisticsRequest::default();
        let statistics = client.model_statistics(from(name, all)).await.unwrap().into_inner();
        let wanted = wanted.unwrap_or_else(|| index.len().max(3));
        assert_eq!(index.len(), wanted, "{name}");
        assert!(statistics.model_stats.len() <= wanted);
        assert!(wanted > 1 || index.iter().all(|entry| entry.name == "echo"));
    }
    assert!(client.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    server.counted("onnxd_denied_total{reason=\"no_credentials\"}", |count| count == 2).await;
    server.counted("onnxd_denied_total{reason=\"bad_credentials\"}", |count| count == 1).await;
    server.counted("onnxd_denied_total{reason=\"not_allowed\"}", |count| count == 7).await;
    server.finish().await;
}

/// Every method of the descriptor with an empty message, by its path alone.
async fn codes_by_path(server: &TestServer, name: &str, paths: &[String]) -> Vec<(String, Code)> {
    let mut codes = Vec::new();
    for path in paths {
        let mut client = tonic::client::Grpc::new(server.channel().await);
        client.ready().await.unwrap();
        let request = from(name, futures_util::stream::iter([pb::ServerLiveRequest {}]));
        let codec: tonic_prost::ProstCodec<_, pb::ServerLiveResponse> =
            tonic_prost::ProstCodec::default();
        let answer = client.streaming(request, path.parse().unwrap(), codec).await;
        let ended = match answer {
            Ok(answer) => answer.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        codes.push((path.clone(), code(ended)));
    }
    codes
}

#[tokio::test]
async fn no_method_is_served_without_credentials_but_probes() {
    let file = AccessFile::new();
    let server = file.server(&[]).await;
    let mut paths = Vec::new();
    for set in [pb::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
        for service in DescriptorPool::decode(set).unwrap().services() {
            paths.extend(
                service.methods().map(|it| format!("/{}/{}", service.full_name(), it.name())),
            );
        }
    }
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    paths.extend([reflection.to_owned(), reflection.replace("v1", "v1alpha")]);
    let open = ["Check", "Watch", "ServerLive", "ServerReady"];
    for (path, code) in codes_by_path(&server, "", &paths).await {
        let is_open = open.iter().any(|name| path.ends_with(&format!("/{name}")));
        assert_eq!(code == Code::Unauthenticated, !is_open, "{path}: {code:?}");
    }
    // With credentials and no right: nothing is done.
    for (path, code) in codes_by_path(&server, "idle", &paths).await {
        let name = path.rsplit('/').next().unwrap();
        let needs_a_model = ["ModelReady", "ModelMetadata", "ModelInfer", "ModelConfig"]
            .contains(&name)
            || name.starts_with("RepositoryModel");
        assert_eq!(code == Code::PermissionDenied, needs_a_model, "{path}: {code:?}");
    }
    // Other writings of a path are no path, with and without credentials.
    let infer = "/inference.GRPCInferenceService/ModelInfer";
    let others = [
        format!("/{infer}"),
        format!("{infer}/"),
        infer.replace('.', "%2e"),
        infer.to_lowercase(),
        "/inference.GRPCInferenceService/".to_owned(),
        "/inference.GRPCInferenceService/New".to_owned(),
        "/other.Service/ModelInfer".to_owned(),
    ];
    for name in ["", "reader"] {
        for (path, code) in codes_by_path(&server, name, &others).await {
            assert_eq!(code, Code::Unimplemented, "{name} {path}");
        }
    }
    assert!(server.loader.control("echo").runs_so_far().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn each_message_of_a_stream_goes_by_the_table_of_its_moment() {
    let file = AccessFile::new();
    let server = file.server(&[]).await;
    let mut client = server.client().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    sender.send(request("echo", &[1.0])).await.unwrap();
    let answers = client.model_stream_infer(from("reader", messages)).await.unwrap();
    let mut answers = answers.into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(values(&first.infer_response.unwrap()), [1.0]);
    sender.send(request("gate", &[1.0])).await.unwrap();
    let second = answers.message().await.unwrap().unwrap();
    assert_eq!(second.error_message, r#""token:reader" has no right to infer model "gate""#);

    file.put(&AccessFile::usual().replace("'echo'", "'gate'"));
    server.counted("onnxd_access_reloads_total{result=\"ok\"}", |count| count == 1).await;
    sender.send(request("echo", &[1.0])).await.unwrap();
    let third = answers.message().await.unwrap().unwrap();
    assert_eq!(third.error_message, r#""token:reader" has no right to infer model "echo""#);
    // A file that cannot be used changes nothing.
    file.put("[[grant]]");
    server.counted("onnxd_access_reloads_total{result=\"failed\"}", |count| count == 1).await;
    assert_eq!(code(infer(&mut client, "idle", "echo").await), Code::PermissionDenied);
    // The token is gone.
    file.put(&token("operator"));
    server.counted("onnxd_access_reloads_total{result=\"ok\"}", |count| count == 2).await;
    sender.send(request("gate", &[1.0])).await.unwrap();
    let last = answers.message().await.unwrap().unwrap();
    assert_eq!(last.error_message, "the credentials are not valid");
    drop((sender, answers, client));
    server.finish().await;
}

/// Status and body of a question over HTTP/1.1.
async fn ask(address: std::net::SocketAddr, line: &str, name: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let token = match name {
        "" => String::new(),
        name => format!("authorization: Bearer {name}-secret\r\n"),
    };
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{token}content-length: \
         {length}\r\n\r\n{body}"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut heard = String::new();
    let read = socket.read_to_string(&mut heard);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    (heard[9..12].parse().unwrap(), heard)
}

#[tokio::test]
async fn rights_decide_over_rest_and_on_the_admin_port() {
    let file = AccessFile::new();
    let explicit = [("model_control", "explicit"), ("load_models", "*")];
    let server = file.server(&explicit).await;
    let tensor = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
    for (line, name, body, wanted) in [
        ("POST /v2/models/echo/infer", "", tensor, 401),
        ("POST /v2/models/echo/infer", "nobody", tensor, 401),
        ("POST /v2/models/echo/infer", "idle", tensor, 403),
        ("POST /v2/models/gate/infer", "reader", tensor, 403),
        ("POST /v2/models/absent/infer", "reader", tensor, 403),
        ("POST /v2/models/echo/infer", "reader", tensor, 200),
        ("GET /v2", "", "", 401),
        ("GET /v2", "idle", "", 200),
        ("GET /v2/models/echo", "", "", 401),
        ("GET /v2/models/echo", "reader", "", 200),
        ("GET /v2/models/echo/ready", "idle", "", 403),
        ("GET /v2/models/gate/config", "reader", "", 403),
        ("GET /v2/models/gate/stats", "reader", "", 403),
        ("POST /v2/repository/index", "", "", 401),
        ("GET /v2/systemsharedmemory/status", "", "", 401),
        ("POST /v2/repository/models/echo/load", "", "", 401),
        ("GET /v2/health/live", "", "", 200),
        ("GET /v2/health/ready", "", "", 200),
    ] {
        let (status, heard) = ask(server.http, line, name, body).await;
        assert_eq!(status, wanted, "{line} {name}: {heard}");
        assert_eq!(heard.contains("www-authenticate: Bearer"), wanted == 401);
    }
    for (line, name, wanted) in [
        ("GET /metrics", "", 200),
        ("GET /livez", "", 200),
        ("GET /readyz", "", 200),
        ("GET /version", "", 200),
        ("GET /costs", "", 401),
        ("GET /costs", "nobody", 401),
        ("GET /costs", "reader", 200),
        ("GET /status", "", 401),
        ("GET /status", "nobody", 401),
        ("GET /status", "reader", 200),
        ("POST /v2/repository/models/gate/unload", "", 401),
        ("POST /v2/repository/models/gate/unload", "reader", 403),
        ("POST /v2/repository/models/gate/unload", "operator", 200),
        ("POST /v2/repository/models/gate/load", "operator", 200),
    ] {
        let (status, heard) = ask(server.admin, line, name, "").await;
        assert_eq!(status, wanted, "{line} {name}: {heard}");
        let tells_others =
            heard.contains("\"gate\"") && (line.contains("costs") || line.contains("status"));
        assert!(!tells_others, "{heard}");
    }
    let mut operator = server.operator().await;
    let load =
        || pb::RepositoryModelLoadRequest { model_name: "echo".to_owned(), ..Default::default() };
    for (name, wanted) in
        [("", Code::Unauthenticated), ("reader", Code::PermissionDenied), ("operator", Code::Ok)]
    {
        assert_eq!(code(operator.repository_model_load(from(name, load())).await), wanted);
    }
    drop(operator);
    server.finish().await;
}

#[tokio::test]
async fn a_certificate_is_a_name() {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.pair(), &authority.pem);
    let file = AccessFile::new();
    file.put(&(AccessFile::usual() + &grant("cert:spiffe://prod/*", "echo", "infer")));
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| files.path(name));
    let server = file
        .server(&[
            ("tls_cert", &cert),
            ("tls_key", &key),
            ("tls_client_ca", &ca),
            ("tls_client_auth", "optional"),
        ])
        .await;
    let named = |name: &str| {
        let name = rcgen::SanType::URI(name.try_into().unwrap());
        authority.issue(|params| params.subject_alt_names.push(name))
    };
    let (prod, test) = (named("spiffe://prod/reader"), named("spiffe://test/reader"));
    for (own, name, wanted) in [
        (Some(&prod), "", Code::Ok),
        (Some(&test), "", Code::PermissionDenied),
        (None, "", Code::Unauthenticated),
        (None, "reader", Code::Ok),
        // A token that is sent must be right, whatever the certificate.
        (Some(&prod), "nobody", Code::Unauthenticated),
        (Some(&prod), "idle", Code::PermissionDenied),
    ] {
        let mut client = secure_client(server.grpc, &authority, own).await;
        assert_eq!(code(infer(&mut client, name, "echo").await), wanted, "{name:?}");
    }
    server.finish().await;
}

/// Lines that the server logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_reach_neither_logs_nor_metrics_nor_errors() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // With a single subscriber the library asks only that of the thread that meets a line first, which
    // may be another test's; with two it asks both.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // This test has one thread, so that this is where everything is logged.
    let _guard = tracing::subscriber::set_default(subscriber);
    let file = AccessFile::new();
    let server = file.server(&[]).await;
    let mut client = server.client().await;
    let mut told = Vec::new();
    for (name, model) in [("reader", "echo"), ("nobody", "echo"), ("idle", "echo")] {
        if let Err(status) = infer(&mut client, name, model).await {
            told.push(format!("{status:?}"));
        }
    }
    ask(server.http, "GET /v2", "reader", "").await;
    told.push(ask(server.http, "GET /v2", "nobody", "").await.1);
    told.push(crate::harness::metrics(server.admin).await);
    drop(client);
    server.finish().await;
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("drained"), "the log was not listened to: {logged}");
    // The client library of this test runs in the same process and traces frames: ours only.
    let ours = logged.lines().filter(|line| line.contains(" onnxd"));
    told.extend(ours.map(str::to_owned));
    for text in told {
        assert!(!text.contains("-secret"), "{text}");
    }
}
