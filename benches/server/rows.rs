//! The rows of the table: what is measured, against which target.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::plot;
use crate::process::{Run, Server, ceiling, onnxd, stamp};

/// One line of the table.
struct Row {
    name: &'static str,
    figure: f64,
    unit: &'static str,
    /// Bound and whether it is an upper one.
    target: f64,
    at_most: bool,
}

impl Row {
    fn met(&self) -> bool {
        if self.at_most { self.figure <= self.target } else { self.figure >= self.target }
    }
}

/// How long and how often each load runs.
struct Effort {
    seconds: &'static str,
    runs: usize,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Effort {
    fn load(&self, server: &Server, arguments: &[&str]) -> Result<Vec<Run>, String> {
        let arguments = [arguments, &["--duration", self.seconds]].concat();
        (0..self.runs).map(|_| server.load(&arguments)).collect()
    }

    fn cpu(&self, server: &Server, arguments: &[&str]) -> Result<f64, String> {
        let runs = self.load(server, arguments)?;
        Ok(median(runs.iter().map(|run| run.cpu_micros).collect()))
    }

    fn p50(&self, server: &Server, arguments: &[&str]) -> Result<f64, String> {
        let runs = self.load(server, arguments)?;
        let p50 = |run: &Run| run.figures["latency_us"]["p50"].as_f64().unwrap_or(f64::NAN);
        Ok(median(runs.iter().map(p50).collect()))
    }

    fn rate(&self, server: &Server, arguments: &[&str]) -> Result<f64, String> {
        let runs = self.load(server, arguments)?;
        let rate = |run: &Run| run.figures["answers_per_second"].as_f64().unwrap_or(f64::NAN);
        Ok(median(runs.iter().map(rate).collect()))
    }
}

/// Microseconds of a run of `rows`; of a row at the best size.
fn run_micros(curve: &Value, rows: usize) -> f64 {
    curve[rows.to_string()].as_f64().unwrap_or(f64::NAN)
}

fn best_row_micros(curve: &Value) -> f64 {
    let per_row =
        |(rows, micros): (&String, &Value)| Some(micros.as_f64()? / rows.parse::<f64>().ok()?);
    let all = curve.as_object().into_iter().flatten().filter_map(per_row);
    all.fold(f64::INFINITY, f64::min)
}

/// Models and library of a run.
struct Setting {
    out: PathBuf,
    models: PathBuf,
    library: PathBuf,
}

impl Setting {
    /// Writes the models of the workloads below `bench-out/`.
    fn prepare() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (out, models) = (root.join("bench-out"), root.join("bench-out/models"));
        let io = |error: std::io::Error| error.to_string();
        crate::models::write_mlp(&models, "tiny", &[64, 64, 10]).map_err(io)?;
        crate::models::write_mlp(&models, "rank", &[256, 1024, 1024, 512, 1]).map_err(io)?;
        let magika = models.join("magika/1");
        std::fs::create_dir_all(&magika).map_err(io)?;
        let shipped = root.join("models/magika/1/model.onnx");
        std::fs::copy(shipped, magika.join("model.onnx")).map_err(io)?;
        let library = root.join("target/release/onnxruntime");
        if !library.is_dir() {
            return Err("run `make build` first: no ONNX Runtime".to_owned());
        }
        Ok(Self { out, models, library })
    }

    fn ceiling(&self, name: &str) -> Result<Value, String> {
        ceiling(&self.models.join(name).join("1/model.onnx"), &self.library)
    }
}

/// What was measured, in microseconds unless the name says otherwise.
struct Figures {
    tiny: Value,
    rank: Value,
    magika: Value,
    floor: Floor,
    tiny_cpu: f64,
    tiny_p50: f64,
    stream_cpu: f64,
    rank_cpu: f64,
    rank_p50: f64,
    resident_mib: f64,
    magika_rate: f64,
    start_seconds: f64,
}

impl Figures {
    fn take(setting: &Setting, effort: &Effort) -> Result<Self, String> {
        let clock = Instant::now();
        let say = |what: &str| println!("{} {what}", stamp(&clock));
        say("ceilings");
        let (tiny, rank) = (setting.ceiling("tiny")?, setting.ceiling("rank")?);
        let magika = setting.ceiling("magika")?;
        let server = Server::start(&setting.models, &setting.library, &[])?;
        say("floor");
        let floor = floor_figures(&Server::floor()?, &server, effort)?;
        say("tiny");
        let tiny_cpu = effort.cpu(&server, &["tiny", "--concurrency", "64"])?;
        let tiny_p50 = effort.p50(&server, &["tiny", "--concurrency", "1"])?;
        let stream_cpu = effort.cpu(&server, &["tiny", "--concurrency", "64", "--stream"])?;
        say("rank");
        let mut rank_cpu = f64::INFINITY;
        for callers in ["16", "64", "256"] {
            rank_cpu = rank_cpu.min(effort.cpu(&server, &["rank", "--concurrency", callers])?);
        }
        let rank_p50 = effort.p50(&server, &["rank", "--concurrency", "1"])?;
        let resident_mib = server.resident_mib();
        say("magika");
        let magika_rate = effort.rate(&server, &["magika", "--concurrency", "16"])?;
        drop(server);
        say("start");
        let start_seconds = start_seconds(&setting.models, &setting.library, effort.runs)?;
        Ok(Self {
            tiny,
            rank,
            magika,
            floor,
            tiny_cpu,
            tiny_p50,
            stream_cpu,
            rank_cpu,
            rank_p50,
            resident_mib,
            magika_rate,
            start_seconds,
        })
    }

