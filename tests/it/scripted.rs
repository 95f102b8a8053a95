//! Models that do what a test tells them: a loader and an executor without a runtime.
//!
//! All scripted models take `x` FP32 `[batch, n]` and give `y` of the same shape. By their names:
//! `echo` answers at once; `gate` waits until the test lets a run through; `poison` refuses a
//! batch that holds [`POISON`]; `panics` panics on it; `device` loses its device over it; `stuck`
//! waits as `gate` does and cannot be stopped; `broken` cannot be loaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use onnxd::config::ModelConfig;
use onnxd::error::ExecuteError;
use onnxd::job::Stop;
use onnxd::model::{Dim, ModelSpec, TensorSpec};
use onnxd::tensor::rows::Joined;
use onnxd::tensor::{DataType, Tensor};
use onnxd::worker::{Executor, LoadError, LoadedModel, ModelLoader, ModelSource, Run};
use tokio::sync::watch;
use tokio::time::Instant;

/// The value that `poison` refuses and `panics` panics on.
pub(crate) const POISON: f32 = -666.0;

/// Contents of a model file that cannot be loaded.
pub(crate) const BROKEN: &[u8] = b"\x32\x06broken";

/// Names of all scripted models that load.
pub(crate) const NAMES: [&str; 4] = ["echo", "gate", "panics", "poison"];

/// What a test sees of a model's runs and tells them.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    started: watch::Sender<Vec<usize>>,
    stopped: watch::Sender<usize>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug, Default)]
struct Gate {
    permits: usize,
    open: bool,
    stop: bool,
}

impl Default for Control {
    fn default() -> Self {
        let gate = Arc::default();
        Self { started: watch::Sender::default(), stopped: watch::Sender::default(), gate }
    }
}

impl Control {
    /// Waits until so many runs have started; gives their rows.
    pub(crate) async fn runs(&self, count: usize) -> Vec<usize> {
        let mut started = self.started.subscribe();
        started.wait_for(|runs| runs.len() >= count).await.unwrap().clone()
    }

    /// Rows of the runs that have started so far.
    pub(crate) fn runs_so_far(&self) -> Vec<usize> {
        self.started.borrow().clone()
    }

    /// Waits until a run was stopped.
    pub(crate) async fn stopped(&self) {
        let mut stopped = self.stopped.subscribe();
        drop(stopped.wait_for(|count| *count > 0).await.unwrap());
    }

    /// Lets so many runs through the gate.
    pub(crate) fn allow(&self, runs: usize) {
        self.gate.0.lock().unwrap().permits += runs;
        self.gate.1.notify_all();
    }

    /// Opens the gate for good.
    pub(crate) fn open(&self) {
        self.gate.0.lock().unwrap().open = true;
        self.gate.1.notify_all();
    }

    fn pass_unstoppable(&self) {
        let shut = |gate: &mut Gate| !gate.open && gate.permits == 0;
        let gate = self.gate.0.lock().unwrap();
        let mut gate = self.gate.1.wait_while(gate, shut).unwrap();
        gate.permits = gate.permits.saturating_sub(1);
    }

    fn pass(&self) -> Result<(), ExecuteError> {
        let shut = |gate: &mut Gate| !gate.open && !gate.stop && gate.permits == 0;
        let gate = self.gate.0.lock().unwrap();
        let mut gate = self.gate.1.wait_while(gate, shut).unwrap();
        if std::mem::take(&mut gate.stop) {
            self.stopped.send_modify(|count| *count += 1);
            return Err(ExecuteError::Stopped);
        }
        gate.permits = gate.permits.saturating_sub(1);
        Ok(())
    }
}

impl Stop for Control {
    fn stop(&self) {
        self.gate.0.lock().unwrap().stop = true;
        self.gate.1.notify_all();
    }
}

/// Loads scripted models.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScriptedLoader {
    controls: Arc<Mutex<BTreeMap<String, Control>>>,
    loading: Option<Control>,
    /// Loads that go on now, and the most that ever did.
    at_a_time: Arc<(AtomicUsize, AtomicUsize)>,
}

impl ScriptedLoader {
    /// The most loads that went on at a time.
    pub(crate) fn most_at_a_time(&self) -> usize {
        self.at_a_time.1.load(Ordering::SeqCst)
    }

    /// A loader that loads nothing before `loading` lets it.
    pub(crate) fn held_by(loading: Control) -> Self {
        Self { loading: Some(loading), ..Self::default() }
    }

    /// The control of a model.
    pub(crate) fn control(&self, name: &str) -> Control {
        self.controls.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }
}

/// Makes the folders of a repository that holds `names`, version 1 each.
pub(crate) fn lay_out(root: &Path, names: &[&str]) {
    for name in names {
        let folder = root.join(name).join("1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.onnx"), "").unwrap();
    }
}

fn spec() -> ModelSpec {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        dtype: DataType::Fp32,
        dims: vec![Dim::Dynamic(Some("batch".into())), Dim::Dynamic(None)],
        batch_axis: None,
        reshape: None,
        ragged: None,
    };
    ModelSpec { inputs: vec![tensor("x")], outputs: vec![tensor("y")] }
}

impl ModelLoader for ScriptedLoader {
    fn load(&self, source: &ModelSource, config: &ModelConfig) -> Result<LoadedModel, LoadError> {
        let (now, most) = &*self.at_a_time;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let loaded = self.load_one(source, config);
        now.fetch_sub(1, Ordering::SeqCst);
        loaded
    }
}

impl ScriptedLoader {
    fn load_one(
        &self,
        source: &ModelSource,
        config: &ModelConfig,
    ) -> Result<LoadedModel, LoadError> {
        if let Some(loading) = &self.loading {
            loading.pass().map_err(|error| LoadError::new(error.to_string()))?;
        }
        let name = source.key.name.to_string();
        // A test can break a file of any model, too.
        let is_broken = std::fs::read(&source.path).is_ok_and(|text| text == BROKEN);
        if name == "broken" || is_broken {
            return Err(LoadError::new("not a model: the file is empty"));
        }
        let control = self.control(&name);
        let executor = move || -> Box<dyn Executor> {
            Box::new(Scripted { name: name.clone(), control: control.clone() })
        };
        let executors = (0..config.instances).map(|_| executor()).collect();
        let make = Arc::new(move |_| Ok(executor()));
        let (provider, runtime) = ("script".to_owned(), "script 1".to_owned());
        Ok(LoadedModel { spec: spec(), provider, runtime, threads: 1, executors, make })
    }
}

struct Scripted {
    name: String,
    control: Control,
}

impl Executor for Scripted {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        Arc::new(self.control.clone())
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let joined_at = Instant::now();
        let input = &inputs[0];
        let mut bytes = vec![0; input.byte_len()];
        input.copy_to(&mut bytes);
        let rows = input.shape().dim(0).unwrap();
        self.control.started.send_modify(|runs| runs.push(rows));
        let poisoned = bytes.chunks_exact(4).any(|value| value == POISON.to_le_bytes());
        match self.name.as_str() {
            "gate" => self.control.pass()?,
            "stuck" => self.control.pass_unstoppable(),
            "poison" if poisoned => return Err(ExecuteError::Input("poison".into())),
            "device" if poisoned => return Err(ExecuteError::Device("lost".into())),
            "panics" if poisoned => panic!("told to"),
            _ => {}
        }
        let output = Tensor::dense(DataType::Fp32, input.shape().clone(), bytes.into());
        Ok(Run { outputs: vec![output.unwrap()], joined_at })
    }
}
