//! What the server says when it is up: at most ten lines.

use std::net::SocketAddr;

use crate::config::model::Batching;
use crate::model::TensorSpec;
use crate::repository::{IndexEntry, Repository, ServedModel, State};

/// Addresses of the ports, as bound.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Data port.
    pub grpc: SocketAddr,
    /// REST port.
    pub http: SocketAddr,
    /// Operator's port.
    pub admin: SocketAddr,
}

/// Models that are shown, so that the banner stays within ten lines.
const SHOWN_MODELS: usize = 5;

/// The banner.
pub fn text(repository: &Repository, runtime: &str, addresses: &Addresses) -> String {
    let index = repository.index();
    let mut lines = vec![format!("onnxd {} on {runtime}", env!("CARGO_PKG_VERSION"))];
    lines.extend(index.iter().take(SHOWN_MODELS).map(model_line));
    if index.len() > SHOWN_MODELS {
        lines.push(format!("  and {} more models", index.len() - SHOWN_MODELS));
    }
    lines.push(format!("  gRPC   {}", addresses.grpc));
    lines.push(format!("  REST   {}", addresses.http));
    lines.push(format!(
        "  admin  {}  (/ for a browser; /metrics /livez /readyz /status /costs)",
        addresses.admin
    ));
    lines.join("\n")
}

fn model_line(entry: &IndexEntry) -> String {
    let key = entry.key.to_string();
    match &entry.state {
        State::Ready(served) => format!("  {key:<16} {}", signature(served)),
        State::Loading => format!("  {key:<16} loading"),
        State::Failed(reason) => format!("  {key:<16} FAILED: {}", crate::model::quoted(reason)),
        State::Unloading | State::Unloaded => format!("  {key:<16} not loaded"),
    }
}

fn signature(served: &ServedModel) -> String {
    let names = |specs: &[TensorSpec]| -> String {
        let all: Vec<String> = specs.iter().map(ToString::to_string).collect();
        all.join(", ")
    };
    let (inputs, outputs) = (names(&served.spec.inputs), names(&served.spec.outputs));
    let times = match served.instances() {
        1 => String::new(),
        many => format!(" x{many}"),
    };
    let rows = served.batcher.rows_per_run();
    let how = match served.config.batching {
        _ if !served.spec.has_rows() => "one request a run".to_owned(),
        Batching::Off => "batching off".to_owned(),
        Batching::Auto if rows == 1 => "batching does not pay".to_owned(),
        _ if served.spec.is_ragged() => format!("up to {rows} rows a run, padded to the longest"),
        Batching::Auto | Batching::Fixed => format!("up to {rows} rows a run"),
    };
    format!("{inputs} -> {outputs}; {}{times}; {how}", served.provider)
}
