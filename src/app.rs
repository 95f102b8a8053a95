//! Puts the server together, runs it and takes it apart again.
//!
//! The listeners are bound before, the moment to stop comes as a future, so a whole server runs
//! inside a test. Ports answer from the first moment; readiness says when the models do.
//! Nothing imports this room but `cli` and `main`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access::{Access, AccessError};
use crate::admin::Operated;
use crate::config::{Config, ControlMode, OtherNames};
use crate::connection::Connections;
use crate::connection::calls::OpenCalls;
use crate::connection::tls::{Identity, TlsError};
use crate::grpc::GrpcServer;
use crate::grpc::calls::methods;
use crate::http::HttpServer;
use crate::job::ByteBudget;
use crate::job::courier::Courier;
use crate::reload::Reload;
use crate::repository::control::{self, ModelControl};
use crate::repository::watchdog;
use crate::repository::{Repository, RepositoryError, State};
use crate::telemetry::metrics::calls::CallMetrics;
use crate::telemetry::metrics::{Format, Metrics};
use crate::telemetry::traces::Traces;
use crate::worker::ModelLoader;
use crate::{admin, http};

pub mod banner;
mod drain;
mod local;
pub mod signal;

use drain::drain;
pub use local::LocalListener;

/// Bound sockets of the three ports.
#[derive(Debug)]
pub struct Listeners {
    /// Data port.
    pub grpc: TcpListener,
    /// The data port's Unix socket.
    pub local: Option<LocalListener>,
    /// REST port.
    pub http: TcpListener,
    /// Operator's port.
    pub admin: TcpListener,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error("cannot listen on {address} ({port} port): {source}")]
    Bind {
        /// What the port is for.
        port: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A Unix socket cannot be had.
    #[error("cannot listen on {path}: {source}")]
    BindLocal {
        /// Its path.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The repository cannot be read or is empty.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Models failed and the server is strict.
    #[error("strict: {0}")]
    Models(String),
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The access file cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A thread or service cannot be started.
    #[error("{0}")]
    Internal(String),
}

/// How stopping went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Requests that were accepted and could not be answered within the grace period.
    pub abandoned: usize,
    /// Whether everything ended by itself.
    pub complete: bool,
}

impl Listeners {
    /// Binds the three ports of `config`.
    ///
    /// # Errors
    /// [`StartError::Bind`] for the first that cannot be had.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = async |port: &'static str, address: SocketAddr| {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|source| StartError::Bind { port, address, source })
        };
        Ok(Self {
            grpc: bind("gRPC", config.grpc_addr).await?,
            local: config.grpc_socket.as_deref().map(LocalListener::bind).transpose()?,
            http: bind("REST", config.http_addr).await?,
            admin: bind("admin", config.admin_addr).await?,
        })
    }
}

/// A server that is put together and not yet running.
pub struct App {
    config: Config,
    models: PathBuf,
    listeners: Listeners,
    repository: Arc<Repository>,
    metrics: Metrics,
    budget: ByteBudget,
    traces: Traces,
    runtime: String,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("models", &self.models).finish_non_exhaustive()
    }
}

