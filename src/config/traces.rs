//! Where spans of traces go, and what metrics are called.

use super::{Reader, values};

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// The collector, `http://host:port`.
    pub endpoint: String,
    /// Share of calls that begin a trace of their own, from 0 to 1.
    pub sample_ratio: f64,
    /// Spans that may wait to be sent.
    pub queue_spans: usize,
}

/// Names that metrics have beside their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherNames {
    /// `nv_inference_…`
    Triton,
}

impl Reader<'_> {
    pub(super) fn metrics_compat(&mut self) -> Option<Vec<OtherNames>> {
        self.value("metrics_compat", |text| match text {
            "" => Ok(Vec::new()),
            names => {
                values::list(names, |name| values::choice(name, &[("triton", OtherNames::Triton)]))
            }
        })
    }

    pub(super) fn traces(&mut self) -> Option<TraceSettings> {
        let endpoint = self.value("otlp_endpoint", |text| match text.trim() {
            "" => Ok(None),
            text => collector(text).map(Some),
        });
        let sample_ratio = self.value("trace_sample_ratio", |text| match text.trim().parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            _ => Err(format!("expected a number from 0 to 1, got {text:?}")),
        });
        let queue_spans = self.value("trace_queue_spans", |text| values::number(text, 1_usize));
        Some(TraceSettings {
            endpoint: endpoint??,
            sample_ratio: sample_ratio?,
            queue_spans: queue_spans?,
        })
    }
}

fn collector(text: &str) -> Result<String, String> {
    let uri = text.parse::<http::Uri>().ok();
    let is_right = |uri: &http::Uri| {
        uri.scheme_str() == Some("http") && uri.host().is_some() && matches!(uri.path(), "" | "/")
    };
    match uri {
        Some(uri) if is_right(&uri) => Ok(text.to_owned()),
        _ => Err(format!("expected http://HOST:PORT of a collector, got {text:?}")),
    }
}
