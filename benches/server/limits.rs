//! Rows 1, 2, 3, 6 and 11: the server against the floor and the ceiling.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::row::Row;
use crate::row::Target::{self, AtLeast, AtMost};
use crate::run::{Run, Server, ceiling};
use crate::setting::Setting;
use crate::turns;

/// Loads by name, and whether each goes to the floor.
const LOADS: [(&str, bool, &[&str]); 11] = [
    ("floor 64", true, &["tiny", "--concurrency", "64"]),
    ("tiny 64", false, &["tiny", "--concurrency", "64"]),
    ("stream 64", false, &["tiny", "--concurrency", "64", "--stream"]),
    ("rank 16", false, &["rank", "--concurrency", "16"]),
    ("rank 64", false, &["rank", "--concurrency", "64"]),
    ("rank 256", false, &["rank", "--concurrency", "256"]),
    ("floor 1", true, &["tiny", "--concurrency", "1"]),
    ("tiny 1", false, &["tiny", "--concurrency", "1"]),
    ("rank 1", false, &["rank", "--concurrency", "1"]),
    ("floor image", true, &["image", "--concurrency", "16"]),
    ("image 16", false, &["image", "--concurrency", "16"]),
];

/// What one turn of loads showed.
type Runs = BTreeMap<&'static str, Run>;

/// What the server is held against, measured before and after each turn of its loads.
struct Rivals {
    floors: Runs,
    /// Microseconds of a run by rows for each model.
    curves: BTreeMap<&'static str, Value>,
}

/// The server's loads, and its rivals at about that time.
struct Round<'a> {
    loads: &'a Runs,
    rivals: &'a Rivals,
}

impl Round<'_> {
    fn run(&self, load: &str) -> &Run {
        self.loads.get(load).unwrap_or_else(|| &self.rivals.floors[load])
    }

    fn cpu(&self, load: &str) -> f64 {
        self.run(load).cpu_micros
    }

    fn p50(&self, load: &str) -> f64 {
        self.run(load).p50_micros
    }

    /// Of a run of one row.
    fn single(&self, model: &str) -> f64 {
        self.rivals.curves[model]["1"].as_f64().unwrap_or(f64::NAN)
    }

    /// Of a row at the best size.
    fn best_row(&self, model: &str) -> f64 {
        let per_row =
            |(rows, micros): (&String, &Value)| Some(micros.as_f64()? / rows.parse::<f64>().ok()?);
        let all = self.rivals.curves[model].as_object().into_iter().flatten().filter_map(per_row);
        all.fold(f64::INFINITY, f64::min)
    }

    /// Share of the CPU time that the floor and the runs by themselves would take, in per cent.
    fn efficiency(&self, floor: &str, model: &str, load: &str) -> f64 {
        100.0 * (self.cpu(floor) + self.best_row(model)) / self.cpu(load)
    }
}

/// A row before it is measured.
struct Wanted {
    number: &'static str,
    name: &'static str,
    target: (&'static str, Target),
    loads: &'static [&'static str],
    models: &'static [&'static str],
    figure: fn(&Round<'_>) -> f64,
}

const ROWS: [Wanted; 6] = [
    Wanted {
        number: "1",
        name: "CPU per request over the floor, tiny, 64 callers",
        target: ("x", AtMost(1.5)),
        loads: &["floor 64", "tiny 64"],
        models: &[],
        figure: |round| round.cpu("tiny 64") / round.cpu("floor 64"),
    },
    Wanted {
        number: "2",
        name: "efficiency, rank, best load",
        target: ("%", AtLeast(80.0)),
        loads: &["floor 64", "rank 16", "rank 64", "rank 256"],
        models: &["rank"],
        figure: |round| {
            let loads = ["rank 16", "rank 64", "rank 256"];
            let efficiencies = loads.map(|load| round.efficiency("floor 64", "rank", load));
            efficiencies.into_iter().fold(f64::NAN, f64::max)
        },
    },
    Wanted {
        number: "3",
        name: "idle p50 over floor and run, rank",
        target: ("x", AtMost(1.15)),
        loads: &["floor 1", "rank 1"],
        models: &["rank"],
        figure: |round| round.p50("rank 1") / (round.p50("floor 1") + round.single("rank")),
    },
    Wanted {
        number: "3",
        name: "idle p50 over floor and run, tiny",
        target: ("x", AtMost(1.25)),
        loads: &["floor 1", "tiny 1"],
        models: &["tiny"],
        figure: |round| round.p50("tiny 1") / (round.p50("floor 1") + round.single("tiny")),
    },
    Wanted {
        number: "6",
        name: "efficiency, image, 16 callers",
        target: ("%", AtLeast(88.0)),
        loads: &["floor image", "image 16"],
        models: &["image"],
        figure: |round| round.efficiency("floor image", "image", "image 16"),
    },
    Wanted {
        number: "11",
        name: "CPU per streamed message over the floor, tiny, 64 in flight",
        target: ("x", AtMost(0.7)),
        loads: &["floor 64", "stream 64"],
        models: &[],
        figure: |round| round.cpu("stream 64") / round.cpu("floor 64"),
    },
];

