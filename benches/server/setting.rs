//! What a run of the bench has: models, the library, an output folder, its effort, its log.

use std::cell::Cell;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

/// How long and how often each load runs.
pub(crate) struct Effort {
    pub(crate) seconds: &'static str,
    pub(crate) rounds: usize,
    /// Of the rows whose loads need many servers.
    pub(crate) few_rounds: usize,
    /// Largest batches that are set by hand.
    pub(crate) sizes: &'static [usize],
}

impl Effort {
    pub(crate) const FULL: Self =
        Self { seconds: "3", rounds: 5, few_rounds: 3, sizes: &[2, 4, 8, 16, 32, 64] };
    pub(crate) const QUICK: Self =
        Self { seconds: "1.5", rounds: 1, few_rounds: 1, sizes: &[4, 64] };
}

/// A workload: a model and the load that suits it.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) model: &'static str,
    /// Arguments of `onnxd bench`.
    pub(crate) load: &'static [&'static str],
    /// Seconds of this load before any that counts: first runs of all sizes.
    pub(crate) warm_up: &'static str,
}

/// What suits a model whose requests are all of one size.
const ONE_SIZE: &str = "1.5";

/// The five workloads: batches pay much, much, not at all, hardly, hardly.
pub(crate) const WORKLOADS: [Workload; 5] = [
    Workload { model: "tiny", load: &["tiny", "--concurrency", "64"], warm_up: ONE_SIZE },
    Workload { model: "rank", load: &["rank", "--concurrency", "64"], warm_up: ONE_SIZE },
    Workload { model: "magika", load: &["magika", "--concurrency", "16"], warm_up: ONE_SIZE },
    Workload { model: "image", load: &["image", "--concurrency", "16"], warm_up: ONE_SIZE },
    TEXT,
];
/// Texts of mixed lengths. All tokens are real: what a run of this model takes follows from its mask,
/// too.
pub(crate) const TEXT: Workload = Workload {
    model: "text_mixed",
    load: &["text_mixed", "--concurrency", "16", "--lengths", "8..128", "--value", TEXT_MASK],
    // Each of 121 lengths, in batches of several sizes.
    warm_up: "10",
};
/// The mask of a text without padding.
pub(crate) const TEXT_MASK: &str = "attention_mask=1";
/// Says how texts are padded, which no server can know by itself.
const TEXT_RULES: &str = "
[inputs.input_ids]
pad = { axis = 1, value = 0 }
example_shape = [1, 64]
[inputs.attention_mask]
pad = { axis = 1, value = 0 }
example_value = 1
[outputs.token_scores]
cut = { axis = 1 }
";

/// Folder of the models that are made here.
const PERCEPTRONS: &str = "perceptrons";
/// Folder of the repositories, each by its number.
const SERVED: &str = "served";
/// What the servers of a run say.
const LOG: &str = "server.log";

/// What a run of the bench has.
pub(crate) struct Setting {
    pub(crate) out: PathBuf,
    pub(crate) library: PathBuf,
    pub(crate) effort: Effort,
    begun_at: Instant,
    /// Repositories made so far.
    repositories: Cell<usize>,
}

impl Setting {
    /// Writes what models are missing below `bench-out/`.
    pub(crate) fn prepare(effort: Effort) -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = root.join("bench-out");
        let made = out.join("models");
        if !made.join("image").is_dir() {
            return Err(format!("no models in {}: `make bench` makes them", made.display()));
        }
        let io = |error: std::io::Error| error.to_string();
        let served = out.join(SERVED);
        if served.exists() {
            std::fs::remove_dir_all(&served).map_err(io)?;
        }
        std::fs::write(out.join(LOG), "").map_err(io)?;
        let own = out.join(PERCEPTRONS);
        crate::models::write_mlp(&own, "tiny", &[64, 64, 10]).map_err(io)?;
        crate::models::write_mlp(&own, "rank", &[256, 1024, 1024, 512, 1]).map_err(io)?;
        let library = crate::run::onnxd().with_file_name("onnxruntime");
        if !library.is_dir() {
            return Err(format!("no ONNX Runtime in {}: `make build` first", library.display()));
        }
        Ok(Self { out, library, effort, begun_at: Instant::now(), repositories: Cell::new(0) })
    }

    /// Tells what is being done.
    pub(crate) fn say(&self, what: &str) {
        println!("[{:>3.0} s] {what}", self.begun_at.elapsed().as_secs_f64());
    }

    /// Where the servers' logs go.
    pub(crate) fn log(&self) -> PathBuf {
        self.out.join(LOG)
    }

    /// The file of a model.
    pub(crate) fn model(&self, name: &str) -> PathBuf {
        self.source(name).join("1/model.onnx")
    }

    fn source(&self, name: &str) -> PathBuf {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let folders = [shipped, self.out.join("models"), self.out.join(PERCEPTRONS)];
        let sources = folders.map(|folder| folder.join(name));
        let there = sources.iter().find(|source| source.is_dir());
        there.unwrap_or(&sources[0]).clone()
    }

    /// A new repository of these models, with `settings` over their own.
    pub(crate) fn repository(&self, names: &[&str], settings: &str) -> Result<PathBuf, String> {
        let made_before = self.repositories.get();
        self.repositories.set(made_before + 1);
        let root = self.out.join(SERVED).join(made_before.to_string());
        let io = |error: std::io::Error| error.to_string();
        for name in names {
            let (source, target) = (self.source(name), root.join(name));
            std::fs::create_dir_all(&target).map_err(io)?;
            for entry in std::fs::read_dir(&source).map_err(io)? {
                let name = entry.map_err(io)?.file_name();
                if name != "model.toml" {
                    symlink(source.join(&name), target.join(&name)).map_err(io)?;
                }
            }
            let own = std::fs::read_to_string(source.join("model.toml")).unwrap_or_default();
            let rules = if *name == TEXT.model { TEXT_RULES } else { "" };
            let text = format!("{settings}\n{own}\n{rules}");
            std::fs::write(target.join("model.toml"), text).map_err(io)?;
        }
        Ok(root)
    }
}
