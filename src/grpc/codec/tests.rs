//! Round trips of every datatype in both forms, and each way in which contents can be wrong.

use std::num::NonZeroUsize;

use bytes::Bytes;

use super::{AnswerStyle, Form, decode, encode};
use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::pb::model_infer_request::InferInputTensor;
use crate::pb::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::request::InferResponse;
use crate::tensor::{DataType, Shape, Tensor};

fn input(datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn raw(datatype: &str, shape: &[i64], bytes: &'static [u8]) -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![input(datatype, shape)],
        raw_input_contents: vec![Bytes::from_static(bytes)],
        ..ModelInferRequest::default()
    }
}

fn refusal(request: ModelInferRequest) -> String {
    decode(request).unwrap_err().message
}

fn spec() -> ModelSpec {
    let output = TensorSpec {
        name: "y".into(),
        dtype: DataType::Fp32,
        dims: vec![],
        batch_axis: None,
        reshape: None,
        ragged: None,
    };
    ModelSpec { inputs: vec![], outputs: vec![output.clone(), output] }
}

fn answer(tensors: Vec<Tensor>) -> InferResponse {
    InferResponse {
        outputs: tensors.into_iter().enumerate().collect(),
        started_at: tokio::time::Instant::now(),
        batch_rows: 1,
    }
}

fn sent(response: InferResponse, form: Form) -> ModelInferResponse {
    encode(response, &spec(), &AnswerStyle { form, classes: Vec::new() }, |_| &[]).unwrap()
}

#[test]
fn largest_values_stand_for_the_outputs_that_were_asked_so() {
    let floats: Vec<u8> = [0.25_f32, 0.75].iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = Shape::new(vec![1, 2]).unwrap();
    let tensor = Tensor::dense(DataType::Fp32, shape, floats.into()).unwrap();
    let mut spec = spec();
    spec.outputs = ["y", "z"]
        .map(|name| TensorSpec {
            name: name.into(),
            dtype: DataType::Fp32,
            dims: vec![Dim::Dynamic(None), Dim::Fixed(2)],
            batch_axis: Some(0),
            reshape: None,
            ragged: None,
        })
        .to_vec();
    let labels = ["no", "yes"].map(str::to_owned);
    let wanted = AnswerStyle { form: Form::Typed, classes: vec![None, NonZeroUsize::new(1)] };
    let both = answer(vec![tensor.clone(), tensor]);
    let message = encode(both, &spec, &wanted, |output| if output == "z" { &labels } else { &[] });
    let outputs = message.unwrap().outputs;
    assert_eq!(outputs[0].contents.as_ref().unwrap().fp32_contents, [0.25, 0.75]);
    assert_eq!((outputs[1].datatype.as_str(), &outputs[1].shape[..]), ("BYTES", &[1, 1][..]));
    let contents = outputs[1].contents.as_ref().unwrap();
    assert_eq!(contents.bytes_contents, [&b"0.750000:1:yes"[..]]);
}

#[test]
fn raw_contents_are_slices_of_the_message() {
    static BYTES: [u8; 8] = [0; 8];
    let (request, answer) = decode(raw("FP32", &[2], &BYTES)).unwrap();
    assert_eq!(answer, AnswerStyle { form: Form::Raw, classes: Vec::new() });
    let bytes = request.inputs[0].tensor.dense_bytes().unwrap();
    assert_eq!(bytes.as_ptr(), BYTES.as_ptr());
}

#[test]
fn every_dense_type_comes_back_as_it_was_in_both_forms() {
    for dtype in DataType::ALL {
        let Some(size) = dtype.size_bytes() else { continue };
        let shape = Shape::new(vec![2, 1]).unwrap();
        // Small positive bit patterns: values in every type.
        let bytes: Vec<u8> = (0..2 * size).map(|index| u8::from(index % size == 0)).collect();
        let tensor = Tensor::dense(dtype, shape, bytes.into()).unwrap();
        for form in [Form::Raw, Form::Typed] {
            let message = sent(answer(vec![tensor.clone()]), form);
            let halves = matches!(dtype, DataType::Fp16 | DataType::Bf16);
            assert_eq!(message.raw_output_contents.is_empty(), form == Form::Typed && !halves);
            let mut request = ModelInferRequest {
                inputs: vec![input(dtype.wire_name(), &[2, 1])],
                raw_input_contents: message.raw_output_contents,
                ..ModelInferRequest::default()
            };
            request.inputs[0].contents = message.outputs[0].contents.clone();
            let (back, _) = decode(request).unwrap();
            assert_eq!(back.inputs[0].tensor, tensor, "{dtype} {form:?}");
        }
    }
}

