//! Triton's `config.pbtxt`, mapped onto the settings of a model.
//!
//! A model folder that was made for Triton works as it is. The schema is `proto/model_config.proto`
//! and the text is read by `prost-reflect`; here only meanings are translated. A field that changes
//! results and that the server does not have is refused by its name, one that only tunes is left
//! out and named in one warning. All problems of a file are told at once; a text that does not
//! parse has one problem, on the line that is named. What the file says of tensors is held against
//! the model when it is loaded ([`crate::model::declared`]).
//!
//! | field | outcome |
//! | --- | --- |
//! | `name` | must be the folder's name, or empty |
//! | `platform`, `backend` | `onnxruntime_onnx`, `onnxruntime` or empty; anything else is refused |
//! | `max_batch_size` 0 | shapes are complete, requests run one at a time, whatever their size |
//! | `max_batch_size` above 0 | rows on axis 0 of every tensor, left out of the file's shapes; most rows of a request |
//! | `dynamic_batching` | requests are joined up to `max_batch_size`; without it they run one at a time |
//! | … `max_queue_delay_microseconds` | `max_queue_delay_us` |
//! | … `default_queue_policy.max_queue_size` | `max_queue_jobs` |
//! | … `default_priority_level` | `default_priority`; any number of levels is served |
//! | … `allow_timeout_override` | read; a request may always shorten its deadline |
//! | … `preferred_batch_size`, `preserve_ordering` | `preferred_batch_sizes`, `preserve_ordering` |
//! | … policies of single priorities, queue time-outs | ignored |
//! | `input`, `output`: name, `data_type`, `dims` | must fit the model; a size that the graph leaves open is taken over, -1 fits any size |
//! | … `reshape` | `dims` for callers, the other shape for the model; at most one open size |
//! | … `format` | told to clients; no tensor is turned |
//! | … `label_filename` | labels of the output |
//! | … `optional`, `allow_ragged_batch`, shape tensors, device formats | refused |
//! | `batch_input`, `batch_output` | refused |
//! | `instance_group`: `count`, `kind`, `gpus` | instances per device, providers, devices; see below |
//! | … profiles, rate limits, host policies, passive, secondary devices | ignored |
//! | `version_policy` | versions that are served |
//! | `default_model_filename` | file name inside a version's folder; a path is refused |
//! | `optimization.graph.level` | `graph_optimization`: 0 all, 1 extended, -1 basic, 2 off |
//! | `optimization.execution_accelerators` | `tensorrt` and `cuda` on GPUs, with their options; others ignored |
//! | … priority, CUDA graphs, pinned memory, eager batching | ignored |
//! | `model_warmup` | shapes of the first entry, for first runs; values are made up, files, counts and further entries ignored |
//! | `parameters` | `intra_op_thread_count` and `gpu_mem_limit` are read, others ignored |
//! | `sequence_batching`, `ensemble_scheduling`, `model_operations`, `model_repository_agents`, `cc_model_filenames`, `runtime`, decoupled answers | refused |
//! | `response_cache.enable` | `response_cache_bytes`: the server's default, or 64 MiB where that is 0 |
//! | `metric_tags`, `model_metrics` | ignored |
//!
//! A file that says neither `max_batch_size` nor any tensor leaves both to the server, as Triton
//! fills them in, too: rows are found in the model and batching is what the settings say.
//!
//! Instances of a model run on one kind of device. `KIND_CPU` and `KIND_GPU` say which; `KIND_AUTO`
//! and `KIND_MODEL` leave it to the server's settings unless `gpus` or an accelerator names a GPU,
//! and then the processor is the fallback. A GPU group without `gpus` takes the server's devices.
//!
//! Source: Triton Inference Server, model configuration; `proto/model_config.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use prost_reflect::Value;

use super::model::{Batching, GraphOptimization, ModelConfig};
use super::{ConfigErrors, values};
use crate::model::declared::{Declared, DeclaredRows};
use crate::model::{ModelVersion, quoted};
use crate::repository::version_policy::VersionPolicy;

mod fields;
mod message;
mod placement;
mod tensors;
mod text;

use message::Node;
pub(crate) use text::MAX_BYTES;

/// Most problems and names that are listed of one file.
const MAX_LISTED: usize = 32;

