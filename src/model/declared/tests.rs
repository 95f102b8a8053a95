//! Files that fit their model, and each way of not fitting.

use std::collections::BTreeMap;

use super::{Declared, DeclaredRows, DeclaredTensor};
use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::tensor::DataType;

fn tensor(name: &str, dims: &[i64]) -> TensorSpec {
    let dim = |size: &i64| if *size < 0 { Dim::Dynamic(None) } else { Dim::Fixed(*size) };
    TensorSpec {
        name: name.into(),
        dtype: DataType::Fp32,
        dims: dims.iter().map(dim).collect(),
        batch_axis: None,
        reshape: None,
        ragged: None,
    }
}

fn spec(input: &[i64], output: &[i64]) -> ModelSpec {
    ModelSpec { inputs: vec![tensor("x", input)], outputs: vec![tensor("y", output)] }
}

fn said(name: &str, dims: &[i64]) -> DeclaredTensor {
    DeclaredTensor {
        name: name.into(),
        dtype: Some(DataType::Fp32),
        dims: Some(dims.to_vec()),
        ..DeclaredTensor::default()
    }
}

fn apply(declared: &Declared, spec: ModelSpec) -> Result<ModelSpec, String> {
    let applied = declared.apply(spec, &BTreeMap::new());
    applied.map(|(spec, _)| spec).map_err(|problems| problems.join("\n"))
}

#[test]
fn nothing_said_is_nothing_changed() {
    let (spec, reason) =
        Declared::default().apply(spec(&[-1, 4], &[-1, 2]), &BTreeMap::new()).unwrap();
    assert_eq!((spec.inputs[0].batch_axis, reason), (Some(0), None));
}

#[test]
fn leading_rows_are_left_out_of_shapes_and_open_sizes_are_taken_over() {
    let declared = Declared {
        rows: DeclaredRows::Leading,
        inputs: vec![said("x", &[3, 8])],
        outputs: vec![said("y", &[-1])],
    };
    let spec = apply(&declared, spec(&[-1, 3, -1], &[-1, 2])).unwrap();
    assert_eq!(spec.inputs[0].wire_dims(), [-1, 3, 8]);
    assert_eq!(spec.outputs[0].wire_dims(), [-1, 2]);
    assert!(spec.rows_lead());
}

#[test]
fn complete_shapes_have_no_rows() {
    let declared = Declared {
        rows: DeclaredRows::Absent,
        inputs: vec![DeclaredTensor { reshape: Some(vec![1, 4]), ..said("x", &[4]) }],
        outputs: vec![DeclaredTensor { reshape: Some(vec![1, 2, 1]), ..said("y", &[2]) }],
    };
    let spec = apply(&declared, spec(&[-1, 4], &[1, 2, 1])).unwrap();
    assert!(!spec.has_rows());
    assert_eq!(spec.inputs[0].wire_dims(), [4]);
    assert_eq!(spec.inputs[0].to_string(), "x FP32[4]");
    assert_eq!(spec.inputs[0].dims, [Dim::Fixed(1), Dim::Fixed(4)]);
    assert_eq!(spec.outputs[0].wire_dims(), [2]);
}

#[test]
fn every_difference_is_named_with_both_sides() {
    let declared = Declared {
        rows: DeclaredRows::Leading,
        inputs: vec![
            DeclaredTensor { dtype: Some(DataType::Fp16), ..said("x", &[4]) },
            said("z", &[4]),
        ],
        outputs: vec![said("y", &[5]), said("x", &[1])],
    };
    let problems = apply(&declared, spec(&[1, 4], &[-1, 2])).unwrap_err();
    assert_eq!(
        problems,
        "input `x`: max_batch_size is above 0, so the first dimension must take any number of \
         rows, but in the model it is fixed to 1; with max_batch_size 0 the shapes are complete\n\
         input `x`: the file says FP16, the model has FP32\n\
         input `z`: the model has no such tensor, it has `x`\n\
         output `y`: the file says [5], the model has [2], the batch dimension aside\n\
         output `x`: the model has no such tensor, it has `y`"
    );
    let declared = Declared {
        rows: DeclaredRows::Absent,
        inputs: vec![said("x", &[4])],
        outputs: vec![DeclaredTensor { reshape: Some(vec![-1, 2]), ..said("y", &[3]) }],
    };
    assert_eq!(
        apply(&declared, spec(&[1, 4], &[-1, 2])).unwrap_err(),
        "input `x`: the file says [4], the model has [1, 4]\n\
         output `y`: [3] and [-1, 2] have different numbers of elements"
    );
}

#[test]
fn a_scalar_has_no_place_for_rows() {
    let declared = Declared { rows: DeclaredRows::Leading, ..Declared::default() };
    let problems = apply(&declared, spec(&[], &[-1])).unwrap_err();
    assert!(problems.contains("input `x`") && problems.contains("is missing"), "{problems}");
}
