//! The table of all server settings: name, default, meaning.
//!
//! Flags, environment names, file keys, help text and `doctor`'s listing are all made from it, so
//! they cannot drift apart. Units are in the names.

/// One setting. `key` is its name in `onnxd.toml`; the flag is the same with dashes, the
/// environment name is `ONNXD_` and the key in capitals.
#[derive(Debug)]
pub struct Setting {
    /// Name in the file.
    pub key: &'static str,
    /// Default, in the form that a file or flag would give it; empty if there is none.
    pub default: &'static str,
    /// One or two sentences for `--help`.
    pub help: &'static str,
}

impl Setting {
    /// Name on the command line, without the leading dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Name in the environment.
    pub fn environment(&self) -> String {
        format!("ONNXD_{}", self.key.to_uppercase())
    }
}

const fn setting(key: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { key, default, help }
}

/// Settings of the server.
pub const SERVER: &[Setting] = &[
    // Ports as users of the protocol know them; loopback until somebody decides otherwise.
    setting(
        "grpc_addr",
        "127.0.0.1:8001",
        "Address of the gRPC data port. Port 0: the system chooses",
    ),
    setting(
        "grpc_socket",
        "",
        "Unix socket to serve the data port on too, for callers on this host",
    ),
    setting("http_addr", "127.0.0.1:8000", "Address of the REST port. Port 0: the system chooses"),
    setting(
        "admin_addr",
        "127.0.0.1:8002",
        "Address of metrics and probes. Port 0: the system chooses",
    ),
    setting(
        "model_control",
        "none",
        "none (every model at start), poll (what changes on disk too) or explicit (what load_models \
         names, and what is asked for over the admin port)",
    ),
    setting("load_models", "", "Models to load at start where model_control is explicit; * is all"),
    setting("poll_ms", "5000", "Time between two looks at the disk where model_control is poll"),
    setting(
        "try_models",
        "loaded",
        "Models that a child process loads first, so that one that ends the process ends that one: \
         off, loaded (those that come while serving) or always (those at start, too)",
    ),
    // Reading and measuring the largest usual model, on a busy machine.
    setting("try_timeout_ms", "120000", "Longest time of such a child; then the model has failed"),
    setting(
        "manifests",
        "optional",
        "SHA256SUMS in a model's folder: optional (its files are held against it if it is there) or \
         required (a model without one is not served)",
    ),
    setting("strict", "false", "Refuse to start if any model cannot be loaded"),
    setting("reflection", "true", "Serve gRPC reflection, which grpcurl needs"),
    setting(
        "compression",
        "",
        "Encodings of messages that are read, and used towards callers that read them: gzip, zstd",
    ),
    setting(
        "cors_allow_origins",
        "",
        "Sites whose pages may call from a browser, separated by commas; * is any",
    ),
    setting("runtime_library", "", "Path of libonnxruntime.so; searched for when empty"),
    setting("telemetry", "false", "Let ONNX Runtime send usage data to its maker"),
    setting("log", "info", "Log filter: a level, or target=level pairs separated by commas"),
    setting(
        "metrics_compat",
        "",
        "Names that metrics have beside their own: triton (nv_inference_… with the same meaning)",
    ),
    setting(
        "otlp_endpoint",
        "",
        "Collector that spans of traces are sent to over OTLP (gRPC), http://HOST:PORT; none are \
         recorded without one",
    ),
    // What the field's libraries do; a busy server records a part.
    setting(
        "trace_sample_ratio",
        "1",
        "Share of calls that begin a trace, from 0 to 1. A call that brings a trace follows that",
    ),
    setting("trace_queue_spans", "8192", "Spans that may wait to be sent; more are dropped"),
    setting("log_format", "auto", "auto (text on a terminal, JSON otherwise), text or json"),
    // Images and audio in one message; far below what one machine holds of them.
    setting("max_message_bytes", "67108864", "Largest request message"),
    setting(
        "request_memory_bytes",
        "0",
        "Memory that all requests may hold together; 0: a quarter of the memory limit",
    ),
    // What a client without a deadline gets; longer than any answer is awaited.
    setting("default_timeout_ms", "30000", "Deadline of a request that brings none"),
    setting("max_timeout_ms", "300000", "Longest deadline that a request may bring"),
    // Enough to fill the largest usual batch twice from one stream.
    setting(
        "stream_window",
        "128",
        "Messages of one ModelStreamInfer stream that may be in flight",
    ),
    setting("stream_order", "request", "Order of answers on a stream: request, or completion"),
    // Both are times without any progress, so that a slow network is none of their business.
    setting(
        "body_read_ms",
        "30000",
        "Give up a request of which no byte came for this time; one that does come has \
         max_timeout_ms to be whole. A stream may be idle between messages",
    ),
    setting(
        "write_stall_ms",
        "30000",
        "Reset a call whose answer the client does not take for this time, and close a connection \
         that takes no byte",
    ),
    setting("max_connections", "1024", "Open connections on the data port, and on the REST port"),
    setting("handshake_ms", "5000", "Close a connection that has not said its first words by then"),
    setting(
        "clear_text",
        "loopback",
        "Where ports may be without TLS: loopback, or anywhere. The admin port has none, and counts \
         where it takes tokens or loads models",
    ),
    setting(
        "tls_cert",
        "",
        "PEM file with this server's certificates: the data port and the REST port speak TLS",
    ),
    setting("tls_key", "", "PEM file with the private key to it"),
    setting("tls_client_ca", "", "PEM file with the authorities of callers' certificates"),
    setting(
        "tls_client_auth",
        "",
        "Certificates of callers: off, optional or required; required where tls_client_ca is given",
    ),
    // Files of a renewed certificate come by themselves; nobody sends a signal.
    setting("tls_reload_ms", "10000", "Time between two looks at the files of TLS"),
    setting(
        "access_file",
        "",
        "TOML file with who may do what: tokens, signed tokens, rights by model; without one \
         everybody may do everything",
    ),
    setting("access_reload_ms", "10000", "Time between two looks at the access file"),
    // A handshake costs a millisecond of a processor: more at a time only delay each other.
    setting(
        "max_handshakes",
        "256",
        "TLS handshakes at a time, on each port; one that stalls gives way to a new one",
    ),
    // Calls beyond these wait in the client, where nobody sees their age: it takes more than come within
    // a deadline, or an overload keeps all answers late.
    setting("max_streams", "1024", "Concurrent calls on one connection"),
    // With the largest headers a call that does nothing takes about 20 KiB: these, a third of a gigabyte.
    setting(
        "max_calls",
        "16384",
        "Calls open at a time on the data port and the REST port together; more are refused",
    ),
    // Clients that cancel at their deadline reset what a busy server has not come to yet: hundreds at
    // a time when they send thousands a second. The HTTP library's 20 ends their connections.
    setting(
        "max_pending_resets",
        "1024",
        "Calls reset by the client before they were accepted, per connection",
    ),
    setting("max_local_resets", "1024", "Calls reset by the server over a connection's life"),
    setting("max_header_bytes", "16384", "Size of a call's headers"),
    setting("keepalive_ms", "30000", "Ping a silent connection after this time"),
    setting(
        "keepalive_timeout_ms",
        "10000",
        "Close a connection that does not answer a ping for this time",
    ),
    // Longer than clients keep unused connections; half a head is held no longer either.
    setting(
        "http1_idle_ms",
        "60000",
        "Close an HTTP/1.1 connection that brings no request for this time",
    ),
    setting(
        "max_connection_age_ms",
        "0",
        "Ask a peer to connect anew at this age, a tenth more or less; 0: never",
    ),
    setting(
        "max_connection_age_grace_ms",
        "60000",
        "Longest time that the calls of such a connection have to end",
    ),
    setting(
        "drain_pause_ms",
        "0",
        "Wait this long between not being ready and not accepting, so that balancers notice",
    ),
    setting(
        "drain_grace_ms",
        "25000",
        "Longest time for answering accepted requests when stopping",
    ),
];