impl App {
    /// Puts a server for the models under `models` together. `runtime` names what runs them, for
    /// people. Must be called on the runtime that will run it.
    pub fn build(
        config: Config,
        models: PathBuf,
        loader: Arc<dyn ModelLoader>,
        listeners: Listeners,
        runtime: &str,
    ) -> Self {
        let budget = ByteBudget::new(config.request_memory_bytes);
        // The path after the name is for people; a label needs the version only.
        let version = runtime.split(" (").next().unwrap_or(runtime);
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), version, &budget);
        if config.metrics_compat.contains(&OtherNames::Triton) {
            metrics.with_triton_names();
        }
        let courier = Courier::start();
        let repository =
            Repository::new(loader, config.model.clone(), budget.clone(), metrics.clone(), courier);
        repository.set_manifests(config.manifests);
        let traces = Traces::start(config.traces.as_ref());
        repository.record_in(traces.clone());
        let (repository, runtime) = (Arc::new(repository), runtime.to_owned());
        Self { config, models, listeners, repository, metrics, budget, traces, runtime }
    }

    /// The models.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Address of the data port.
    ///
    /// # Errors
    /// The system's, if the socket is gone.
    pub fn grpc_addr(&self) -> io::Result<SocketAddr> {
        self.listeners.grpc.local_addr()
    }

    /// Address of the REST port.
    ///
    /// # Errors
    /// The system's, if the socket is gone.
    pub fn http_addr(&self) -> io::Result<SocketAddr> {
        self.listeners.http.local_addr()
    }

    /// Address of the operator's port.
    ///
    /// # Errors
    /// The system's, if the socket is gone.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.listeners.admin.local_addr()
    }

    /// Who this server is by TLS, and what looks for new files; `None` for clear text.
    fn identity(&self) -> Result<Option<(Identity, Reload)>, StartError> {
        let Some(settings) = self.config.tls.clone() else { return Ok(None) };
        let metrics = self.metrics.tls();
        let identity = Identity::load(settings, &metrics)?;
        let watch = identity.watch(metrics);
        let watch = watch.map_err(|error| StartError::Internal(error.to_string()))?;
        Ok(Some((identity, watch)))
    }

    /// Who may do what, and what looks for a new file.
    fn access(&self) -> Result<(Access, Option<Reload>), StartError> {
        let Some(settings) = &self.config.access else { return Ok((Access::open(), None)) };
        let access = Access::load(settings, self.metrics.access())?;
        let reload = access.watch();
        let reload = reload.map_err(|error| StartError::Internal(error.to_string()))?;
        Ok((access, reload))
    }

    /// Writes metrics as they are at that moment.
    fn encoder(
        &self,
    ) -> impl Fn(Format) -> Result<String, fmt::Error> + Clone + Send + Sync + use<> {
        let (metrics, budget) = (self.metrics.clone(), self.budget.clone());
        let repository = Arc::clone(&self.repository);
        move |format| {
            metrics.set_states(repository.states());
            metrics.encode(&budget, format)
        }
    }

    /// Loads the models and serves until `shutdown`, then drains. `announce` is called once, with
    /// the banner, when every model was tried.
    ///
    /// # Errors
    /// [`StartError`] if there is nothing to serve, or a model failed and the server is strict.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()>,
        announce: impl FnOnce(&str),
    ) -> Result<DrainReport, StartError> {
        let internal = |error: &dyn fmt::Display| StartError::Internal(error.to_string());
        let banner = banner::Addresses {
            grpc: self.grpc_addr().map_err(|error| internal(&error))?,
            http: self.http_addr().map_err(|error| internal(&error))?,
            admin: self.admin_addr().map_err(|error| internal(&error))?,
        };
        let (tls, _certificates) = self.identity()?.unzip();
        let (access, _table) = self.access()?;
        let [grpc, http] = self.metrics.connections(["grpc", "http"]);
        let open_calls = OpenCalls::default();
        let connections = |metrics| {
            let (calls, memory) = (open_calls.clone(), self.budget.clone());
            Connections::new(self.config.connections, calls, memory, metrics)
        };
        let grpc = connections(grpc).secured(tls.clone(), true);
        let http = connections(http).secured(tls, false);
        let (repository, mode) = (Arc::clone(&self.repository), self.config.model_control.clone());
        // Where control is not switched on, the handle is kept all the same: the thread that polls
        // ends with it.
        let (control, loading) = control::start(repository, self.models.clone(), mode)
            .map_err(|error| internal(&error))?;
        let longest_run = self.config.requests.max_timeout.saturating_mul(2);
        // Ends with the repository.
        tokio::spawn(watchdog::watch(Arc::downgrade(&self.repository), longest_run));
        let stop = watch::Sender::new(false);
        let mut ports = Ports::new(open_calls);
        let shared = Shared {
            config: &self.config,
            repository: &self.repository,
            control: &control,
            memory: &self.budget,
            access: &access,
            traces: &self.traces,
            stop: &stop,
            runtime: &self.runtime,
        };
        let calls = self.metrics.calls(methods(access.is_guarded()));
        let encode = self.encoder();
        ports.start(self.listeners, shared, ([grpc, http], calls), encode);
        tokio::pin!(shutdown);
        let loaded = tokio::select! {
            biased;
            () = &mut shutdown => None,
            loaded = loading => Some(loaded.map_err(|error| internal(&error))?),
        };
        if let Some(loaded) = loaded {
            loaded?;
            if self.config.strict {
                refuse_failed(&self.repository)?;
            }
            announce(&banner::text(&self.repository, &self.runtime, &banner));
            shutdown.await;
        }
        Ok(drain(&self.repository, ports, &stop, &self.config, (&self.budget, &self.traces)).await)
    }
}

