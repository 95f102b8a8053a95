//! Takes the figures: models, ceilings, then rounds of loads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::time::Instant;

use crate::process::{Run, Server, ceiling};
use crate::start::{Expected, first_answer};
use crate::table::median;

/// How long and how often each load runs.
pub(crate) struct Effort {
    pub(crate) seconds: &'static str,
    pub(crate) rounds: usize,
    pub(crate) starts: usize,
}

/// One load: its name, whether it goes to the floor, and the arguments of `onnxd bench`.
type Load = (&'static str, bool, &'static [&'static str]);

/// The loads of a round. Both sides of a ratio are neighbours.
const LOADS: [Load; 10] = [
    ("floor 64", true, &["tiny", "--concurrency", "64"]),
    ("tiny 64", false, &["tiny", "--concurrency", "64"]),
    ("stream 64", false, &["tiny", "--concurrency", "64", "--stream"]),
    ("floor 1", true, &["tiny", "--concurrency", "1"]),
    ("tiny 1", false, &["tiny", "--concurrency", "1"]),
    ("rank 1", false, &["rank", "--concurrency", "1"]),
    ("rank 16", false, &["rank", "--concurrency", "16"]),
    ("rank 64", false, &["rank", "--concurrency", "64"]),
    ("rank 256", false, &["rank", "--concurrency", "256"]),
    ("magika 16", false, &["magika", "--concurrency", "16"]),
];
/// Models whose ceilings are taken.
pub(crate) const MODELS: [&str; 3] = ["tiny", "rank", "magika"];
/// The load after which resident memory is read.
const MEMORY_LOAD: [&str; 3] = ["rank", "--concurrency", "256"];

/// Models, library and output of a run.
pub(crate) struct Setting {
    pub(crate) out: PathBuf,
    models: PathBuf,
    /// A repository of one model.
    rank: PathBuf,
    library: PathBuf,
}

impl Setting {
    /// Writes the models of the workloads below `bench-out/`.
    pub(crate) fn prepare() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = root.join("bench-out");
        let (models, rank) = (out.join("models"), out.join("rank"));
        let io = |error: std::io::Error| error.to_string();
        let widths = [256, 1024, 1024, 512, 1];
        crate::models::write_mlp(&models, "tiny", &[64, 64, 10]).map_err(io)?;
        crate::models::write_mlp(&models, "rank", &widths).map_err(io)?;
        crate::models::write_mlp(&rank, "rank", &widths).map_err(io)?;
        let magika = models.join("magika/1");
        std::fs::create_dir_all(&magika).map_err(io)?;
        let shipped = root.join("models/magika/1/model.onnx");
        std::fs::copy(shipped, magika.join("model.onnx")).map_err(io)?;
        let library = crate::process::onnxd().with_file_name("onnxruntime");
        if !library.is_dir() {
            return Err(format!("no ONNX Runtime in {}: `make build` first", library.display()));
        }
        Ok(Self { out, models, rank, library })
    }

    fn log(&self) -> PathBuf {
        self.out.join("server.log")
    }
}

/// What was measured.
pub(crate) struct Figures {
    /// Microseconds of a run by rows; one entry per round, by model.
    pub(crate) curves: BTreeMap<&'static str, Vec<Value>>,
    /// One entry per round, by load.
    runs: BTreeMap<&'static str, Vec<Run>>,
    pub(crate) start_seconds: Vec<f64>,
    pub(crate) resident_mb: Vec<f64>,
}

impl Figures {
    pub(crate) fn take(setting: &Setting, effort: &Effort) -> Result<Self, String> {
        let clock = Instant::now();
        let say = |what: &str| println!("[{:>3.0} s] {what}", clock.elapsed().as_secs_f64());
        let mut curves: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
        let server = Server::start(&setting.models, &setting.log())?;
        let floor = Server::floor()?;
        let describe = ["--describe", server.address.as_str()];
        let mut runs: BTreeMap<&'static str, Vec<Run>> = BTreeMap::new();
        for round in 1..=effort.rounds {
            say(&format!("ceilings and loads, round {round} of {}", effort.rounds));
            for name in MODELS {
                let model = setting.models.join(name).join("1/model.onnx");
                curves.entry(name).or_default().push(ceiling(&model, &setting.library)?);
            }
            for (name, on_floor, arguments) in LOADS {
                let arguments = [arguments, &["--duration", effort.seconds]].concat();
                let run = if on_floor {
                    // The floor cannot describe its models: the server does.
                    floor.load(&[&arguments[..], &describe].concat())?
                } else {
                    server.load(&arguments)?
                };
                runs.entry(name).or_default().push(run);
            }
        }
        let expected = Expected::of(&server, "rank")?;
        drop((server, floor));
        say("starts");
        let (mut seconds, mut resident) = (Vec::new(), Vec::new());
        for _ in 0..effort.starts {
            let (took, server) = first_answer(&setting.rank, &setting.log(), &expected)?;
            seconds.push(took);
            server.load(&[&MEMORY_LOAD[..], &["--duration", effort.seconds]].concat())?;
            resident.push(server.resident_mb());
        }
        Ok(Self { curves, runs, start_seconds: seconds, resident_mb: resident })
    }

    /// Median of a figure over the rounds.
    pub(crate) fn typical(&self, load: &str, figure: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs[load].iter().map(figure).collect())
    }

    /// A figure that takes the runs of two loads in the same round, for each round.
    pub(crate) fn paired(&self, loads: [&str; 2], figure: fn(&Run, &Run) -> f64) -> Vec<f64> {
        let [one, other] = loads.map(|load| &self.runs[load]);
        one.iter().zip(other).map(|(one, other)| figure(one, other)).collect()
    }

    /// The same with a figure of a model's ceiling in that round.
    pub(crate) fn held_against(
        &self,
        loads: [&str; 2],
        ceiling: (&str, fn(&Value) -> f64),
        figure: fn(&Run, &Run, f64) -> f64,
    ) -> Vec<f64> {
        let [one, other] = loads.map(|load| &self.runs[load]);
        let (model, micros) = ceiling;
        let runs = one.iter().zip(other).zip(&self.curves[model]);
        runs.map(|((one, other), curve)| figure(one, other, micros(curve))).collect()
    }

    /// Median of a figure of a model's ceiling.
    pub(crate) fn ceiling(&self, model: &str, micros: fn(&Value) -> f64) -> f64 {
        median(self.curves[model].iter().map(micros).collect())
    }

    /// Median over all loads of the share of a core that others took.
    pub(crate) fn others_share(&self) -> f64 {
        median(self.runs.values().flatten().map(|run| run.others_share).collect())
    }
}

/// Microseconds of a run of one row.
pub(crate) fn single(curve: &Value) -> f64 {
    curve["1"].as_f64().unwrap_or(f64::NAN)
}

/// Microseconds of a row at the best size.
pub(crate) fn best_row(curve: &Value) -> f64 {
    let per_row =
        |(rows, micros): (&String, &Value)| Some(micros.as_f64()? / rows.parse::<f64>().ok()?);
    let all = curve.as_object().into_iter().flatten().filter_map(per_row);
    all.fold(f64::INFINITY, f64::min)
}
