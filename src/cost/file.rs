//! What runs of a model cost, as text to keep beside the model.
//!
//! `onnxd profile --save` writes it and the repository reads it. TOML, so that people can read it,
//! compare two of them, and carry one to another machine of the same kind. The text says what it was
//! measured on, because figures of another machine, library or model are worse than none. Text to
//! values and back; opens no file and looks at no machine.

use std::num::NonZeroU32;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

use super::CostModel;

/// Form of the text. Another number means other keys.
pub const SCHEMA: i64 = 1;
/// Longest text that is read, in bytes: room for the most points.
pub const MAX_BYTES: usize = 1 << 19;
/// Most points: a hundred lengths with forty sizes each.
pub const MAX_POINTS: usize = 4096;
/// Times of runs that a point can tell of, in microseconds: from less than any takes to an hour.
const MICROS: RangeInclusive<f64> = 0.1..=3.6e9;

/// What runs of a model cost and what that was measured on.
#[derive(Debug, Clone, PartialEq)]
pub struct CostFile {
    /// Model, machine and settings.
    pub measured_on: MeasuredOn,
    /// Times, by length and rows.
    pub points: Vec<MeasuredPoint>,
}

/// Everything that a run's time depends on beside rows and length. Weights that are kept apart from
/// the model's file are not in it: times follow from the graph, and weights may have gigabytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredOn {
    /// Size of the model's file.
    pub model_bytes: u64,
    /// SHA-256 of the model's file, in hexadecimal.
    pub model_sha256: String,
    /// What it ran on.
    pub provider: String,
    /// Settings that change what a run does.
    pub settings: String,
    /// Threads inside a run.
    pub intra_op_threads: usize,
    /// Name and version of the library that ran it.
    pub runtime: String,
    /// Name of the processor.
    pub processor: String,
    /// Names of the GPUs, where it ran on one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gpus: String,
}

/// Time of one size of runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredPoint {
    /// Length of the rows.
    pub length: NonZeroU32,
    /// Rows in a run.
    pub rows: NonZeroU32,
    /// Time of a run, in microseconds.
    #[serde(deserialize_with = "micros")]
    pub micros: f64,
}

/// Why a text is no cost file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CostFileError {
    /// It is too long to be one.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// A line is not as it should be.
    #[error("line {line}{}: {reason}", at(.key))]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// The key that stands there, with its table; empty if there is none.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

fn at(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(", `{key}`") }
}

/// The text as it is read: the schema first, whatever else there is.
#[derive(Deserialize)]
struct Head {
    schema: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "schema")]
    _schema: i64,
    measured_on: MeasuredOn,
    points: Vec<Spanned<MeasuredPoint>>,
}

/// The text as it is written.
#[derive(Serialize)]
struct Written<'a> {
    schema: i64,
    measured_on: &'a MeasuredOn,
    points: &'a [MeasuredPoint],
}

const PREAMBLE: &str = "\
# What runs of this model cost, measured by `onnxd profile --save`. A server that finds everything
# under [measured_on] as it was takes these times instead of measuring at start.
";

impl CostFile {
    /// Reads a text.
    ///
    /// # Errors
    /// [`CostFileError`], with the line and the key of the first mistake.
    pub fn parse(text: &str) -> Result<Self, CostFileError> {
        if text.len() > MAX_BYTES {
            return Err(CostFileError::TooLong);
        }
        let schema = read::<Head>(text)?.schema;
        if *schema.get_ref() != SCHEMA {
            let found = schema.get_ref();
            return Err(mistake(text, &schema.span(), &format!("{found} is not {SCHEMA}")));
        }
        let Body { measured_on, points, .. } = read::<Body>(text)?;
        if points.is_empty() {
            return Err(mistake(text, &(text.len()..text.len()), "there are no points"));
        }
        let mut known = std::collections::BTreeSet::new();
        for point in &points {
            let MeasuredPoint { length, rows, .. } = *point.get_ref();
            if !known.insert((length, rows)) {
                let reason = format!("there is a point of {rows} rows of {length} already");
                return Err(mistake(text, &point.span(), &reason));
            }
            if known.len() > MAX_POINTS {
                let reason = format!("there are more than {MAX_POINTS} points");
                return Err(mistake(text, &point.span(), &reason));
            }
        }
        let points = points.into_iter().map(Spanned::into_inner).collect();
        Ok(Self { measured_on, points })
    }