/// Settings that each model has; the server's value is the default of its models.
pub const MODEL: &[Setting] = &[
    setting(
        "batching",
        "auto",
        "auto (where first runs show that rows are independent, as many rows as pay by what runs \
         cost, as let every rider be in time), fixed (up to max_batch_size) or off",
    ),
    setting("max_batch_size", "64", "Most rows in a run"),
    // A request of images or texts; its message is bounded by its bytes too.
    setting(
        "max_request_rows",
        "4096",
        "Most rows in a request. One with more than a run takes is run in parts where requests may \
         share runs, and has at most max_batch_size rows elsewhere",
    ),
    setting("max_queue_delay_us", "0", "Longest wait for company while a worker is free; 0: none"),
    setting(
        "preferred_batch_sizes",
        "",
        "Numbers of rows to run as soon as they wait where batching is fixed, separated by commas",
    ),
    setting(
        "preserve_ordering",
        "false",
        "Let answers out in the order in which their runs began, whichever instance is done first",
    ),
    setting(
        "max_queue_jobs",
        "0",
        "Requests that may wait, more are refused; 0: 4096, or 8 full runs of each instance",
    ),
    // Room on both sides for requests that state a priority.
    setting(
        "default_priority",
        "100",
        "Priority of requests that state none; 1 is the most urgent and goes first",
    ),
    setting("instances", "1", "Workers per device"),
    setting(
        "graph_optimization",
        "all",
        "How far ONNX Runtime rewrites the graph at load: all, extended, basic or off",
    ),
    setting(
        "intra_op_threads",
        "0",
        "Threads inside a run; 0: the processors divided by the instances",
    ),
    setting(
        "providers",
        "cpu",
        "Execution providers in order of preference: cpu, cuda, tensorrt. A later one is a fallback",
    ),
    setting("device_ids", "0", "GPUs to place instances on, separated by commas"),
    setting(
        "response_cache_bytes",
        "0",
        "Memory for answers that are kept, per model version: an equal request is answered from it; \
         0: none",
    ),
    setting(
        "coalesce",
        "false",
        "Run equal requests that are in flight together once; a response cache does so by itself",
    ),
    setting(
        "cache_scope",
        "all",
        "Who shares kept answers and runs: all (every caller) or tenant (each tenant has its own)",
    ),
    setting(
        "warmup_ms",
        "50",
        "Time for first runs and for measuring batch sizes, per model; 0: none, and so no batches \
         where batching is auto",
    ),
    // Whoever waited for such a run has been answered for a while.
    setting(
        "hang_timeout_ms",
        "0",
        "A run that lasts longer hangs: a model whose instances all hang is not ready until one \
         ends; 0: twice max_timeout_ms",
    ),
];