#[test]
fn strings_of_any_octets_round_trip() {
    let elements = vec![Bytes::from_static(b""), Bytes::from_static(b"a\0\xff")];
    let tensor = Tensor::strings(Shape::new(vec![2]).unwrap(), elements).unwrap();
    let message = sent(answer(vec![tensor.clone()]), Form::Raw);
    assert_eq!(&message.raw_output_contents[0][..], b"\0\0\0\0\x03\0\0\0a\0\xff");
    let request = ModelInferRequest {
        inputs: vec![input("BYTES", &[2])],
        raw_input_contents: message.raw_output_contents,
        ..ModelInferRequest::default()
    };
    assert_eq!(decode(request).unwrap().0.inputs[0].tensor, tensor);
}

#[test]
fn one_half_precision_output_makes_a_typed_answer_raw() {
    let zeros = |dtype| Tensor::zeros(dtype, Shape::scalar()).unwrap();
    let both = answer(vec![zeros(DataType::Fp32), zeros(DataType::Fp16)]);
    let message = sent(both, Form::Typed);
    assert_eq!(message.raw_output_contents.len(), 2);
    assert!(message.outputs.iter().all(|output| output.contents.is_none()));
}

#[test]
fn wrong_contents_are_named() {
    assert_eq!(
        refusal(raw("FP32", &[2], &[0; 7])),
        "input `x`: FP32 of shape [2] needs 8 bytes, got 7"
    );
    assert!(refusal(raw("FP31", &[2], &[])).starts_with("input `x`: unknown datatype \"FP31\""));
    assert_eq!(
        refusal(raw("FP32", &[-1], &[])),
        "input `x`: dimension 0 is -1, expected zero or more"
    );
    assert_eq!(
        refusal(raw("FP32", &[1 << 62, 4], &[])),
        "input `x`: the product of the dimensions [4611686018427387904, 4] overflows"
    );
    assert_eq!(
        refusal(raw("BYTES", &[1], b"\x05\0\0\0abc")),
        "input `x`: BYTES element 0 has length 5, 3 bytes are left"
    );
    assert_eq!(
        refusal(raw("BYTES", &[1], b"\x01\0\0\0abc")),
        "input `x`: 2 bytes follow the last of 1 BYTES elements"
    );
    assert_eq!(
        refusal(raw("BYTES", &[2], b"\x02\0\0\0ab\0\0")),
        "input `x`: BYTES element 1 ends inside its length"
    );
    assert_eq!(
        refusal(raw("BYTES", &[1 << 40], b"\0\0\0\0")),
        "input `x`: 1099511627776 BYTES elements need at least 4 bytes each, got 4"
    );
    let mut surplus = raw("FP32", &[1], &[0; 4]);
    surplus.raw_input_contents.push(Bytes::new());
    assert_eq!(refusal(surplus), "raw_input_contents has 2 entries for 1 inputs");
    let mut mixed = raw("FP32", &[1], &[0; 4]);
    let contents = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
    mixed.inputs[0].contents = Some(contents);
    assert_eq!(
        refusal(mixed),
        "input `x`: has contents although the request has raw_input_contents"
    );
}

#[test]
fn typed_contents_must_fit() {
    let typed = |datatype: &str, contents: InferTensorContents| {
        let mut request = ModelInferRequest {
            inputs: vec![input(datatype, &[1])],
            ..ModelInferRequest::default()
        };
        request.inputs[0].contents = Some(contents);
        request
    };
    let ints = |values: &[i32]| InferTensorContents {
        int_contents: values.to_vec(),
        ..InferTensorContents::default()
    };
    assert_eq!(
        refusal(typed("INT8", ints(&[300]))),
        "input `x`: element 0 is 300, which is no INT8"
    );
    assert_eq!(
        refusal(typed("FP32", ints(&[3]))),
        "input `x`: FP32 belongs in fp32_contents, got int_contents"
    );
    assert_eq!(
        refusal(typed("INT32", ints(&[1, 2]))),
        "input `x`: shape [1] needs 1 elements in int_contents, got 2"
    );
    assert_eq!(
        refusal(typed("FP16", InferTensorContents::default())),
        "input `x`: FP16 has no typed form; send raw_input_contents"
    );
}

proptest::proptest! {
    /// Whatever BYTES say about themselves: an error or the very bytes, never a panic.
    #[test]
    fn malformed_strings_are_errors(
        bytes in proptest::collection::vec(0_u8..8, 0..40),
        count in 0_i64..5,
    ) {
        let request = ModelInferRequest {
            inputs: vec![input("BYTES", &[count])],
            raw_input_contents: vec![bytes.clone().into()],
            ..ModelInferRequest::default()
        };
        if let Ok((request, _)) = decode(request) {
            let elements = request.inputs[0].tensor.string_elements();
            let framed: usize = elements.iter().map(|element| 4 + element.len()).sum();
            proptest::prop_assert_eq!(framed, bytes.len());
        }
    }
}
