//! Resolved settings: flag, then environment, then file, then default.
//!
//! [`settings`] is the table of all of them. Text becomes values here, once, and all mistakes are
//! reported together. Nothing outside this room and `cli` reads the environment; every other room
//! gets values.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub mod access;
pub mod limits;
pub mod memory;
pub mod model;
pub mod settings;
pub mod tls;
pub mod traces;
pub mod triton;
mod values;

pub use access::AccessSettings;
pub use limits::{Compression, ConnectionLimits, CrossOrigin, RequestLimits, StreamOrder};
pub use model::ModelConfig;
pub use tls::{ClientAuth, TlsSettings};
pub use traces::{OtherNames, TraceSettings};

/// Settings of a server, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// gRPC data port.
    pub grpc_addr: SocketAddr,
    /// REST port.
    pub http_addr: SocketAddr,
    /// Metrics and probes.
    pub admin_addr: SocketAddr,
    /// What is loaded, and when.
    pub model_control: ControlMode,
    /// Whether models need a list of sums.
    pub manifests: Manifests,
    /// Refuse to start if any model cannot be loaded.
    pub strict: bool,
    /// Unix socket that the data port is served on too.
    pub grpc_socket: Option<PathBuf>,
    /// Encodings of messages.
    pub compression: Vec<Compression>,
    /// Pages that may call from a browser; `None` for none.
    pub cross_origin: Option<CrossOrigin>,
    /// Serve gRPC reflection.
    pub reflection: bool,
    /// Path of the ONNX Runtime library; `None` searches.
    pub runtime_library: Option<PathBuf>,
    /// Let ONNX Runtime send usage data.
    pub telemetry: bool,
    /// Names that metrics have beside their own.
    pub metrics_compat: Vec<OtherNames>,
    /// Where spans of traces go; `None` for nowhere.
    pub traces: Option<TraceSettings>,
    /// Log filter.
    pub log: String,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Memory that all requests may hold together, in bytes.
    pub request_memory_bytes: usize,
    /// Limits on requests.
    pub requests: RequestLimits,
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// TLS of the data port and the REST port; `None` for clear text.
    pub tls: Option<TlsSettings>,
    /// Who may do what; `None` for everybody everything.
    pub access: Option<AccessSettings>,
    /// Between not being ready and not accepting.
    pub drain_pause: Duration,
    /// Longest time for answering accepted requests when stopping.
    pub drain_grace: Duration,
    /// Which models are tried in a process of their own first.
    pub try_models: TryModels,
    /// Longest time of such a try.
    pub try_timeout: Duration,
    /// Defaults of each model.
    pub model: ModelConfig,
}

/// What is loaded, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlMode {
    /// Every model at start, and nothing later.
    None,
    /// What the operator names, at start and later over the admin port.
    Explicit {
        /// Models to load at start; `*` is all of them.
        load: Vec<String>,
    },
    /// What is on disk, looked at again and again.
    Poll {
        /// Time between two looks.
        every: Duration,
    },
}

/// Which models are tried in a process of their own before they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryModels {
    /// None.
    Off,
    /// Those that are loaded while the server serves.
    Loaded,
    /// Those at start, too.
    Always,
}

impl TryModels {
    const NAMES: [(&'static str, Self); 3] =
        [("off", Self::Off), ("loaded", Self::Loaded), ("always", Self::Always)];
}

/// Whether a model needs a list with the sums of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manifests {
    /// Its files are held against the list if there is one.
    #[default]
    Optional,
    /// A model without one is not served.
    Required,
}

impl Manifests {
    const NAMES: [(&'static str, Self); 2] =
        [("optional", Self::Optional), ("required", Self::Required)];
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Command line.
    Flag,
    /// Environment.
    Environment,
    /// `onnxd.toml`.
    File,
    /// The table.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigErrors(Vec<(String, String)>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, problem)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{key}: {problem}")?;
        }
        Ok(())
    }
}

impl ConfigErrors {
    /// A single mistake.
    pub fn one(key: &str, problem: String) -> Self {
        Self(vec![(key.to_owned(), problem)])
    }

    fn push(&mut self, key: &str, problem: String) {
        self.0.push((key.to_owned(), problem));
    }

    fn check<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.push(key, problem)).ok()
    }

    fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

/// The text of a setting and where it came from.
pub type Raw = (String, Origin);

/// Reads `onnxd.toml` into texts by key.
///
/// # Errors
/// Text that is not TOML, unknown keys, values that are tables.
pub fn read_file(text: &str) -> Result<Vec<(String, String)>, ConfigErrors> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        ConfigErrors::one("onnxd.toml", error.message().to_owned())
    })?;
    let mut errors = ConfigErrors::default();
    let mut values = Vec::with_capacity(table.len());
    for (key, value) in &table {
        let mut known = settings::SERVER.iter().chain(settings::MODEL);
        if !known.any(|setting| setting.key == key) {
            errors.push(key, "unknown setting".to_owned());
        } else if let Some(text) = errors.check(key, scalar(value)) {
            values.push((key.clone(), text));
        }
    }
    errors.into_result(values)
}

/// A TOML value in the form that a flag would have.
fn scalar(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        toml::Value::Array(values) => {
            let parts: Result<Vec<String>, String> = values.iter().map(scalar).collect();
            parts.map(|parts| parts.join(","))
        }
        toml::Value::Table(_) | toml::Value::Datetime(_) => {
            Err("expected a number, a text, true, false or a list".to_owned())
        }
    }
}