/// Writes per answer from which on the floor is no floor: a generator that keeps it from bundling
/// its answers makes it cost as much as the generator itself.
const SINGLY: f64 = 0.25;

/// Server and floor.
struct Bench<'a> {
    setting: &'a Setting,
    server: Server,
    floor: Server,
}

impl Bench<'_> {
    /// The loads of a row.
    fn runs(&self, row: &Wanted, on_floor: bool) -> Result<Runs, String> {
        let mut runs = Runs::new();
        for (name, floor, arguments) in LOADS {
            if floor != on_floor || !row.loads.contains(&name) {
                continue;
            }
            let arguments = [arguments, &["--duration", self.setting.effort.seconds]].concat();
            let run = if on_floor {
                // The floor cannot describe its models: the server does.
                let describe = ["--describe", self.server.address.as_str()];
                self.floor.load(&[&arguments[..], &describe].concat())?
            } else {
                self.server.load(&arguments)?
            };
            runs.insert(name, run);
        }
        Ok(runs)
    }

    fn rivals(&self, row: &Wanted) -> Result<Rivals, String> {
        let mut curves = BTreeMap::new();
        for model in row.models {
            let file = self.setting.model(model);
            curves.insert(*model, ceiling(&file, &self.setting.library, &[])?);
        }
        Ok(Rivals { floors: self.runs(row, true)?, curves })
    }

    /// The loads of a row, and its rivals before each turn and after the last.
    fn turns(&self, row: &Wanted) -> Result<(Vec<Runs>, Vec<Rivals>), String> {
        let rounds = self.setting.effort.rounds;
        let (mut loads, mut rivals) = (Vec::new(), vec![self.rivals(row)?]);
        for round in 1..=rounds {
            self.setting.say(&format!("{}, round {round} of {rounds}", row.name));
            loads.push(self.runs(row, false)?);
            rivals.push(self.rivals(row)?);
        }
        Ok((loads, rivals))
    }
}

/// Measures what these rows need and no more.
pub(crate) fn rows(setting: &Setting, wants: &dyn Fn(&str) -> bool) -> Result<Vec<Row>, String> {
    let models = setting.repository(&["tiny", "rank", "magika", "image"], "")?;
    let server = Server::start(&models, &setting.log())?;
    let bench = Bench { setting, server, floor: Server::floor()? };
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for row in ROWS.iter().filter(|row| wants(row.number)) {
        let (loads, rivals) = bench.turns(row)?;
        let around = loads.iter().zip(rivals.windows(2));
        let shares = around.map(|(loads, rivals)| {
            [&rivals[0], &rivals[1]].map(|rivals| (row.figure)(&Round { loads, rivals }))
        });
        rows.push(Row::new(row.number, row.name, turns::steady(shares.collect()), row.target));
        all.extend(loads);
        all.extend(rivals.into_iter().map(|rivals| rivals.floors));
    }
    tell(&all);
    Ok(rows)
}

/// What lies behind the ratios.
fn tell(turns: &[Runs]) {
    println!(
        "\n{:<12} {:>9} {:>9} {:>10} {:>7}",
        "load", "CPU us", "p50 us", "answers/s", "writes"
    );
    for (name, ..) in LOADS {
        let runs: Vec<&Run> = turns.iter().filter_map(|runs| runs.get(name)).collect();
        let typical = |figure: fn(&Run) -> f64| {
            crate::row::median(runs.iter().map(|run| figure(run)).collect())
        };
        if runs.is_empty() {
            continue;
        }
        let writes = typical(|run| run.writes);
        println!(
            "{name:<12} {:>9.1} {:>9.0} {:>10.0} {writes:>7.2}",
            typical(|run| run.cpu_micros),
            typical(|run| run.p50_micros),
            typical(|run| run.rate),
        );
        if name == "floor 64" && writes > SINGLY {
            println!("WARNING: the floor answered one by one, so rows 1, 2 and 11 look too good");
        }
    }
}
