//! Which rows are measured, and how they are shown.

use std::path::Path;

use onnxd::bench::plot;
use serde_json::{Value, json};

use crate::row::{Before, Row};
use crate::setting::{Effort, Setting};
use crate::{batching, cores, limits, overload, process};

/// What was asked for.
struct Options {
    quick: bool,
    /// Numbers of rows; none for all.
    rows: Vec<String>,
    /// Figures of an earlier run.
    before: Option<Value>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { quick: false, rows: Vec::new(), before: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--rows" => options.rows = value()?.split(',').map(str::to_owned).collect(),
                "--compare" => {
                    let path = value()?;
                    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
                    let before = serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
                    options.before = Some(before);
                }
                _ => return Err(format!("expected --quick, --rows or --compare, got {argument}")),
            }
        }
        let known = GROUPS.iter().flat_map(|(numbers, _)| *numbers);
        let known: Vec<&str> = known.copied().collect();
        match options.rows.iter().find(|row| !known.contains(&row.as_str())) {
            None => Ok(options),
            Some(row) => Err(format!("--rows: there is no row {row}")),
        }
    }

    fn wants(&self, number: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| row == number)
    }

    /// What the earlier run showed of a row.
    fn before(&self, row: &Row) -> Option<Before> {
        let rows = self.before.as_ref()?["rows"].as_array()?;
        let earlier = rows.iter().find(|each| each["name"] == row.name.as_str())?;
        let range = [earlier["range"][0].as_f64()?, earlier["range"][1].as_f64()?];
        let rounds = usize::try_from(earlier["rounds"].as_u64()?).ok()?;
        Some(Before { figure: earlier["figure"].as_f64()?, range, rounds })
    }
}

/// Measures rows that belong together, or those of them that are wanted.
type Measure = fn(&Setting, &dyn Fn(&str) -> bool) -> Result<Vec<Row>, String>;

/// All rows of the targets.
const GROUPS: [(&[&str], Measure); 8] = [
    (&["1", "2", "3", "6", "11"], limits::rows),
    (&["4"], |setting, _| batching::default_over_best(setting)),
    (&["5"], |setting, _| batching::mixed_texts(setting)),
    (&["7"], |setting, _| overload::rows(setting)),
    (&["8", "9"], |setting, _| process::start_and_memory(setting)),
    (&["10"], |setting, _| process::size(setting)),
    (&["12"], |setting, _| cores::rows(setting)),
    (&["13"], |setting, _| batching::streams(setting)),
];

/// Share of a core from which on others disturb.
const DISTURBED: f64 = 0.1;

/// Measures what is asked for.
pub(crate) fn measure(arguments: &[String]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let setting = Setting::prepare(effort)?;
    let mut rows = Vec::new();
    for (numbers, group) in GROUPS {
        if numbers.iter().any(|number| options.wants(number)) {
            rows.extend(group(&setting, &|number| options.wants(number))?);
        }
    }
    rows.retain(|row| options.wants(row.number));
    // In the order of the targets; those of one number stay as they are.
    rows.sort_by_key(|row| row.number.parse::<u8>().unwrap_or(u8::MAX));
    println!("\n{:<3} {:<58} {:>8}     {:>15} {:>8}", "row", "figure", "median", "range", "target");
    for row in &rows {
        println!("{}", row.to_text(options.before(row)));
    }
    let compared: Vec<bool> =
        rows.iter().filter_map(|row| row.agrees_with(options.before(row)?)).collect();
    if !compared.is_empty() {
        let agree = compared.iter().filter(|agrees| **agrees).count();
        println!("\n{agree} of {} figures agree: their ranges overlap", compared.len());
    }
    let others = crate::run::others_share();
    println!("\nother processes: {:.0} % of a core", 100.0 * others);
    if others > DISTURBED {
        println!("WARNING: the machine had other work; latencies, starts and rates are too bad");
    }
    write(&setting.out, &rows, others).map_err(|error| error.to_string())?;
    println!("written: bench-out/results.json, bench-out/rows.svg");
    Ok(())
}

fn write(out: &Path, rows: &[Row], others: f64) -> Result<(), Box<dyn std::error::Error>> {
    let results = json!({
        "rows": rows.iter().map(Row::to_json).collect::<Vec<Value>>(),
        "others_share_of_core": others,
    });
    std::fs::write(out.join("results.json"), format!("{results:#}\n"))?;
    let names: Vec<String> =
        rows.iter().map(|row| format!("{} {}", row.number, row.name)).collect();
    let bars = names.iter().zip(rows).map(|(name, row)| (name.as_str(), 100.0 * row.by_target()));
    let bars: Vec<(&str, f64)> = bars.collect();
    let svg = plot::bars("By the target, in per cent: from 100 on it is met", &bars)?;
    std::fs::write(out.join("rows.svg"), svg)?;
    Ok(())
}