/// Memory for kept answers of a model whose file wants a cache, where the server's settings give
/// no size.
const RESPONSE_CACHE_BYTES: usize = 64 << 20;

/// Settings from a file, and what the file says besides.
#[derive(Debug)]
pub struct Imported {
    /// The settings.
    pub config: ModelConfig,
    /// Names of the fields that are left out, with a reason where the name is not enough.
    pub ignored: BTreeSet<String>,
}

impl Imported {
    /// One line with everything that is left out, if anything is.
    pub fn warning(&self) -> Option<String> {
        if self.ignored.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = self.ignored.iter().map(String::as_str).collect();
        let rest = names.len().saturating_sub(MAX_LISTED);
        names.truncate(MAX_LISTED);
        let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
        Some(format!("config.pbtxt: without effect here: {}{more}", names.join(", ")))
    }
}

/// Lays the text of a `config.pbtxt` of the model `name` over `defaults`.
///
/// # Errors
/// All mistakes and refusals, each with its field.
pub fn parse(text: &str, name: &str, defaults: &ModelConfig) -> Result<Imported, ConfigErrors> {
    let message = text::read(text)?;
    let (mut errors, mut ignored) = (ConfigErrors::default(), BTreeSet::new());
    fields::visit(&message, &mut errors, &mut ignored);
    let mut reader = Reader { config: defaults.clone(), errors, ignored };
    reader.read(Node(&message), name);
    let Reader { config, mut errors, ignored } = reader;
    let rest = errors.0.len().saturating_sub(MAX_LISTED);
    if rest > 0 {
        errors.0.truncate(MAX_LISTED);
        errors.push("and", format!("{rest} more problems"));
    }
    errors.into_result(Imported { config, ignored })
}

/// A file on its way to settings.
struct Reader {
    config: ModelConfig,
    errors: ConfigErrors,
    ignored: BTreeSet<String>,
}

impl Reader {
    fn read(&mut self, file: Node<'_>, model: &str) {
        let mut expect = |field: &str, allowed: &str| {
            let said = file.text(field);
            if !said.is_empty() && said != allowed {
                let problem = format!("expected {allowed:?}, got {:?}", quoted(said));
                self.errors.push(field, problem);
            }
        };
        expect("name", model);
        expect("platform", "onnxruntime_onnx");
        expect("backend", "onnxruntime");
        self.read_model_file(file.text("default_model_filename"));
        if let Some(policy) = file.child("version_policy") {
            self.read_versions(policy);
        }
        self.read_rows(file);
        self.config.declared.inputs = self.read_tensors(file, "input");
        self.config.declared.outputs = self.read_tensors(file, "output");
        self.read_warmup(file);
        self.read_placement(file);
        if let Some(graph) = file.child("optimization").and_then(|it| it.child("graph")) {
            self.read_graph_level(graph.number("level"));
        }
        self.read_parameters(file.entries("parameters"));
        if let Some(cache) = file.child("response_cache") {
            self.read_cache(cache.flag("enable"));
        }
    }

    /// Triton gives the size of its one cache on the command line, the file only takes part.
    fn read_cache(&mut self, enable: bool) {
        self.config.response_cache_bytes = match self.config.response_cache_bytes {
            _ if !enable => 0,
            0 => RESPONSE_CACHE_BYTES,
            bytes => bytes,
        };
    }

    fn read_model_file(&mut self, file: &str) {
        if file.is_empty() {
            return;
        }
        if file.contains(['/', '\\', '\0']) || matches!(file, "." | "..") {
            let problem = format!("expected the name of a file, got {:?}", quoted(file));
            self.errors.push("default_model_filename", problem);
        } else {
            file.clone_into(&mut self.config.model_file);
        }
    }

    fn read_versions(&mut self, policy: Node<'_>) {
        if let Some(latest) = policy.child("latest") {
            let count = usize::try_from(latest.number("num_versions")).unwrap_or(usize::MAX);
            let count = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
            self.config.version_policy = VersionPolicy::Latest(count);
        } else if policy.child("all").is_some() {
            self.config.version_policy = VersionPolicy::All;
        } else if let Some(specific) = policy.child("specific") {
            let version = |number: i64| u64::try_from(number).ok().and_then(ModelVersion::new);
            let numbers = specific.numbers("versions");
            let versions: Option<BTreeSet<ModelVersion>> =
                numbers.iter().map(|number| version(*number)).collect();
            if let Some(versions) = versions.filter(|versions| !versions.is_empty()) {
                self.config.version_policy = VersionPolicy::Specific(versions);
            } else {
                let problem = "expected versions of at least 1".to_owned();
                self.errors.push("version_policy.specific.versions", problem);
            }
        }
    }