/// Largest share of the memory limit that requests hold by default: one part in this many.
const REQUEST_MEMORY_SHARE: usize = 4;
/// Memory for requests where the system does not tell its limit.
const REQUEST_MEMORY_FALLBACK: usize = 1 << 30;

impl Config {
    /// Turns texts into values. `raw` gives the text of a key from flag, environment or file.
    ///
    /// # Errors
    /// All mistakes, each with its key and origin.
    pub fn resolve(raw: impl Fn(&str) -> Option<Raw>) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let text = |key: &str| {
            raw(key).unwrap_or_else(|| {
                let mut all = settings::SERVER.iter().chain(settings::MODEL);
                let default = all.find(|setting| setting.key == key).map_or("", |s| s.default);
                (default.to_owned(), Origin::Default)
            })
        };
        let mut model = ModelConfig::blank();
        for setting in settings::MODEL {
            let (value, origin) = text(setting.key);
            errors.check(&named(setting.key, origin), model.set(setting.key, &value));
        }
        let mut reader = Reader { text: &text, errors };
        let config = reader.read(model);
        let errors = reader.errors;
        match config {
            Some(config) => errors.into_result(config),
            None => Err(errors),
        }
    }
}

fn named(key: &str, origin: Origin) -> String {
    format!("{key} ({origin})")
}

struct Reader<'a> {
    text: &'a dyn Fn(&str) -> Raw,
    errors: ConfigErrors,
}

impl Reader<'_> {
    fn value<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (value, origin) = (self.text)(key);
        self.errors.check(&named(key, origin), parse(&value))
    }

    fn read(&mut self, model: ModelConfig) -> Option<Config> {
        let formats =
            [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
        let grpc_addr = self.value("grpc_addr", values::address);
        let http_addr = self.value("http_addr", values::address);
        let admin_addr = self.value("admin_addr", values::address);
        let model_control = self.model_control();
        let manifests = self.value("manifests", |text| values::choice(text, &Manifests::NAMES));
        let strict = self.value("strict", values::boolean);
        let reflection = self.value("reflection", values::boolean);
        let compression = self.compression();
        let cross_origin = self.value("cors_allow_origins", values::pages);
        let socket = (self.text)("grpc_socket").0;
        let telemetry = self.value("telemetry", values::boolean);
        let log_format = self.value("log_format", |text| values::choice(text, &formats));
        let metrics_compat = self.metrics_compat();
        let traces = self.traces();
        let memory = self.value("request_memory_bytes", |text| values::number(text, 0_usize));
        let requests = self.requests();
        let connections = self.connections();
        let tls = self.tls();
        let access = self.access();
        let is_explicit = matches!(model_control, Some(ControlMode::Explicit { .. }));
        self.in_clear_text(tls.is_some(), is_explicit, [grpc_addr, http_addr, admin_addr]);
        let drain_pause = self.value("drain_pause_ms", values::millis);
        let try_models = self.value("try_models", |text| values::choice(text, &TryModels::NAMES));
        let try_timeout = self.value("try_timeout_ms", values::millis);
        let drain_grace = self.value("drain_grace_ms", values::millis);
        let library = (self.text)("runtime_library").0;
        Some(Config {
            grpc_addr: grpc_addr?,
            http_addr: http_addr?,
            admin_addr: admin_addr?,
            model_control: model_control?,
            manifests: manifests?,
            strict: strict?,
            reflection: reflection?,
            grpc_socket: (!socket.is_empty()).then(|| socket.into()),
            compression: compression?,
            cross_origin: cross_origin?,
            runtime_library: (!library.is_empty()).then(|| library.into()),
            telemetry: telemetry?,
            metrics_compat: metrics_compat?,
            traces,
            log: (self.text)("log").0,
            log_format: log_format?,
            request_memory_bytes: match memory? {
                0 => memory::limit_bytes()
                    .map_or(REQUEST_MEMORY_FALLBACK, |limit| limit / REQUEST_MEMORY_SHARE),
                bytes => bytes,
            },
            requests: requests?,
            connections: connections?,
            tls,
            access,
            drain_pause: drain_pause?,
            drain_grace: drain_grace?,
            try_models: try_models?,
            try_timeout: try_timeout?,
            model,
        })
    }

    fn model_control(&mut self) -> Option<ControlMode> {
        let every = self.value("poll_ms", |text| {
            let every = values::millis(text)?;
            if every.is_zero() { Err("expected at least 1".to_owned()) } else { Ok(every) }
        })?;
        let (names, origin) = (self.text)("load_models");
        let load: Vec<String> = names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(Into::into)
            .collect();
        let is_named = !load.is_empty();
        let explicit = ControlMode::Explicit { load };
        let modes = [
            ("none", ControlMode::None),
            ("explicit", explicit),
            ("poll", ControlMode::Poll { every }),
        ];
        let mode = self.value("model_control", |text| values::choice(text, &modes))?;
        if is_named && !matches!(mode, ControlMode::Explicit { .. }) {
            let problem = "has a meaning only where model_control is explicit".to_owned();
            self.errors.push(&named("load_models", origin), problem);
        }
        Some(mode)
    }
}

#[cfg(test)]
mod tests;
