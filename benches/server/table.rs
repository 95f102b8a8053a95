//! The rows of the table: what each figure is, and its target.

use std::path::Path;

use onnxd::bench::plot;
use serde_json::{Value, json};

use crate::figures::{Effort, Figures, Setting, best_row, single};
use crate::process::{Run, onnxd};

/// What a figure is held to.
enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown beside the others; nobody set a target.
    None,
}

/// One line of the table.
struct Row {
    number: &'static str,
    name: &'static str,
    /// One per round; the median counts.
    figures: Vec<f64>,
    unit: &'static str,
    /// The final target, and the one of this stage where it differs.
    target: Target,
    stage: Option<f64>,
}

impl Row {
    fn figure(&self) -> f64 {
        median(self.figures.clone())
    }

    fn range(&self) -> [f64; 2] {
        let fold =
            |start, pick: fn(f64, f64) -> f64| self.figures.iter().copied().fold(start, pick);
        [fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max)]
    }

    fn holds(&self, bound: Option<f64>) -> Option<bool> {
        match self.target {
            Target::AtMost(last) => Some(self.figure() <= bound.unwrap_or(last)),
            Target::AtLeast(last) => Some(self.figure() >= bound.unwrap_or(last)),
            Target::None => None,
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.holds(None), self.holds(self.stage)) {
            (None, _) => "-",
            (Some(true), _) => "met",
            (Some(false), Some(true)) => "met for this stage only",
            _ => "MISSED",
        }
    }

    fn bound(&self) -> String {
        match self.target {
            Target::AtMost(last) => format!("<= {last}"),
            Target::AtLeast(last) => format!(">= {last}"),
            Target::None => "-".to_owned(),
        }
    }

    fn to_json(&self) -> Value {
        let target = match self.target {
            Target::AtMost(bound) | Target::AtLeast(bound) => Some(bound),
            Target::None => None,
        };
        json!({
            "row": self.number,
            "name": self.name,
            "figure": self.figure(),
            "range": self.range(),
            "unit": self.unit,
            "target": target,
            "stage_target": self.stage,
            "met": self.holds(None),
        })
    }
}

/// The middle value; of an even number of them the upper one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cpu(run: &Run) -> f64 {
    run.cpu_micros
}

fn p50(run: &Run) -> f64 {
    run.p50_micros
}

/// Rank at the load that costs it least.
fn best_rank(figures: &Figures) -> &'static str {
    let cost = |load: &&str| figures.typical(load, cpu);
    let loads = ["rank 16", "rank 64", "rank 256"];
    loads.into_iter().min_by(|one, other| cost(one).total_cmp(&cost(other))).unwrap_or("rank 64")
}

/// Rows that come from loads: overhead, efficiency, idle latency.
fn load_rows(figures: &Figures) -> Vec<Row> {
    let over_floor = |load| figures.paired([load, "floor 64"], |run, floor| cpu(run) / cpu(floor));
    let idle = |load, model| {
        figures.held_against([load, "floor 1"], (model, single), |run, floor, micros| {
            p50(run) / (p50(floor) + micros)
        })
    };
    let row = |number, name, figures, unit, target| Row {
        number,
        name,
        figures,
        unit,
        target,
        stage: None,
    };
    let rank = [best_rank(figures), "floor 64"];
    let efficiency = figures.held_against(rank, ("rank", best_row), |run, floor, micros| {
        100.0 * (cpu(floor) + micros) / cpu(run)
    });
    let magika = ["magika 16", "floor 64"];
    let of_limit = figures.held_against(magika, ("magika", best_row), |run, floor, micros| {
        100.0 * run.rate * (cpu(floor) + micros) / 1e6
    });
    let overhead = row(
        "1",
        "CPU per request over the floor, tiny, 64 callers",
        over_floor("tiny 64"),
        "x",
        Target::AtMost(1.5),
    );
    let efficiency =
        row("2", "efficiency, rank, best load", efficiency, "%", Target::AtLeast(80.0));
    vec![
        Row { stage: Some(2.5), ..overhead },
        Row { stage: Some(60.0), ..efficiency },
        row(
            "3",
            "idle p50 over floor and run, rank",
            idle("rank 1", "rank"),
            "x",
            Target::AtMost(1.15),
        ),
        row(
            "3",
            "idle p50 over floor and run, tiny",
            idle("tiny 1", "tiny"),
            "x",
            Target::AtMost(1.25),
        ),
        row(
            "11",
            "CPU per streamed message over the floor, tiny",
            over_floor("stream 64"),
            "x",
            Target::AtMost(0.7),
        ),
        row("", "rate over the limit, magika, 16 callers", of_limit, "%", Target::None),
    ]
}

/// Rows that come from the process and the file.
fn process_rows(figures: &Figures, binary_mb: f64) -> Vec<Row> {
    let row = |number, name, figures, unit, bound| Row {
        number,
        name,
        figures,
        unit,
        target: Target::AtMost(bound),
        stage: None,
    };
    let (seconds, resident) = (figures.start_seconds.clone(), figures.resident_mb.clone());
    vec![
        row("8", "process start to first right answer, rank", seconds, "s", 0.08),
        row("9", "resident memory after 256 callers, rank", resident, "MB", 65.0),
        row("10", "binary without the ONNX Runtime library", vec![binary_mb], "MB", 12.0),
    ]
}

