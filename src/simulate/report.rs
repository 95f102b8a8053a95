//! Figures for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::arrivals::Rows;
use super::measured::Measured;
use super::policy::fixed::{QueueTimeout, Settings};
use super::scenario::Scenario;
use super::suite::{Compared, Contender, Summary, summary};

/// Three digits, with k or M for thousands and millions.
pub fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 999_500.0 => (value / 1e6, "M"),
        value if value >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match value {
        0.0 => 0,
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{unit}")
}

/// A time with three digits.
pub fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        _ if micros < 999.5 => format!("{} us", number(micros)),
        _ if micros < 999_500.0 => format!("{} ms", number(micros / 1e3)),
        _ => format!("{} s", number(micros / 1e6)),
    }
}

fn ratio(value: f64) -> String {
    if value.is_finite() { number(value) } else { "∞".to_owned() }
}

/// Settings in a few words.
pub fn settings(settings: &Settings) -> String {
    let mut words = vec![match settings.max_batch {
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    }];
    if !settings.delay.is_zero() {
        words.push(format!("delay {}", time(settings.delay)));
    }
    words.extend(settings.queue_limit.map(|limit| format!("queue {limit}")));
    match settings.queue_timeout {
        QueueTimeout::Off => {}
        QueueTimeout::After(limit) => words.push(format!("timeout {}", time(limit))),
        QueueTimeout::Callers { margin } if margin.is_zero() => {
            words.push("callers' timeout".to_owned());
        }
        QueueTimeout::Callers { margin } => {
            words.push(format!("callers' timeout less {}", time(margin)));
        }
    }
    words.join(", ")
}

fn place(scenario: &Scenario) -> Vec<String> {
    let mut other = Vec::new();
    match &scenario.rows {
        Rows::Each(1) => {}
        Rows::Each(rows) => other.push(format!("{rows} rows each")),
        Rows::Mix(rows) => {
            let list: Vec<String> = rows.iter().map(ToString::to_string).collect();
            other.push(format!("rows {}", list.join("/")));
        }
    }
    if scenario.sigma > 0.0 {
        other.push(format!("noise {}", scenario.sigma));
    }
    vec![
        scenario.curve.name().to_owned(),
        scenario.instances.to_string(),
        scenario.arrivals.label().to_owned(),
        format!("{:.0} %", scenario.load * 100.0),
        scenario.deadlines_label.to_owned(),
        other.join(", "),
    ]
}

/// A situation in a line.
pub fn situation(scenario: &Scenario) -> String {
    place(scenario).join(" ").trim_end().to_owned()
}

/// The table with its summary, as Markdown.
pub fn markdown(all: &[Compared]) -> String {
    let mut head: Vec<String> =
        ["curve", "inst.", "arrivals", "load", "deadline", "other"].map(str::to_owned).into();
    let labels = Contender::ALL.map(Contender::label);
    head.extend(labels.map(|label| format!("{label} /s")));
    head.extend(labels.map(|label| format!("{label} p99")));
    head.extend(["auto/best", "auto/default", "best setting"].map(str::to_owned));
    let mut rows = vec![head];
    for one in all {
        let mut row = place(&one.scenario);
        row.extend(one.measured.iter().map(|measured| number(measured.goodput())));
        let p99 =
            |measured: &Measured| measured.quantile(0.99).map_or_else(|| "-".to_owned(), time);
        row.extend(one.measured.iter().map(p99));
        let by = [Contender::Best, Contender::Default].map(|other| one.auto_by(other));
        row.extend(by.map(|by| by.map_or_else(|| "-".to_owned(), ratio)));
        row.push(settings(&one.best));
        rows.push(row);
    }
    let mut text = aligned(&rows);
    text.push('\n');
    text.push_str(&in_words(all));
    text
}

/// Cells in columns; figures to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let is_text = |column: usize| matches!(column, 0 | 2 | 4 | 5) || column + 1 == columns;
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |cells: Vec<String>| format!("|{}|\n", cells.join("|"));
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        if is_text(column) { format!(" {text:<width$} ") } else { format!(" {text:>width$} ") }
    };
    let rule = |(column, width): (usize, &usize)| {
        let dashes = "-".repeat(width + 1);
        format!("{dashes}{}", if is_text(column) { '-' } else { ':' })
    };
    let mut lines: Vec<String> =
        rows.iter().map(|row| line(row.iter().enumerate().map(cell).collect())).collect();
    lines.insert(1, line(widths.iter().enumerate().map(rule).collect()));
    lines.concat()
}

/// The lines that sum it up.
pub fn in_words(all: &[Compared]) -> String {
    let Some(Summary { worst, smallest, median, median_by_default }) = summary(all) else {
        return String::new();
    };
    let mut lines = vec![format!(
        "goodput of auto by best fixed: smallest {} ({}), median {}",
        ratio(smallest),
        situation(&all[worst].scenario),
        ratio(median)
    )];
    lines.extend(median_by_default.map(|median| {
        format!("goodput of auto by default fixed, load above 70 %: median {}", ratio(median))
    }));
    lines.join("\n")
}

/// All figures, for programs.
pub fn to_json(all: &[Compared], seed: u64) -> Value {
    let situations: Vec<Value> = all.iter().map(compared).collect();
    let summary = summary(all).map(|summary| {
        json!({
            "smallest_auto_by_best_fixed": summary.smallest,
            "median_auto_by_best_fixed": summary.median,
            "median_auto_by_default_fixed_above_70_percent": summary.median_by_default,
        })
    });
    json!({ "seed": seed, "summary": summary, "situations": situations })
}

fn compared(one: &Compared) -> Value {
    let scenario = &one.scenario;
    let rows = match &scenario.rows {
        Rows::Each(rows) => vec![*rows],
        Rows::Mix(rows) => rows.clone(),
    };
    let contenders = Contender::ALL.map(|contender| {
        let mut figures = figures(one.of(contender));
        if contender == Contender::Best {
            figures["settings"] = fixed(&one.best);
        }
        (contender.key().to_owned(), figures)
    });
    json!({
        "curve": scenario.curve.name(),
        "instances": scenario.instances,
        "arrivals": scenario.arrivals.label(),
        "load": scenario.load,
        "requests_per_second": scenario.rate(),
        "deadline": scenario.deadlines_label,
        "shortest_deadline_us": micros(scenario.deadlines.tightest()),
        "longest_deadline_us": micros(scenario.deadlines.loosest()),
        "rows": rows,
        "noise": scenario.sigma,
        "requests": scenario.requests,
        "policies": contenders.into_iter().collect::<serde_json::Map<_, _>>(),
    })
}

fn figures(measured: &Measured) -> Value {
    let quantile = |share| measured.quantile(share).map(micros);
    json!({
        "goodput": measured.goodput(),
        "latency_us": { "p50": quantile(0.5), "p99": quantile(0.99) },
        "arrived": measured.arrived,
        "in_time": measured.in_time,
        "late": measured.late,
        "refused": measured.refused,
        "dropped": measured.dropped,
        "waiting": measured.waiting,
        "mean_rows": measured.mean_rows(),
        "utilisation": measured.utilisation(),
    })
}

fn fixed(settings: &Settings) -> Value {
    let timeout = match settings.queue_timeout {
        QueueTimeout::Off => Value::Null,
        QueueTimeout::After(limit) => json!({ "after_us": micros(limit) }),
        QueueTimeout::Callers { margin } => json!({ "before_deadline_us": micros(margin) }),
    };
    json!({
        "max_batch": settings.max_batch,
        "delay_us": micros(settings.delay),
        "queue_limit": settings.queue_limit,
        "queue_timeout": timeout,
    })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