    /// Answers a second that magika could give.
    fn magika_limit(&self) -> f64 {
        1e6 / (self.floor.cpu + best_row_micros(&self.magika))
    }

    fn rows(&self, binary_mb: f64) -> [Row; 9] {
        let most = |name, figure, unit, target| Row { name, figure, unit, target, at_most: true };
        let least = |name, figure, target| Row { name, figure, unit: "%", target, at_most: false };
        let idle = |p50: f64, curve| p50 / (self.floor.p50 + run_micros(curve, 1));
        let floor = self.floor.cpu;
        let efficiency = 100.0 * (floor + best_row_micros(&self.rank)) / self.rank_cpu;
        let magika = 100.0 * self.magika_rate / self.magika_limit();
        let (rank_idle, tiny_idle) =
            (idle(self.rank_p50, &self.rank), idle(self.tiny_p50, &self.tiny));
        [
            most(
                "1  CPU per request over the floor, tiny, 64 callers",
                self.tiny_cpu / floor,
                "x",
                2.5,
            ),
            least("2  efficiency, rank, best load", efficiency, 60.0),
            most("3a idle p50 over floor and run, rank", rank_idle, "x", 1.15),
            most("3b idle p50 over floor and run, tiny", tiny_idle, "x", 1.25),
            least("4  rate over the limit, magika, 16 callers", magika, 88.0),
            most("8  process start to banner, rank", self.start_seconds, "s", 1.0),
            most("9  resident memory after 256 callers, 3 models", self.resident_mib, "MiB", 140.0),
            most("10 binary", binary_mb, "MB", 12.0),
            most(
                "11 CPU per streamed message over the floor, tiny",
                self.stream_cpu / floor,
                "x",
                0.7,
            ),
        ]
    }

    fn write(&self, out: &Path, table: &[Row]) -> std::io::Result<()> {
        let line = |row: &Row| json!({ "row": row.name, "figure": row.figure, "unit": row.unit, "target": row.target, "met": row.met() });
        let results = json!({
            "rows": table.iter().map(line).collect::<Vec<Value>>(),
            "floor_us": { "cpu": self.floor.cpu, "p50": self.floor.p50 },
            "cpu_us": { "tiny": self.tiny_cpu, "stream": self.stream_cpu, "rank": self.rank_cpu },
            "run_us_by_rows": { "tiny": self.tiny, "rank": self.rank, "magika": self.magika },
        });
        std::fs::write(out.join("results.json"), format!("{results:#}\n"))?;
        let bars = [
            ("floor", self.floor.cpu),
            ("tiny", self.tiny_cpu),
            ("tiny, streamed", self.stream_cpu),
            ("rank", self.rank_cpu),
        ];
        let svg = plot::bars("CPU per request in microseconds, one core", &bars);
        std::fs::write(out.join("overhead.svg"), svg)
    }
}

/// Runs everything.
pub(crate) fn measure(quick: bool) -> Result<(), String> {
    let effort =
        if quick { Effort { seconds: "1", runs: 1 } } else { Effort { seconds: "3", runs: 3 } };
    let setting = Setting::prepare()?;
    let figures = Figures::take(&setting, &effort)?;
    let bytes = std::fs::metadata(onnxd()).map_err(|error| error.to_string())?.len();
    let table = figures.rows(f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1e6);
    print_table(&table);
    println!(
        "\nfloor {:.1} us of CPU, p50 {:.0} us; tiny {:.1} us, streamed {:.1} us; rank {:.1} us; \
         magika {:.0}/s of {:.0}/s",
        figures.floor.cpu,
        figures.floor.p50,
        figures.tiny_cpu,
        figures.stream_cpu,
        figures.rank_cpu,
        figures.magika_rate,
        figures.magika_limit(),
    );
    figures.write(&setting.out, &table).map_err(|error| error.to_string())?;
    println!("written: bench-out/results.json, bench-out/overhead.svg");
    Ok(())
}

struct Floor {
    cpu: f64,
    p50: f64,
}

/// The floor cannot describe its models, so `onnxd bench` asks a real server for the message.
fn floor_figures(floor: &Server, describer: &Server, effort: &Effort) -> Result<Floor, String> {
    let arguments = |callers| ["tiny", "--concurrency", callers, "--describe", &describer.address];
    let cpu = effort.cpu(floor, &arguments("64"))?;
    let p50 = effort.p50(floor, &arguments("1"))?;
    Ok(Floor { cpu, p50 })
}

fn start_seconds(models: &Path, library: &Path, runs: usize) -> Result<f64, String> {
    let alone = models.with_file_name("start");
    let folder = alone.join("rank/1");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    std::fs::copy(models.join("rank/1/model.onnx"), folder.join("model.onnx"))
        .map_err(|error| error.to_string())?;
    let started: Result<Vec<f64>, String> =
        (0..runs).map(|_| Ok(Server::start(&alone, library, &[])?.started_in)).collect();
    Ok(median(started?))
}

fn print_table(table: &[Row]) {
    println!("\n{:<54} {:>10}  {:>10}", "row", "figure", "target");
    for row in table {
        let bound = if row.at_most { "<=" } else { ">=" };
        let verdict = if row.met() { "met" } else { "MISSED" };
        let target = format!("{bound} {}", row.target);
        println!("{:<54} {:>7.2} {:<3} {target:>9}  {verdict}", row.name, row.figure, row.unit);
    }
}