/// Runs everything.
pub(crate) fn measure(quick: bool) -> Result<(), String> {
    let effort = if quick {
        Effort { seconds: "1.5", rounds: 1, starts: 1 }
    } else {
        Effort { seconds: "3", rounds: 5, starts: 5 }
    };
    let setting = Setting::prepare()?;
    let bytes = std::fs::metadata(onnxd()).map_err(|error| error.to_string())?.len();
    let binary_mb = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6;
    let figures = Figures::take(&setting, &effort)?;
    let mut rows = load_rows(&figures);
    rows.extend(process_rows(&figures, binary_mb));
    print(&rows, &figures);
    write(&setting.out, &rows, &figures).map_err(|error| error.to_string())?;
    println!("written: bench-out/results.json, bench-out/overhead.svg");
    Ok(())
}

fn print(rows: &[Row], figures: &Figures) {
    println!("\n{:<3} {:<50} {:>8}     {:>13} {:>8}", "row", "figure", "median", "range", "target");
    for row in rows {
        let Row { number, name, unit, .. } = row;
        let (figure, [low, high]) = (row.figure(), row.range());
        let (bound, verdict) = (row.bound(), row.verdict());
        let range = format!("{low:.2}-{high:.2}");
        println!(
            "{number:<3} {name:<50} {figure:>8.2} {unit:<3} {range:>13} {bound:>8}  {verdict}"
        );
    }
    let micros = |load| figures.typical(load, cpu);
    println!(
        "\nCPU per request: floor {:.1} us, tiny {:.1} us, streamed {:.1} us, rank {:.1} us ({})",
        micros("floor 64"),
        micros("tiny 64"),
        micros("stream 64"),
        micros(best_rank(figures)),
        best_rank(figures),
    );
    println!(
        "p50 of one caller: floor {:.0} us, tiny {:.0} us, rank {:.0} us; run of one row: tiny \
         {:.1} us, rank {:.1} us; best row: rank {:.1} us, magika {:.0} us",
        figures.typical("floor 1", p50),
        figures.typical("tiny 1", p50),
        figures.typical("rank 1", p50),
        figures.ceiling("tiny", single),
        figures.ceiling("rank", single),
        figures.ceiling("rank", best_row),
        figures.ceiling("magika", best_row),
    );
    let writes = |load| figures.typical(load, |run| run.writes);
    println!(
        "writes per answer: floor {:.2}, tiny {:.2}, streamed {:.2}; load generator on the floor: \
         {:.0} % of its core",
        writes("floor 64"),
        writes("tiny 64"),
        writes("stream 64"),
        100.0 * figures.typical("floor 64", |run| run.generator_share),
    );
    if writes("floor 64") > SINGLY {
        println!("WARNING: the floor answered one by one, so rows 1, 2 and 11 look too good");
    }
    let others = figures.others_share();
    println!("other processes: {:.0} % of a core", 100.0 * others);
    if others > DISTURBED {
        println!(
            "WARNING: the machine had other work; idle latencies, starts and rates are too bad"
        );
    }
}

/// Writes per answer from which on the floor is no floor: a generator that keeps it from bundling
/// its answers makes it cost as much as the generator itself.
const SINGLY: f64 = 0.25;
/// Share of a core from which on others disturb.
const DISTURBED: f64 = 0.1;

fn write(out: &Path, rows: &[Row], figures: &Figures) -> Result<(), Box<dyn std::error::Error>> {
    let micros = |load| figures.typical(load, cpu);
    let results = json!({
        "rows": rows.iter().map(Row::to_json).collect::<Vec<Value>>(),
        "cpu_us": {
            "floor": micros("floor 64"),
            "tiny": micros("tiny 64"),
            "stream": micros("stream 64"),
            "rank": micros(best_rank(figures)),
        },
        "idle_p50_us": {
            "floor": figures.typical("floor 1", p50),
            "tiny": figures.typical("tiny 1", p50),
            "rank": figures.typical("rank 1", p50),
        },
        "writes_per_answer": {
            "floor": figures.typical("floor 64", |run| run.writes),
            "tiny": figures.typical("tiny 64", |run| run.writes),
            "stream": figures.typical("stream 64", |run| run.writes),
        },
        "generator_share_of_core": figures.typical("floor 64", |run| run.generator_share),
        "others_share_of_core": figures.others_share(),
        "run_us_by_rows": figures.curves,
    });
    std::fs::write(out.join("results.json"), format!("{results:#}\n"))?;
    let bars = [
        ("floor", micros("floor 64")),
        ("tiny", micros("tiny 64")),
        ("tiny, streamed", micros("stream 64")),
        ("rank", micros(best_rank(figures))),
    ];
    let svg = plot::bars("CPU per request in microseconds, one core", &bars)?;
    std::fs::write(out.join("overhead.svg"), svg)?;
    Ok(())
}
