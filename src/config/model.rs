//! Settings of one model: the server's defaults and, over them, the model's own `model.toml`.
//!
//! A model needs no file. The file is for what cannot be read from the model: how to batch, where
//! to run, which axis holds the rows when the graph does not say, what rows of different length are
//! padded with. All mistakes are reported at once, with their keys. Triton's `config.pbtxt` says the same and is read in [`super::triton`].

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::{ConfigErrors, values};
use crate::model::axes::AxisOverride;
use crate::model::declared::Declared;
use crate::model::ragged::RaggedRules;
use crate::repository::version_policy::VersionPolicy;

mod tensors;

/// Settings of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// How far requests are put together.
    pub batching: Batching,
    /// Most rows in a run.
    pub max_batch_size: usize,
    /// Most rows in a request; it runs in parts if it has more than a run.
    pub max_request_rows: usize,
    /// Longest wait for company while a worker is free.
    pub max_queue_delay: Duration,
    /// Sizes to cut as soon as that many rows wait, rising, where batching is fixed.
    pub preferred_batch_sizes: Vec<usize>,
    /// Whether answers go out in the order in which their runs began.
    pub preserve_ordering: bool,
    /// Requests that may wait; `None` goes by instances and rows.
    pub max_queue_jobs: Option<NonZeroUsize>,
    /// Priority of requests that state none; 1 is the most urgent.
    pub default_priority: u64,
    /// Memory for answers that are kept, per version; 0 for none.
    pub response_cache_bytes: usize,
    /// Whether equal requests in flight run once even where no answers are kept.
    pub coalesce: bool,
    /// Who shares answers and runs.
    pub cache_scope: CacheScope,
    /// Workers per device.
    pub instances: usize,
    /// How far the graph is rewritten when it is loaded.
    pub graph_optimization: GraphOptimization,
    /// Threads inside a run; `None` divides the processors by the instances.
    pub intra_op_threads: Option<NonZeroUsize>,
    /// Execution providers in order of preference.
    pub providers: Vec<Provider>,
    /// Options that are passed to a provider as they are.
    pub provider_options: BTreeMap<Provider, BTreeMap<String, String>>,
    /// GPUs to place instances on.
    pub device_ids: Vec<i32>,
    /// Time for first runs and measuring.
    pub warmup: Duration,
    /// A run that lasts longer hangs; `None` for twice the longest deadline.
    pub hang_timeout: Option<Duration>,
    /// Versions that are served.
    pub version_policy: VersionPolicy,
    /// What the file says of the axes of single tensors.
    pub axes: BTreeMap<String, AxisOverride>,
    /// What the file says of rows of different length.
    pub ragged: RaggedRules,
    /// Shapes of a usual request, for first runs and measuring, by input.
    pub examples: BTreeMap<String, Vec<i64>>,
    /// The value of every element in first runs, as written, by input.
    pub example_values: BTreeMap<String, String>,
    /// Files in the model's folder that name the values of outputs, one name a line, by output.
    pub label_files: BTreeMap<String, String>,
    /// What a `config.pbtxt` says of the tensors, to be held against the model.
    pub declared: Declared,
    /// Name of the model's file inside a version's folder.
    pub model_file: String,
}

/// How far requests are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Where first runs show that rows are independent; as far as it pays, measured then.
    Auto,
    /// Up to the maximum.
    Fixed,
    /// Not at all.
    Off,
}

impl Batching {
    const NAMES: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("fixed", Self::Fixed), ("off", Self::Off)];

    /// Name in settings and on the operator's port.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fixed => "fixed",
            Self::Off => "off",
        }
    }
}

/// Who shares answers that are kept, and runs that answer several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheScope {
    /// Every caller.
    All,
    /// Each tenant has its own; a request whose tenant is not known shares nothing.
    Tenant,
}

/// How far the graph is rewritten when it is loaded, in ONNX Runtime's own steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphOptimization {
    /// As far as it can be.
    All,
    /// Without changes of the memory layout.
    Extended,
    /// Only what keeps every node's meaning.
    Basic,
    /// Not at all.
    Off,
}

impl GraphOptimization {
    const NAMES: [(&'static str, Self); 4] = [
        ("all", Self::All),
        ("extended", Self::Extended),
        ("basic", Self::Basic),
        ("off", Self::Off),
    ];

    /// Name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Extended => "extended",
            Self::Basic => "basic",
            Self::Off => "off",
        }
    }
}

/// Name of the model's file where no settings say another.
pub const MODEL_FILE: &str = "model.onnx";

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// NVIDIA GPUs through CUDA.
    Cuda,
    /// NVIDIA GPUs through TensorRT.
    TensorRt,
}