/// What the ports work on.
struct Shared<'a> {
    config: &'a Config,
    repository: &'a Arc<Repository>,
    control: &'a ModelControl,
    memory: &'a ByteBudget,
    access: &'a Access,
    traces: &'a Traces,
    stop: &'a watch::Sender<bool>,
    runtime: &'a str,
}

/// Tasks of the three ports.
struct Ports {
    /// gRPC and REST: end when the server drains.
    data: JoinSet<()>,
    /// The operator's port: ends last, so that the drain can be watched.
    operator: JoinSet<()>,
    stop_operator: watch::Sender<bool>,
    open_calls: OpenCalls,
}

impl Ports {
    fn new(open_calls: OpenCalls) -> Self {
        let (data, operator) = (JoinSet::new(), JoinSet::new());
        Self { data, operator, stop_operator: watch::Sender::new(false), open_calls }
    }

    /// Serves, each port with its own connections, and the operator's with what `encode` writes.
    fn start(
        &mut self,
        listeners: Listeners,
        Shared { config, repository, control, memory, access, traces, stop, runtime }: Shared<'_>,
        ([connections, rest_connections], calls): ([Connections; 2], CallMetrics),
        encode: impl Fn(Format) -> Result<String, fmt::Error> + Clone + Send + Sync + 'static,
    ) {
        let grpc = GrpcServer {
            repository: Arc::clone(repository),
            requests: config.requests,
            connections,
            compression: config.compression.clone(),
            cross_origin: config.cross_origin.clone(),
            reflection: config.reflection,
            memory: memory.clone(),
            access: access.clone(),
            calls,
            traces: traces.clone(),
            stopping: stop.subscribe(),
        };
        let is_explicit = matches!(config.model_control, ControlMode::Explicit { .. });
        let operator = grpc.operator(is_explicit.then(|| control.clone()));
        let by_rest = http::operator(Arc::clone(&operator), access);
        let operator = grpc.operator_routes(operator).merge(by_rest);
        let rest = HttpServer {
            service: grpc.callers(),
            cross_origin: config.cross_origin.clone(),
            connections: rest_connections,
            memory: memory.clone(),
            access: access.clone(),
        };
        let stopped = raised(stop.subscribe());
        self.data.spawn(async move {
            let (local, _file) = listeners.local.map(LocalListener::into_parts).unzip();
            grpc.serve(listeners.grpc, local, stopped).await;
        });
        let stopped = raised(stop.subscribe());
        self.data.spawn(async move {
            if let Err(error) = rest.serve(listeners.http, stopped).await {
                tracing::error!(%error, "the REST port could not be served");
            }
        });
        let stopped = raised(self.stop_operator.subscribe());
        let operated = Operated::new(repository, access, memory, runtime);
        self.operator.spawn(admin::serve(listeners.admin, operated, encode, operator, stopped));
    }
}

async fn raised(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone: the server has ended.
    drop(flag.wait_for(|raised| *raised).await);
}

fn refuse_failed(repository: &Repository) -> Result<(), StartError> {
    let reason = |entry: &crate::repository::IndexEntry| match &entry.state {
        State::Failed(reason) => Some(format!("{}: {reason}", entry.key)),
        _ => None,
    };
    let failed: Vec<String> = repository.index().iter().filter_map(reason).collect();
    if failed.is_empty() { Ok(()) } else { Err(StartError::Models(failed.join("; "))) }
}
