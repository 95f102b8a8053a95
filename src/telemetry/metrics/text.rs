//! The two text formats that a scraper can ask for.
//!
//! The library writes OpenMetrics. A scraper that does not say that it reads it gets the format
//! before it, where a counter's type carries the name of its sample, and which knows neither the end
//! nor types of later days.
//!
//! Source: OpenMetrics 1.0; Prometheus, "Exposition formats", text format 0.0.4.

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Prometheus,
}

impl Format {
    /// The format for a scraper that accepts this.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics text in the older format. `is_counter` tells of families without a type that they
/// count.
pub(super) fn to_prometheus(text: &str, is_counter: impl Fn(&str) -> bool) -> String {
    let mut older = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(described) = line.strip_prefix("# ") else {
            older.push_str(line);
            older.push('\n');
            continue;
        };
        let mut words = described.splitn(3, ' ');
        let (kind, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let rest = words.next().unwrap_or("");
        // The type follows the text, and tells how the text's family is called.
        let is_total = match kind {
            "HELP" => lines.peek().is_some_and(|next| next.ends_with(" counter")),
            _ => rest == "counter",
        };
        let (suffix, rest) = match (kind, rest) {
            ("HELP", _) => (if is_total { "_total" } else { "" }, rest),
            ("TYPE", "counter") => ("_total", rest),
            ("TYPE", "unknown") => ("", if is_counter(name) { "counter" } else { "gauge" }),
            ("TYPE", _) => ("", rest),
            _ => continue,
        };
        for part in ["# ", kind, " ", name, suffix, " ", rest, "\n"] {
            older.push_str(part);
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_called_as_their_samples_and_the_end_is_left_out() {
        let open = "# HELP a_seconds Time.\n# TYPE a_seconds counter\na_seconds_total{x=\"# HELP\"} 1.5\n\
            # HELP b Depth.\n# TYPE b gauge\n# UNIT b b\nb 2\n\
            # HELP nv_c Runs.\n# TYPE nv_c unknown\nnv_c 3\n# EOF\n";
        let older = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\n\
            a_seconds_total{x=\"# HELP\"} 1.5\n# HELP b Depth.\n# TYPE b gauge\nb 2\n\
            # HELP nv_c Runs.\n# TYPE nv_c counter\nnv_c 3\n";
        assert_eq!(to_prometheus(open, |name| name == "nv_c"), older);
    }

    #[test]
    fn who_does_not_ask_for_the_newer_format_gets_the_older() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for other in ["", "*/*", "text/plain;version=0.0.4"] {
            assert_eq!(Format::accepted(other), Format::Prometheus, "{other}");
        }
    }
}
