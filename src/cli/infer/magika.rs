//! From a file to the input of `magika`, and from its output to the name of a type.
//!
//! The same rules as the package that the model comes from, in its default mode ("high
//! confidence"); `models/magika/README.md` writes them down. Few files need no model.
//!
//! Source: magika 1.0.3, `magika.py` and `standard_v3_3/config.min.json`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::client::{Client, WireTensor};
use super::refused;
use crate::cli::Outcome;
use crate::tensor::DataType;

/// The model's types, in the order of its output.
const LABELS: &str = include_str!("../../../models/magika/labels.txt");
/// Type, kind (text or binary), and more, one type a line after the heading.
const CONTENT_TYPES: &str = include_str!("../../../models/magika/content_types.tsv");

/// Bytes that are read from each end.
const BLOCK_BYTES: u64 = 4096;
/// Values of the row that come from the start, and as many from the end.
const SIDE: usize = 1024;
/// Stands for no byte.
const PADDING: i32 = 256;
/// Fewer bytes say nothing to the model.
const MIN_BYTES: usize = 8;

/// Least score at which a type is believed; every other type needs [`USUAL_THRESHOLD`].
const THRESHOLDS: [(&str, f64); 12] = [
    ("crt", 0.9),
    ("handlebars", 0.9),
    ("ignorefile", 0.95),
    ("latex", 0.95),
    ("markdown", 0.75),
    ("ocaml", 0.9),
    ("pascal", 0.95),
    ("r", 0.9),
    ("rst", 0.9),
    ("sql", 0.9),
    ("tsv", 0.9),
    ("zig", 0.9),
];
const USUAL_THRESHOLD: f64 = 0.5;
/// Types that the caller knows by another name.
const RENAMED: [(&str, &str); 2] = [("randombytes", "unknown"), ("randomtxt", "txt")];

/// A file, ready to be asked about.
#[derive(Debug, PartialEq)]
pub(super) enum Prepared {
    /// Nothing to ask: this is its type.
    Decided(&'static str),
    /// The row for the model, `[2048] i32`.
    Row(Vec<i32>),
}

/// What the model's answer means.
#[derive(Debug, PartialEq)]
struct Verdict {
    label: &'static str,
    /// What the model holds most likely.
    guess: &'static str,
    /// From 0 to 1.
    score: f64,
    /// Whether the guess was too weak to be told as the label.
    is_weak: bool,
}

/// Reads both ends of a file.
pub(super) fn prepare(path: &Path) -> Result<Prepared, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{}: not a regular file", path.display()));
    }
    let size = metadata.len();
    let mut block = |start: u64| {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref().take(BLOCK_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let head = block(0).map_err(failed)?;
    let tail = block(size.saturating_sub(BLOCK_BYTES)).map_err(failed)?;
    Ok(row(&head, &tail))
}

/// The row made of the first and the last block of a file.
fn row(head: &[u8], tail: &[u8]) -> Prepared {
    if head.is_empty() {
        return Prepared::Decided("empty");
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = head.iter().position(|byte| !is_space(byte)).unwrap_or(head.len());
    let end = tail.iter().rposition(|byte| !is_space(byte)).map_or(0, |last| last + 1);
    let (first, last) = (&head[start..], &tail[..end]);
    if first.len() < MIN_BYTES {
        let is_text = std::str::from_utf8(head).is_ok();
        return Prepared::Decided(if is_text { "txt" } else { "unknown" });
    }
    let first = &first[..first.len().min(SIDE)];
    let last = &last[last.len().saturating_sub(SIDE)..];
    let mut row = vec![PADDING; 2 * SIDE];
    for (value, byte) in row.iter_mut().zip(first) {
        *value = i32::from(*byte);
    }
    for (value, byte) in row.iter_mut().rev().zip(last.iter().rev()) {
        *value = i32::from(*byte);
    }
    Prepared::Row(row)
}

/// Asks for the type of `file`. `connect` is called only if there is something to ask.
pub(super) async fn identify(
    file: &Path,
    prepared: Prepared,
    connect: impl AsyncFnOnce() -> Result<Client, Outcome>,
) -> Result<String, Outcome> {
    let name = file.display();
    let row = match prepared {
        Prepared::Decided(label) => return Ok(format!("{name}: {label} (the model isn't needed)")),
        Prepared::Row(row) => row,
    };
    let input = WireTensor {
        name: "bytes".to_owned(),
        dtype: DataType::Int32,
        shape: vec![1, 2 * 1024],
        raw: row.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    let outputs = connect().await?.infer(vec![input]).await?;
    let scores = outputs.first().map(WireTensor::to_floats).unwrap_or_default();
    let Some(Verdict { label, guess, score, is_weak }) = verdict(&scores) else {
        let (wanted, got) = (LABELS.lines().count(), scores.len());
        return Err(refused(format!("expected {wanted} scores from the model, got {got}")));
    };
    let percent = score * 100.0;
    Ok(if is_weak {
        format!("{name}: {label} (best guess {guess}, {percent:.1} %)")
    } else {
        format!("{name}: {label} ({percent:.1} %)")
    })
}

/// `None` if there is not one score for each type.
fn verdict(scores: &[f32]) -> Option<Verdict> {
    if scores.len() != LABELS.lines().count() {
        return None;
    }
    let mut best = ("", f32::NEG_INFINITY);
    for (label, score) in LABELS.lines().zip(scores) {
        // The first one wins a tie.
        if *score > best.1 {
            best = (label, *score);
        }
    }
    let (guess, score) = (best.0, f64::from(best.1));
    let renamed = RENAMED.iter().find(|(from, _)| *from == guess).map_or(guess, |(_, to)| to);
    let threshold = THRESHOLDS.iter().find(|(label, _)| *label == guess);
    let is_weak = score < threshold.map_or(USUAL_THRESHOLD, |(_, least)| *least);
    let label = match is_weak {
        false => renamed,
        true if is_text(renamed) => "txt",
        true => "unknown",
    };
    // A weak guess that is the answer all the same needs no excuse.
    Some(Verdict { label, guess, score, is_weak: is_weak && label != guess })
}

fn is_text(label: &str) -> bool {
    let mut kinds = CONTENT_TYPES.lines().map(|line| line.split('\t'));
    kinds.any(|mut fields| fields.next() == Some(label) && fields.next() == Some("text"))
}

#[cfg(test)]
mod tests;
