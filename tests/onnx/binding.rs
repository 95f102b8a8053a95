//! The way in which tensors reach a GPU, tried on the processor: the same binding, in ordinary memory.

use onnxd::config::{Config, ModelConfig, Origin};
use onnxd::model::{ModelKey, ModelName, ModelVersion};
use onnxd::tensor::rows::Joined;
use onnxd::tensor::{DataType, Shape, Tensor};
use onnxd::worker::{Executor, LoadedModel, ModelLoader, ModelSource};

use crate::harness::{generated, loader};

/// A model whose tensors go through a binding.
pub(crate) fn load(model: &str) -> LoadedModel {
    let key = ModelKey { name: ModelName::new(model).unwrap(), version: ModelVersion::FIRST };
    let path = generated().join(model).join("1/model.onnx");
    let config: ModelConfig = Config::resolve(|_| None::<(String, Origin)>).unwrap().model;
    loader().always_binding().load(&ModelSource { key, path, sha256: None }, &config).unwrap()
}

fn floats(dims: &[i64], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::dense(DataType::Fp32, Shape::new(dims.to_vec()).unwrap(), bytes.into()).unwrap()
}

fn run(executor: &mut dyn Executor, inputs: &[Tensor]) -> Vec<Tensor> {
    let joined: Vec<Joined<'_>> =
        inputs.iter().map(|tensor| Joined::new(vec![tensor], Some(0)).unwrap()).collect();
    drop(executor.stopper());
    executor.run(&joined).unwrap().outputs
}

#[test]
fn an_answer_outlives_the_runs_that_follow() {
    let mut loaded = load("identity_f32");
    let executor = loaded.executors[0].as_mut();
    let mut kept = Vec::new();
    // The same size again, larger, smaller, and the first size once more.
    for (rows, value) in [(1_i16, 1.0), (1, 2.0), (3, 3.0), (2, 4.0), (1, 5.0)] {
        let values = vec![value; usize::try_from(rows).unwrap() * 2];
        let given = floats(&[rows.into(), 2], &values);
        let outputs = run(executor, std::slice::from_ref(&given));
        kept.push((given, outputs.into_iter().next().unwrap()));
    }
    for (given, answer) in &kept {
        assert_eq!(answer, given);
    }
}

#[test]
fn texts_and_several_outputs_take_the_same_way() {
    let mut loaded = load("identity_string");
    let elements = vec![b"one".as_slice().into(), b"two \xff".as_slice().into()];
    let texts = Tensor::strings(Shape::new(vec![1, 2]).unwrap(), elements).unwrap();
    assert_eq!(run(loaded.executors[0].as_mut(), std::slice::from_ref(&texts)), [texts]);

    let mut loaded = load("two_inputs");
    let (a, b) = (floats(&[1, 4], &[5.0; 4]), floats(&[1, 4], &[3.0; 4]));
    let names: Vec<&str> = loaded.spec.outputs.iter().map(|output| &*output.name).collect();
    assert_eq!(names, ["sum", "diff"]);
    let outputs = run(loaded.executors[0].as_mut(), &[a, b]);
    assert_eq!(outputs, [floats(&[1, 4], &[8.0; 4]), floats(&[1, 4], &[2.0; 4])]);
}
