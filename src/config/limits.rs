//! What callers may do: limits on requests and connections, encodings, pages.

use std::time::Duration;

use super::{Reader, values};

/// Limits on requests.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Largest message.
    pub max_message_bytes: usize,
    /// Deadline of a request that brings none.
    pub default_timeout: Duration,
    /// Longest deadline that a request may bring.
    pub max_timeout: Duration,
    /// How long a body that is needed to go on may bring no byte.
    pub body_read: Duration,
    /// Messages of one stream in flight.
    pub stream_window: usize,
    /// Order of answers on a stream.
    pub stream_order: StreamOrder,
}

/// How messages can be made smaller on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// All of them.
    const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// As settings and `grpc-encoding` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Pages that may call from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrossOrigin {
    /// Those of any site.
    Any,
    /// Those of these sites, `scheme://host[:port]` each.
    These(Vec<String>),
}

/// Order of answers on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOrder {
    /// As the requests came.
    Request,
    /// As they are ready.
    Completion,
}

/// Limits on connections to the data port.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Open at a time.
    pub max_connections: usize,
    /// Calls that may be open at a time, on all connections of all ports together.
    pub max_calls: usize,
    /// Time for its first words.
    pub handshake: Duration,
    /// Concurrent calls on one.
    pub max_streams: u32,
    /// Calls reset by the client before they were accepted.
    pub max_pending_resets: usize,
    /// Calls reset by the server over a connection's life.
    pub max_local_resets: usize,
    /// Size of a call's headers.
    pub max_header_bytes: u32,
    /// Silence after which a ping is sent.
    pub keepalive: Duration,
    /// How long to wait for its answer.
    pub keepalive_timeout: Duration,
    /// How long an HTTP/1.1 connection may be without a request, or take for its head.
    pub http1_idle: Duration,
    /// How long an answer, or a connection, may wait for a peer that does not read.
    pub write_stall: Duration,
    /// Age at which a peer is asked to connect anew, a tenth more or less; zero for none.
    pub max_age: Duration,
    /// How long its open calls then have.
    pub max_age_grace: Duration,
}

impl Reader<'_> {
    pub(super) fn compression(&mut self) -> Option<Vec<Compression>> {
        let encodings = Compression::ALL.map(|encoding| (encoding.name(), encoding));
        self.value("compression", |text| match text {
            "" => Ok(Vec::new()),
            names => values::list(names, |name| values::choice(name, &encodings)),
        })
    }

    pub(super) fn requests(&mut self) -> Option<RequestLimits> {
        let orders = [("request", StreamOrder::Request), ("completion", StreamOrder::Completion)];
        let max_message_bytes = self.value("max_message_bytes", |text| values::number(text, 1));
        let default_timeout = self.value("default_timeout_ms", values::millis);
        let max_timeout = self.value("max_timeout_ms", values::millis);
        let body_read = self.value("body_read_ms", values::some_millis);
        let stream_window = self.value("stream_window", |text| values::number(text, 1));
        let stream_order = self.value("stream_order", |text| values::choice(text, &orders));
        Some(RequestLimits {
            max_message_bytes: max_message_bytes?,
            body_read: body_read?,
            default_timeout: default_timeout?,
            max_timeout: max_timeout?,
            stream_window: stream_window?,
            stream_order: stream_order?,
        })
    }

    pub(super) fn connections(&mut self) -> Option<ConnectionLimits> {
        let max_connections = self.value("max_connections", |text| values::number(text, 1));
        let max_calls = self.value("max_calls", |text| values::number(text, 1));
        let handshake = self.value("handshake_ms", values::millis);
        let max_streams = self.value("max_streams", |text| values::number(text, 1));
        let max_pending_resets = self.value("max_pending_resets", |text| values::number(text, 1));
        let max_local_resets = self.value("max_local_resets", |text| values::number(text, 1));
        let max_header_bytes = self.value("max_header_bytes", |text| values::number(text, 1024));
        let keepalive = self.value("keepalive_ms", values::millis);
        let keepalive_timeout = self.value("keepalive_timeout_ms", values::millis);
        let http1_idle = self.value("http1_idle_ms", values::millis);
        let write_stall = self.value("write_stall_ms", values::some_millis);
        let max_age = self.value("max_connection_age_ms", values::millis);
        let max_age_grace = self.value("max_connection_age_grace_ms", values::millis);
        Some(ConnectionLimits {
            max_connections: max_connections?,
            max_calls: max_calls?,
            handshake: handshake?,
            max_streams: max_streams?,
            max_pending_resets: max_pending_resets?,
            max_local_resets: max_local_resets?,
            max_header_bytes: max_header_bytes?,
            keepalive: keepalive?,
            keepalive_timeout: keepalive_timeout?,
            http1_idle: http1_idle?,
            write_stall: write_stall?,
            max_age: max_age?,
            max_age_grace: max_age_grace?,
        })
    }
}
