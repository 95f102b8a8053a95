//! Inputs as they are typed, and answers as they are shown.

use super::super::credentials::Credentials;
use super::*;

fn declared(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
    TensorMetadata { name: name.into(), datatype: datatype.into(), shape: shape.to_vec() }
}

/// Shape and size of the raw form.
fn sent(text: &str, shape: &[i64]) -> Result<(Vec<i64>, usize), String> {
    let tensor = tensor(text, &[declared("x", "FP32", shape)])?;
    Ok((tensor.shape, tensor.raw.len()))
}

#[test]
fn the_open_dimension_follows_from_the_count() {
    assert_eq!(sent("x=1,2,3,4", &[-1, 2]), Ok((vec![2, 2], 16)));
    assert_eq!(sent("x=1,2,3,4", &[2, -1]), Ok((vec![2, 2], 16)));
    assert_eq!(sent("x=1,2,3,4", &[2, 2]), Ok((vec![2, 2], 16)));
    assert_eq!(sent("x=", &[-1, 2]), Ok((vec![0, 2], 0)));
}

#[test]
fn a_single_value_fills_the_shape() {
    assert_eq!(sent("x=1", &[]), Ok((vec![], 4)));
    assert_eq!(sent("x=1", &[-1, 3]), Ok((vec![1, 3], 12)));
    assert_eq!(sent("x=1", &[-1, -1]), Ok((vec![1, 1], 4)));
    assert_eq!(sent("x[2,3]=1", &[-1, -1]), Ok((vec![2, 3], 24)));
}

#[test]
fn a_shape_can_be_said() {
    assert_eq!(sent("x[2,3]=1,2,3,4,5,6", &[-1, -1]), Ok((vec![2, 3], 24)));
    assert_eq!(sent("x[]=1", &[]), Ok((vec![], 4)));
    assert_eq!(sent("x[0,3]=", &[-1, 3]), Ok((vec![0, 3], 0)));
}

#[test]
fn mistakes_name_both_sides() {
    let refusal = |text: &str, shape: &[i64]| sent(text, shape).unwrap_err();
    assert_eq!(
        refusal("x=1,2,3", &[-1, 2]),
        "input `x`: shape [-1, 2] takes a multiple of 2 values, got 3"
    );
    assert_eq!(refusal("x=1,2,3", &[2, 2]), "input `x`: [2, 2] takes 4 values, got 3");
    assert_eq!(
        refusal("x=1,2", &[-1, -1]),
        "input `x`: shape [-1, -1] has 2 open dimensions; say them: NAME[2,3]=…"
    );
    assert_eq!(refusal("x=1,b", &[-1]), "input `x`: \"b\" is no FP32");
    assert_eq!(refusal("z=1", &[-1]), "unknown input `z`; the model has `x`");
    assert_eq!(refusal("x", &[-1]), "--input is \"x\", expected NAME=VALUE,VALUE,…");
    assert_eq!(
        refusal("x[a]=1", &[-1]),
        "input `x`: [a] is no shape, expected whole numbers and commas"
    );
    assert!(refusal("x=1", &[1 << 40]).contains("at most"));
    assert!(refusal("x=1", &[1 << 40, 1 << 40]).contains("overflows"));
    assert!(refusal("x[-1]=1", &[-1]).contains("expected zero or more"));
}

#[test]
fn names_may_look_like_syntax() {
    let inputs = [declared("a=b", "INT64", &[-1]), declared("s[0]", "INT64", &[-1])];
    assert_eq!(tensor("a=b=1,2", &inputs).unwrap().shape, [2]);
    assert_eq!(tensor("s[0]=1,2,3", &inputs).unwrap().shape, [3]);
    assert_eq!(tensor("s[0][3]=7", &inputs).unwrap().raw.len(), 24);
}

#[test]
fn strings_are_split_at_commas() {
    let inputs = [declared("s", "BYTES", &[-1])];
    let sent = tensor("s=a,,bc", &inputs).unwrap();
    assert_eq!((sent.shape, &*sent.raw), (vec![3], &b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc"[..]));
    assert_eq!(tensor("s=", &inputs).unwrap().shape, [1]);
}

#[test]
fn the_signature_has_a_line_to_try() {
    let metadata = ModelMetadataResponse {
        name: "m".into(),
        versions: vec!["1".into(), "2".into()],
        platform: "onnxruntime_onnx".into(),
        inputs: vec![declared("x", "FP32", &[-1, 4]), declared("a b", "BYTES", &[])],
        outputs: vec![declared("long", "INT64", &[-1])],
    };
    let target = Target {
        address: "h:1".into(),
        model: "m".into(),
        version: String::new(),
        credentials: Credentials::default(),
    };
    assert_eq!(
        signature(&metadata, &target),
        "m 1, 2\n  input   x     FP32    [-1, 4]\n  input   a b   BYTES   []\n  \
         output  long  INT64   [-1]\n\nfor instance:\n  \
         onnxd infer m --addr h:1 --input x=1 --input 'a b=text'"
    );
}

#[test]
fn outputs_are_shown_by_rows() {
    let shown = |shape: &[i64], values: &[f32]| {
        show(WireTensor::floats("y", shape, values)).map_err(|outcome| outcome.text)
    };
    assert_eq!(
        shown(&[2, 2], &[1.0, 2.5, 3.0, 4.0]).unwrap(),
        "y FP32 [2, 2]\n  1.0 2.5\n  3.0 4.0"
    );
    assert_eq!(shown(&[], &[7.0]).unwrap(), "y FP32 []\n  7.0");
    assert_eq!(shown(&[0, 3], &[]).unwrap(), "y FP32 [0, 3]");
    assert_eq!(shown(&[3], &[1.0]).unwrap_err(), "output `y`: expected 3 values, got 1");
    assert!(shown(&[2000], &[0.0; 2000]).unwrap().ends_with(" 0.0\n  … and 976 more"));
}
