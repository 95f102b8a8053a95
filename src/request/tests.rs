//! Each way in which a request can miss its model, and the groups that requests fall into.

use bytes::Bytes;

use super::{BatchKey, InferRequest, NamedTensor, ValidRequest, validate};
use crate::error::InvalidRequest;
use crate::model::ragged::Ragged;
use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::tensor::rows::Pad;
use crate::tensor::{DataType, Fill, Shape, Tensor};

fn spec() -> ModelSpec {
    let rows = || Dim::Dynamic(Some("batch".into()));
    let input = |name: &str, dims, batch_axis| TensorSpec {
        name: name.into(),
        dtype: DataType::Fp32,
        dims,
        batch_axis,
        reshape: None,
        ragged: None,
    };
    let seq = || Dim::Dynamic(Some("seq".into()));
    ModelSpec {
        inputs: vec![
            input("x", vec![rows(), Dim::Fixed(2)], Some(0)),
            input("words", vec![rows(), seq()], Some(0)),
            input("mask", vec![rows(), seq()], Some(0)),
            input("k", vec![], None),
        ],
        outputs: vec![input("y", vec![rows()], Some(0)), input("z", vec![rows()], Some(0))],
    }
}

fn zeros(dims: &[i64]) -> Tensor {
    Tensor::zeros(DataType::Fp32, Shape::new(dims.to_vec()).unwrap()).unwrap()
}

fn request(rows: i64, seq: i64) -> InferRequest {
    let inputs = [
        ("x", zeros(&[rows, 2])),
        ("words", zeros(&[rows, seq])),
        ("mask", zeros(&[rows, seq])),
        ("k", zeros(&[])),
    ];
    InferRequest {
        inputs: inputs
            .into_iter()
            .map(|(name, tensor)| NamedTensor { name: name.into(), tensor })
            .collect(),
        ..InferRequest::default()
    }
}

fn check(request: InferRequest) -> Result<ValidRequest, InvalidRequest> {
    validate(request, &spec(), 8)
}

fn refusal(change: impl FnOnce(&mut InferRequest)) -> String {
    let mut wrong = request(2, 3);
    change(&mut wrong);
    check(wrong).unwrap_err().message
}

#[test]
fn inputs_come_in_any_order_and_leave_in_the_models() {
    let mut shuffled = request(3, 5);
    shuffled.inputs.reverse();
    shuffled.outputs = vec!["z".into(), "y".into()];
    let valid = check(shuffled).unwrap();
    assert_eq!(valid.rows(), 3);
    assert_eq!(valid.inputs()[0].shape().dims(), [3, 2]);
    assert_eq!(valid.outputs(), Some(&[1, 0][..]));
    assert_eq!(valid.byte_size(), 4 * (6 + 15 + 15 + 1));
}

#[test]
fn refusals_name_the_thing_and_both_sides() {
    assert_eq!(
        refusal(|r| r.inputs[1].name = "word".into()),
        "unknown input `word`; the model has `x`, `words`, `mask`, `k`"
    );
    assert_eq!(
        refusal(|r| drop(r.inputs.pop())),
        "input `k` is missing; the model has `x`, `words`, `mask`, `k`"
    );
    assert_eq!(refusal(|r| r.inputs.push(r.inputs[0].clone())), "input `x` is given twice");
    assert_eq!(
        refusal(|r| r.inputs[0].tensor = zeros(&[2, 3])),
        "input `x`: expected shape [-1, 2], got [2, 3]"
    );
    assert_eq!(
        refusal(|r| r.inputs[3].tensor = zeros(&[1])),
        "input `k`: expected shape [], got [1]"
    );
    assert_eq!(
        refusal(|r| {
            let shape = Shape::scalar();
            r.inputs[3].tensor = Tensor::zeros(DataType::Int64, shape).unwrap();
        }),
        "input `k`: expected datatype FP32, got INT64"
    );
    assert_eq!(
        refusal(|r| r.inputs[2].tensor = zeros(&[2, 4])),
        "input `mask`: dimension 1 (`seq`) is 4, but input `words` has 3 there"
    );
    assert_eq!(
        refusal(|r| r.inputs[0].tensor = zeros(&[1, 2])),
        "input `words` has 2 rows, but input `x` has 1"
    );
    assert_eq!(
        refusal(|r| r.outputs = vec!["y".into(), "y".into()]),
        "output `y` is requested twice"
    );
    assert_eq!(
        refusal(|r| r.outputs = vec!["w".into()]),
        "unknown output `w`; the model has `y`, `z`"
    );
}