impl Provider {
    const NAMES: [(&'static str, Self); 3] =
        [("cpu", Self::Cpu), ("cuda", Self::Cuda), ("tensorrt", Self::TensorRt)];

    /// Name in settings, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// Whether it runs on a GPU.
    pub const fn is_gpu(self) -> bool {
        !matches!(self, Self::Cpu)
    }
}

impl ModelConfig {
    /// Everything at zero; the settings table has the defaults that are laid over it.
    pub(super) fn blank() -> Self {
        Self {
            batching: Batching::Auto,
            max_batch_size: 1,
            max_request_rows: 1,
            max_queue_delay: Duration::ZERO,
            preferred_batch_sizes: Vec::new(),
            preserve_ordering: false,
            max_queue_jobs: None,
            default_priority: 1,
            response_cache_bytes: 0,
            coalesce: false,
            cache_scope: CacheScope::All,
            instances: 1,
            graph_optimization: GraphOptimization::All,
            intra_op_threads: None,
            providers: vec![Provider::Cpu],
            provider_options: BTreeMap::new(),
            device_ids: vec![0],
            warmup: Duration::ZERO,
            hang_timeout: None,
            version_policy: VersionPolicy::Latest(NonZeroUsize::MIN),
            axes: BTreeMap::new(),
            ragged: RaggedRules::default(),
            examples: BTreeMap::new(),
            example_values: BTreeMap::new(),
            label_files: BTreeMap::new(),
            declared: Declared::default(),
            model_file: MODEL_FILE.to_owned(),
        }
    }

    /// Sets one of the settings of [`super::settings::MODEL`].
    pub(super) fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        match key {
            "batching" => self.batching = values::choice(text, &Batching::NAMES)?,
            "max_batch_size" => self.max_batch_size = values::number(text, 1)?,
            "max_request_rows" => self.max_request_rows = values::number(text, 1)?,
            "max_queue_delay_us" => self.max_queue_delay = values::micros(text)?,
            "preferred_batch_sizes" => {
                let sizes = if text.trim().is_empty() {
                    Vec::new()
                } else {
                    values::list(text, |size| values::number(size, 1))?
                };
                self.preferred_batch_sizes = sizes;
                self.preferred_batch_sizes.sort_unstable();
            }
            "preserve_ordering" => self.preserve_ordering = values::boolean(text)?,
            "max_queue_jobs" => self.max_queue_jobs = NonZeroUsize::new(values::number(text, 0)?),
            "default_priority" => self.default_priority = values::number(text, 1)?,
            "response_cache_bytes" => self.response_cache_bytes = values::number(text, 0)?,
            "coalesce" => self.coalesce = values::boolean(text)?,
            "cache_scope" => {
                let choices = [("all", CacheScope::All), ("tenant", CacheScope::Tenant)];
                self.cache_scope = values::choice(text, &choices)?;
            }
            "instances" => self.instances = values::number(text, 1)?,
            "intra_op_threads" => {
                self.intra_op_threads = NonZeroUsize::new(values::number(text, 0)?);
            }
            "graph_optimization" => {
                self.graph_optimization = values::choice(text, &GraphOptimization::NAMES)?;
            }
            "providers" => {
                self.providers = values::list(text, |name| values::choice(name, &Provider::NAMES))?;
            }
            "device_ids" => self.device_ids = values::list(text, |id| values::number(id, 0))?,
            "hang_timeout_ms" => {
                self.hang_timeout = Some(values::millis(text)?).filter(|time| !time.is_zero());
            }
            "warmup_ms" => self.warmup = values::millis(text)?,
            _ => return Err("unknown setting".to_owned()),
        }
        Ok(())
    }

    /// Lays the text of a `model.toml` over `defaults`.
    ///
    /// # Errors
    /// All mistakes in the file, each with its key.
    pub fn parse(text: &str, defaults: &Self) -> Result<Self, ConfigErrors> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigErrors::one("model.toml", error.message().to_owned())
        })?;
        let mut config = defaults.clone();
        let mut errors = ConfigErrors::default();
        for (key, value) in &table {
            match (key.as_str(), value) {
                ("inputs" | "outputs", toml::Value::Table(tensors)) => {
                    config.read_tensors(key, tensors, &mut errors);
                }
                ("provider_options", toml::Value::Table(providers)) => {
                    config.read_options(providers, &mut errors);
                }
                ("version_policy", value) => match version_policy(value) {
                    Ok(policy) => config.version_policy = policy,
                    Err(problem) => errors.push(key, problem),
                },
                (key, value) => {
                    let text = super::scalar(value);
                    let set = text.and_then(|text| config.set(key, &text));
                    errors.check(key, set);
                }
            }
        }
        errors.into_result(config)
    }

    fn read_options(&mut self, providers: &toml::Table, errors: &mut ConfigErrors) {
        for (name, options) in providers {
            let key = format!("provider_options.{name}");
            let (provider, options) =
                match (values::choice(name, &Provider::NAMES), options.as_table()) {
                    (Ok(provider), Some(options)) => (provider, options),
                    (Err(problem), _) => {
                        errors.push(&key, problem);
                        continue;
                    }
                    (_, None) => {
                        errors.push(&key, "expected a table of options".to_owned());
                        continue;
                    }
                };
            for (option, value) in options {
                match super::scalar(value) {
                    Ok(text) => {
                        let known = self.provider_options.entry(provider).or_default();
                        known.insert(option.clone(), text);
                    }
                    Err(problem) => errors.push(&format!("{key}.{option}"), problem),
                }
            }
        }
    }
}
fn version_policy(value: &toml::Value) -> Result<VersionPolicy, String> {
    let wrong = || "expected \"all\", { latest = N } or { specific = [N, …] }".to_owned();
    match value {
        toml::Value::String(word) if word == "all" => Ok(VersionPolicy::All),
        toml::Value::Table(table) => match table.iter().collect::<Vec<_>>().as_slice() {
            [(word, toml::Value::Integer(count))] if *word == "latest" => usize::try_from(*count)
                .ok()
                .and_then(NonZeroUsize::new)
                .map(VersionPolicy::Latest)
                .ok_or_else(wrong),
            [(word, toml::Value::Array(versions))] if *word == "specific" => {
                let number = |value: &toml::Value| {
                    let number = u64::try_from(value.as_integer()?).ok()?;
                    crate::model::ModelVersion::new(number)
                };
                let versions: Option<_> = versions.iter().map(number).collect();
                versions.map(VersionPolicy::Specific).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}
