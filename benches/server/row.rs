//! One line of the table: a figure, its target, its verdict.

use serde_json::{Value, json};

/// What a figure is held to.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

use Target::{AtLeast, AtMost};

/// One line of the table.
pub(crate) struct Row {
    /// Of the targets.
    pub(crate) number: &'static str,
    pub(crate) name: String,
    /// One per round; the median counts.
    pub(crate) figures: Vec<f64>,
    pub(crate) unit: &'static str,
    pub(crate) target: Target,
    /// What else there is to know.
    pub(crate) note: String,
}

/// A figure of an earlier run and its range.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    pub(crate) figure: f64,
    pub(crate) range: [f64; 2],
    pub(crate) rounds: usize,
}

/// Rounds whose range tells of noise.
const ROUNDS: usize = 3;

/// Most that a figure is shown better than its target.
const BEST: f64 = 10.0;

impl Row {
    pub(crate) fn new(
        number: &'static str,
        name: impl Into<String>,
        figures: Vec<f64>,
        (unit, target): (&'static str, Target),
    ) -> Self {
        Self { number, name: name.into(), figures, unit, target, note: String::new() }
    }

    pub(crate) fn noted(self, note: String) -> Self {
        Self { note, ..self }
    }

    pub(crate) fn figure(&self) -> f64 {
        median(self.figures.clone())
    }

    fn range(&self) -> [f64; 2] {
        let fold =
            |start, pick: fn(f64, f64) -> f64| self.figures.iter().copied().fold(start, pick);
        [fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max)]
    }

    fn is_met(&self) -> bool {
        match self.target {
            AtMost(bound) => self.figure() <= bound,
            AtLeast(bound) => self.figure() >= bound,
        }
    }

    /// By the target: from 1 on it is met. A figure of nothing is [`BEST`].
    pub(crate) fn by_target(&self) -> f64 {
        let by_target = match self.target {
            AtMost(bound) => bound / self.figure(),
            AtLeast(bound) => self.figure() / bound,
        };
        by_target.min(BEST)
    }

    /// Whether an earlier run is the same but for noise: the ranges of the rounds overlap. Nobody knows
    /// where there are too few rounds to show a range.
    pub(crate) fn agrees_with(&self, before: Before) -> Option<bool> {
        let [low, high] = self.range();
        let both = self.figures.len().min(before.rounds);
        (both >= ROUNDS).then_some(low <= before.range[1] && before.range[0] <= high)
    }

    /// As people read it.
    pub(crate) fn to_text(&self, before: Option<Before>) -> String {
        let Self { number, name, unit, note, .. } = self;
        let (figure, [low, high]) = (self.figure(), self.range());
        let bound = match self.target {
            AtMost(bound) => format!("<= {bound}"),
            AtLeast(bound) => format!(">= {bound}"),
        };
        let verdict = if self.is_met() { "met" } else { "MISSED" };
        let range = format!("{low:.2}-{high:.2}");
        let before = before.map_or_else(String::new, |before| {
            let change = 100.0 * (figure / before.figure - 1.0);
            let verdict = match self.agrees_with(before) {
                Some(true) => " agrees",
                Some(false) => " DIFFERS",
                None => "",
            };
            format!("  before {:.2} ({change:+.1} %){verdict}", before.figure)
        });
        let note = if note.is_empty() { String::new() } else { format!("  {note}") };
        format!(
            "{number:<3} {name:<58} {figure:>8.2} {unit:<3} {range:>15} {bound:>8}  \
             {verdict:<6}{before}{note}"
        )
    }

    pub(crate) fn to_json(&self) -> Value {
        let (bound, target) = match self.target {
            AtMost(target) => ("at most", target),
            AtLeast(target) => ("at least", target),
        };
        json!({
            "row": self.number,
            "name": self.name,
            "figure": self.figure(),
            "range": self.range(),
            "rounds": self.figures.len(),
            "unit": self.unit,
            "bound": bound,
            "target": target,
            "met": self.is_met(),
            "note": self.note,
        })
    }
}

/// The middle value; of an even number of them the upper one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