#[test]
fn rows_have_limits() {
    assert_eq!(
        check(request(0, 3)).unwrap_err().message,
        "input `x` has 0 rows, expected at least 1"
    );
    assert_eq!(
        check(request(9, 3)).unwrap_err().message,
        "request has 9 rows, max_request_rows is 8"
    );
    assert!(check(request(8, 3)).is_ok());
}

#[test]
fn groups_differ_by_inner_sizes_and_shared_contents_but_not_by_rows() {
    let key = |request| check(request).unwrap().batch_key().cloned();
    assert_eq!(key(request(1, 3)), key(request(4, 3)));
    assert_ne!(key(request(1, 3)), key(request(1, 4)));
    let mut other = request(1, 3);
    let one = Bytes::copy_from_slice(&1_f32.to_le_bytes());
    other.inputs[3].tensor = Tensor::dense(DataType::Fp32, Shape::scalar(), one).unwrap();
    assert_ne!(key(request(1, 3)), key(other));
}

#[test]
fn an_empty_inner_dimension_runs_alone() {
    assert_eq!(check(request(2, 0)).unwrap().batch_key(), None);
}

/// The same model with `words` and `mask` padded. Without a symbol, lengths alone can disagree.
fn padded_spec(symbol: bool) -> ModelSpec {
    let mut spec = spec();
    for input in &mut spec.inputs[1..3] {
        let fill = Fill::zero(DataType::Fp32);
        input.ragged = Some(Ragged::Padded(Pad { axis: 1, fill }));
        if !symbol {
            input.dims[1] = Dim::Dynamic(None);
        }
    }
    spec
}

#[test]
fn padded_inputs_meet_at_any_length() {
    let spec = padded_spec(true);
    let key = |rows, seq| -> Option<BatchKey> {
        let valid = validate(request(rows, seq), &spec, 8).unwrap();
        assert_eq!(valid.length(), usize::try_from(seq).unwrap());
        valid.batch_key().cloned()
    };
    assert_eq!(key(1, 3), key(4, 100));
    assert!(key(1, 3).is_some());
    assert_eq!(key(2, 0), None, "an empty request has nothing to pad");
    let plain = validate(request(1, 3), &self::spec(), 8).unwrap();
    assert_ne!(plain.batch_key().cloned(), key(1, 3));
}

#[test]
fn padded_inputs_of_one_request_have_one_length() {
    let refused = |symbol| {
        let mut wrong = request(2, 3);
        wrong.inputs[2].tensor = zeros(&[2, 4]);
        validate(wrong, &padded_spec(symbol), 8).unwrap_err()
    };
    assert_eq!(
        refused(true).message,
        "input `mask`: dimension 1 (`seq`) is 4, but input `words` has 3 there"
    );
    let error = refused(false);
    assert_eq!(
        error.message,
        "input `mask`: is 4 long on axis 1, but input `words` is 3 long; the two are padded together"
    );
    assert_eq!(error.field, "inputs.mask.shape");
}

#[test]
fn length_is_the_size_of_the_open_dimensions() {
    let length = |spec: &ModelSpec, seq| validate(request(2, seq), spec, 8).unwrap().length();
    // Of two inputs that are equally long, one counts.
    assert_eq!([1, 3, 128, 0].map(|seq| length(&spec(), seq)), [1, 3, 128, 1]);
    let mut image = spec();
    image.inputs[1].dims.insert(1, Dim::Dynamic(None));
    let mut wide = request(2, 3);
    wide.inputs[1].tensor = zeros(&[2, 7, 3]);
    assert_eq!(validate(wide, &image, 8).unwrap().length(), 21);
    let fixed = ModelSpec { inputs: vec![spec().inputs[0].clone()], outputs: Vec::new() };
    let mut request = request(5, 1);
    request.inputs.truncate(1);
    assert_eq!(validate(request, &fixed, 8).unwrap().length(), 1);
}
