//! Log lines for programs: one JSON object each.
//!
//! | key | meaning |
//! | --- | --- |
//! | `ts`, `level`, `target`, `msg` | when (UTC, microseconds), how bad, which part of the server, what |
//! | `model`, `version` | the model version that it is about |
//! | `request_id`, `trace_id`, `span_id` | the request that it is about, as far as it has them |
//! | others | what the line tells beside; numbers are numbers |
//!
//! Text that comes from callers is cut where it is logged, and escaped here.

use std::fmt::{self, Write};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let mut line = Line::default();
        event.record(&mut line);
        let target = line.target.map_or_else(|| target.into(), Value::from);
        let message = Value::from(line.message);
        write!(writer, "{{\"ts\":\"{time}\",\"level\":\"{level}\",\"target\":{target},")?;
        writeln!(writer, "\"msg\":{message}{}}}", line.fields)
    }
}

/// What one event tells.
#[derive(Debug, Default)]
struct Line {
    message: String,
    /// Of what other libraries log in their own way.
    target: Option<String>,
    fields: String,
}

impl Line {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let (name, value) = (field.name(), value.into());
        match (name, value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(text)) => self.target = Some(text),
            (name, _) if name.starts_with("log.") => {}
            // Writing to a string cannot fail.
            (name, value) => drop(write!(self.fields, ",{}:{value}", Value::from(name))),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        // JSON has no larger ones that every reader takes.
        self.put(field, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_object_whatever_is_in_it() {
        let written = Written::default();
        let sink = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines)
            .with_writer(move || sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let (id, none): (&str, Option<&str>) = ("a\n\"b\u{1b}[31m", None);
            let error = io::Error::other("no \"room\"");
            tracing::warn!(
                model = %"m", version = 7_u64, request_id = id, trace_id = none, ratio = 0.5,
                is_late = true, took_ms = 12_u128, %error, shape = ?[1, 2], "it {} so", "is"
            );
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!((text.lines().count(), text.chars().filter(|c| c.is_control()).count()), (1, 1));
        assert!(
            text.starts_with("{\"ts\":\"2") && text.contains("Z\",\"level\":\"WARN\""),
            "{text}"
        );
        let line: Value = serde_json::from_str(&text).unwrap();
        let wanted = serde_json::json!({
            "ts": line["ts"], "level": "WARN", "target": "onnxd::telemetry::json::tests",
            "msg": "it is so", "model": "m", "version": 7, "request_id": "a\n\"b\u{1b}[31m",
            "ratio": 0.5, "is_late": true, "took_ms": 12, "error": "no \"room\"", "shape": "[1, 2]",
        });
        assert_eq!(line, wanted);
    }
}
