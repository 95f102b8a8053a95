//! Metrics of connections, by port.

use std::sync::PoisonError;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    port: &'static str,
    reason: &'static str,
}

/// Why a connection was closed before it had a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// All places are taken.
    Connections,
    /// All places for handshakes are taken, or the peer had not gone on when its place was needed.
    Handshakes,
    /// The peer and this server do not agree on TLS.
    Tls,
    /// The peer said too little for too long.
    Silent,
    /// The peer went away.
    Gone,
}

impl Refused {
    const ALL: [Self; 5] =
        [Self::Connections, Self::Handshakes, Self::Tls, Self::Silent, Self::Gone];

    const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Handshakes => "handshakes",
            Self::Tls => "tls",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }
}

/// What the connections of one port count.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    handshakes: Gauge,
    calls: Gauge,
    refused_calls: Counter,
    refused: [Counter; Refused::ALL.len()],
}

impl ConnectionMetrics {
    /// A connection is open until the answer is dropped.
    pub fn open(&self) -> Counted {
        Counted::new(&self.open)
    }

    /// A handshake goes on until the answer is dropped.
    pub fn handshake(&self) -> Counted {
        Counted::new(&self.handshakes)
    }

    /// A call begins.
    pub fn call_begun(&self) {
        self.calls.inc();
    }

    /// A call that was begun has ended.
    pub fn call_ended(&self) {
        self.calls.dec();
    }

    /// A call was refused because too many are open.
    pub fn refused_call(&self) {
        self.refused_calls.inc();
    }

    /// A connection was closed before it had a call.
    pub fn refused(&self, reason: Refused) {
        self.refused[reason as usize].inc();
    }
}

/// One more on a gauge, until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// The part that each of `ports` counts, at zero. To be called once.
    pub fn connections<const N: usize>(&self, ports: [&'static str; N]) -> [ConnectionMetrics; N] {
        let (open, handshakes) = (Family::<PortLabels, Gauge>::default(), Family::default());
        let (calls, refused_calls) = (Family::<PortLabels, Gauge>::default(), Family::default());
        let refused = Family::<RefusedLabels, Counter>::default();
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register("connections", "Open connections", open.clone());
        registry.register("handshakes", "TLS handshakes under way", handshakes.clone());
        registry.register("calls", "Open calls", calls.clone());
        let text = "Calls refused because too many were open";
        registry.register("refused_calls", text, refused_calls.clone());
        let text = "Connections closed before they had a call, by reason";
        registry.register("refused_connections", text, refused.clone());
        ports.map(|port| ConnectionMetrics {
            open: open.get_or_create_owned(&PortLabels { port }),
            handshakes: handshakes.get_or_create_owned(&PortLabels { port }),
            calls: calls.get_or_create_owned(&PortLabels { port }),
            refused_calls: refused_calls.get_or_create_owned(&PortLabels { port }),
            refused: Refused::ALL.map(|reason| {
                refused.get_or_create_owned(&RefusedLabels { port, reason: reason.label() })
            }),
        })
    }
}
