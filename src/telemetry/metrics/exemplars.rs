//! Exemplars: traces of single requests, at the buckets that they fell into.
//!
//! The client library lets nobody else make its exemplars, and its own histogram with exemplars takes
//! two locks for each value. So they are put at the ends of the lines that it has written.
//!
//! Source: OpenMetrics 1.0, "Exemplars".

use std::collections::HashMap;
use std::fmt::Write;
use std::time::UNIX_EPOCH;

use super::Metrics;
use super::histogram::Exemplified;

/// Exemplars by the beginnings of their lines.
#[derive(Debug, Default)]
pub(super) struct Exemplars(HashMap<String, String>);

impl Exemplars {
    /// The bucket of `name` below that bound has an exemplar.
    pub(super) fn put(
        &mut self,
        name: &str,
        bound: f64,
        labels: &[(&str, &str)],
        exemplar: &Exemplified,
    ) {
        let bound = if bound.is_infinite() { "+Inf".to_owned() } else { format!("{bound:?}") };
        let mut line = format!("{name}_bucket{{le=\"{bound}\"");
        // Writing to a string cannot fail.
        for (key, value) in labels {
            write!(line, ",{key}=\"{value}\"").unwrap_or_default();
        }
        line.push('}');
        let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let (trace_id, value) = (exemplar.trace_id, exemplar.value);
        self.0.insert(line, format!(" # {{trace_id=\"{trace_id}\"}} {value:?} {at:.3}"));
    }

    /// The text with the exemplars in it.
    fn put_into(&self, text: &str) -> String {
        let mut whole = String::with_capacity(text.len() + 100 * self.0.len());
        for line in text.lines() {
            whole.push_str(line);
            let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
            if let Some(exemplar) = self.0.get(series) {
                whole.push_str(exemplar);
            }
            whole.push('\n');
        }
        whole
    }
}

impl Metrics {
    /// OpenMetrics text with what its values are exemplified by.
    pub(super) fn with_exemplars(&self, text: String) -> String {
        let mut exemplars = Exemplars::default();
        self.models.exemplars(&mut exemplars);
        if let Some(calls) = self.calls.get() {
            calls.exemplars(&mut exemplars);
        }
        if exemplars.0.is_empty() { text } else { exemplars.put_into(&text) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry::trace::TraceId;

    use super::*;

    #[test]
    fn exemplars_stand_behind_the_values_of_their_buckets() {
        let mut exemplars = Exemplars::default();
        let exemplar = Exemplified {
            trace_id: TraceId::from(0xab),
            value: 0.0002,
            at: UNIX_EPOCH + Duration::from_millis(1500),
        };
        exemplars.put("a", 0.00025, &[("model", "m"), ("version", "1")], &exemplar);
        exemplars.put("a", f64::INFINITY, &[("model", "m"), ("version", "1")], &exemplar);
        let bucket = |le: &str| format!("a_bucket{{le=\"{le}\",model=\"m\",version=\"1\"}} 7");
        let text =
            format!("{}\n{}\n{}\n# EOF\n", bucket("0.0001"), bucket("0.00025"), bucket("+Inf"));
        let told = " # {trace_id=\"000000000000000000000000000000ab\"} 0.0002 1.500";
        let wanted = format!(
            "{}\n{}{told}\n{}{told}\n# EOF\n",
            bucket("0.0001"),
            bucket("0.00025"),
            bucket("+Inf")
        );
        assert_eq!(exemplars.put_into(&text), wanted);
    }
}
