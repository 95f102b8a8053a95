//! `onnxd health`: asks a server's admin port whether it is well, for images without a shell.
//!
//! Takes the settings of `serve` from the same places, so that it finds the port of the server that
//! was started with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use http_body::Body;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{Layers, Outcome, WRONG_SETTINGS, with_settings};

/// Longest answer that is read: the states of some thousand models.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The subcommand.
pub(super) fn command() -> Command {
    let command = Command::new("health")
        .about("Ask a running server whether it is ready; exit code 0 if it is, 1 if not")
        .after_help(
            "Reads flags, environment and settings file as serve does; of the settings only \
             admin_addr matters. An address of all interfaces is asked on loopback.",
        )
        .arg(
            Arg::new("live")
                .long("live")
                .action(ArgAction::SetTrue)
                .help("Ask only whether a restart is needed, not whether models are ready"),
        )
        .arg(
            Arg::new("within_ms")
                .long("within-ms")
                .value_name("MS")
                .default_value("3000")
                .value_parser(clap::value_parser!(u64).range(1..))
                .help("Longest wait for the answer"),
        );
    let shown = ["config", "admin_addr", "live", "within_ms"];
    with_settings(command).mut_args(|argument| {
        let is_shown = shown.contains(&argument.get_id().as_str());
        argument.hide(!is_shown)
    })
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let config = match Layers::read(matches).and_then(|layers| layers.resolve()) {
        Ok(config) => config,
        Err(errors) => return Outcome::new(WRONG_SETTINGS, errors.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::new(1, error.to_string()),
    };
    let path = if matches.get_flag("live") { "/livez" } else { "/readyz" };
    let patience = matches.get_one("within_ms").copied().unwrap_or(u64::MAX);
    let address = reachable(config.admin_addr);
    let asked = async {
        let asking = tokio::time::timeout(Duration::from_millis(patience), ask(address, path));
        asking.await.unwrap_or_else(|_| Err(format!("no answer within {patience} ms")))
    };
    match runtime.block_on(asked) {
        Ok((StatusCode::OK, _)) => Outcome::ok("ok"),
        Ok((status, body)) => Outcome::new(1, told(status, &body)),
        Err(reason) => Outcome::new(1, format!("{address}: {reason}")),
    }
}

/// Where a server that listens on `address` is reached from its own host.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Status and body of `path` on the admin port.
async fn ask(address: SocketAddr, path: &str) -> Result<(StatusCode, Vec<u8>), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let connection = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connection.map_err(|error| error.to_string())?;
    let request = Request::get(path)
        .header(hyper::header::HOST, address.to_string())
        .body(String::new())
        .map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        Ok((answer.status(), read(answer.into_body()).await?))
    };
    // The connection works while it is polled, and ends with the answer.
    tokio::pin!(answered);
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|task| Pin::new(&mut body).poll_frame(task)).await
    {
        let part = frame.map_err(|error| error.to_string())?;
        bytes.extend_from_slice(part.data_ref().unwrap_or(&Bytes::new()));
        if bytes.len() > MAX_ANSWER_BYTES {
            return Err("the answer is too long to be a server's of ours".to_owned());
        }
    }
    Ok(bytes)
}

/// What a server that is not well said: the models that are not ready, where it names them.
fn told(status: StatusCode, body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(models) = answer.get("models").and_then(Value::as_array) else {
        return format!("{status}: {}", String::from_utf8_lossy(body).trim());
    };
    let text = |model: &Value, key: &str| {
        let value = model.get(key).unwrap_or(&Value::Null);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let others = models.iter().filter(|model| text(model, "state") != "READY").map(|model| {
        let [name, version, state, reason] =
            ["name", "version", "state", "reason"].map(|key| text(model, key));
        format!("{name}/{version} {state} {reason}").trim_end().to_owned()
    });
    let others: Vec<String> = others.collect();
    if others.is_empty() {
        "not ready".to_owned()
    } else {
        format!("not ready: {}", others.join("; "))
    }
}