    /// Where the rows lie, and how far requests are joined.
    fn read_rows(&mut self, file: Node<'_>) {
        let batching = file.child("dynamic_batching");
        let names_tensors = ["input", "output"].iter().any(|it| !file.children(it).is_empty());
        let max = file.number("max_batch_size");
        let (rows, how) = match usize::try_from(max) {
            Err(_) => {
                self.errors.push("max_batch_size", format!("expected at least 0, got {max}"));
                return;
            }
            Ok(0) if names_tensors => (DeclaredRows::Absent, Batching::Off),
            Ok(0) => (DeclaredRows::Unsaid, self.config.batching),
            Ok(rows) => {
                self.config.max_batch_size = rows;
                // Triton's clients know that more is refused.
                self.config.max_request_rows = rows;
                let how = if batching.is_some() { Batching::Fixed } else { Batching::Off };
                (DeclaredRows::Leading, how)
            }
        };
        self.config.batching = how;
        self.config.declared = Declared { rows, ..Declared::default() };
        let Some(batching) = batching else { return };
        if rows == DeclaredRows::Absent {
            self.ignore("dynamic_batching", "max_batch_size is 0");
        }
        let preferred = batching.numbers("preferred_batch_size");
        let sizes = preferred.iter().filter_map(|size| usize::try_from(*size).ok());
        self.config.preferred_batch_sizes = sizes.collect();
        self.config.preferred_batch_sizes.sort_unstable();
        self.config.preserve_ordering = batching.flag("preserve_ordering");
        for size in preferred {
            if size < 1 || (rows == DeclaredRows::Leading && i128::from(size) > max) {
                let problem = format!("expected 1 to max_batch_size {max}, got {size}");
                self.errors.push("dynamic_batching.preferred_batch_size", problem);
            }
        }
        if let Ok(level @ 1..) = u64::try_from(batching.number("default_priority_level")) {
            self.config.default_priority = level;
        }
        let delay = batching.number("max_queue_delay_microseconds");
        self.config.max_queue_delay = Duration::from_micros(u64::try_from(delay).unwrap_or(0));
        let queue = batching.child("default_queue_policy");
        let jobs = queue.map_or(0, |queue| queue.number("max_queue_size"));
        if let Some(jobs) = usize::try_from(jobs).ok().and_then(NonZeroUsize::new) {
            self.config.max_queue_jobs = Some(jobs);
        }
    }

    fn read_graph_level(&mut self, level: i128) {
        self.config.graph_optimization = match level {
            0 => GraphOptimization::All,
            1 => GraphOptimization::Extended,
            -1 => GraphOptimization::Basic,
            2 => GraphOptimization::Off,
            other => {
                let problem = format!("expected -1, 0, 1 or 2, got {other}");
                self.errors.push("optimization.graph.level", problem);
                return;
            }
        };
    }

    fn read_parameters(&mut self, parameters: Vec<(&str, &Value)>) {
        for (key, value) in parameters {
            let text = value.as_message().map_or("", |value| Node(value).text("string_value"));
            let path = format!("parameters.{}", quoted(key));
            match key {
                "intra_op_thread_count" => {
                    if let Some(threads) = self.errors.check(&path, values::number(text, 0_usize)) {
                        self.config.intra_op_threads = NonZeroUsize::new(threads);
                    }
                }
                "gpu_mem_limit" => {
                    if let Some(bytes) = self.errors.check(&path, values::number(text, 0_u64)) {
                        let options = BTreeMap::from([(key.to_owned(), bytes.to_string())]);
                        self.add_options(super::model::Provider::Cuda, options);
                    }
                }
                _ => drop(self.ignored.insert(path)),
            }
        }
    }

    /// A field has no effect, for a reason that its name does not tell.
    fn ignore(&mut self, field: &str, reason: &str) {
        self.ignored.insert(format!("{field} ({reason})"));
    }
}

#[cfg(test)]
mod tests;