    /// The text to keep.
    ///
    /// # Errors
    /// What TOML has no form for: a number beyond its range.
    pub fn to_text(&self) -> Result<String, String> {
        let Self { measured_on, points } = self;
        let written = Written { schema: SCHEMA, measured_on, points };
        let text = toml::to_string(&written).map_err(|error| error.to_string())?;
        Ok(format!("{PREAMBLE}{text}"))
    }
}

impl MeasuredOn {
    /// What is not the same now, each with what it was then and what it is now.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let pairs = [
            ("model_bytes", self.model_bytes.to_string(), now.model_bytes.to_string()),
            ("model_sha256", self.model_sha256.clone(), now.model_sha256.clone()),
            ("provider", self.provider.clone(), now.provider.clone()),
            ("settings", self.settings.clone(), now.settings.clone()),
            (
                "intra_op_threads",
                self.intra_op_threads.to_string(),
                now.intra_op_threads.to_string(),
            ),
            ("runtime", self.runtime.clone(), now.runtime.clone()),
            ("processor", self.processor.clone(), now.processor.clone()),
            ("gpus", self.gpus.clone(), now.gpus.clone()),
        ];
        let differs = pairs.into_iter().filter(|(_, then, now)| then != now);
        differs.map(|(key, then, now)| format!("{key} was {then:?}, is {now:?}")).collect()
    }
}

impl MeasuredPoint {
    /// A time as it is kept: to a tenth of a microsecond. `None` for what no file can hold.
    pub fn new(length: usize, rows: usize, time: Duration) -> Option<Self> {
        let number = |number: usize| NonZeroU32::new(u32::try_from(number).ok()?);
        let micros = (time.as_secs_f64() * 1e7).round() / 10.0;
        let micros = Some(micros.max(*MICROS.start())).filter(|micros| MICROS.contains(micros))?;
        Some(Self { length: number(length)?, rows: number(rows)?, micros })
    }

    /// Tells it to a model of costs.
    pub fn tell(&self, costs: &mut CostModel) {
        let number = |number: NonZeroU32| usize::try_from(number.get()).unwrap_or(usize::MAX);
        let time = Duration::from_secs_f64(self.micros * 1e-6);
        costs.set(number(self.rows), number(self.length), time);
    }
}

fn micros<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    let micros = f64::deserialize(value)?;
    if MICROS.contains(&micros) {
        return Ok(micros);
    }
    let (least, most) = MICROS.into_inner();
    Err(D::Error::custom(format!("expected {least} to {most}, found {micros}")))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, CostFileError> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        mistake(text, &span, error.message())
    })
}

/// Longest reason that is repeated, in characters: it may quote the text.
const REASON_CHARS: usize = 200;

/// A mistake with the line and the key at `span`.
fn mistake(text: &str, span: &Range<usize>, reason: &str) -> CostFileError {
    let before = text.get(..span.start).unwrap_or(text);
    let begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    let here = text[begins..].lines().next().unwrap_or_default();
    let table = |line: &str| {
        let name = line.trim().strip_prefix('[')?.split(']').next()?;
        Some(name.trim_start_matches('[').trim().to_owned())
    };
    let key = match (table(here), here.split_once('=')) {
        (Some(table), _) => table,
        (None, None) => String::new(),
        (None, Some((key, _))) => {
            let table = before[..begins].lines().rev().find_map(table);
            table.into_iter().chain([key.trim().to_owned()]).collect::<Vec<_>>().join(".")
        }
    };
    let short = |text: &str| text.chars().take(REASON_CHARS).collect::<String>();
    let line = before.matches('\n').count() + 1;
    CostFileError::Line { line, key: short(&key), reason: short(reason) }
}

#[cfg(test)]
mod tests;
