//! Requests against a reference that is slow and plain: what is accepted is what the rules accept, with
//! numbers that cannot wrap.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use num_bigint::BigInt;
use onnxd::grpc::codec;
use onnxd::model::{Dim, ModelSpec, TensorSpec};
use onnxd::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use onnxd::pb::{InferTensorContents, ModelInferRequest};
use onnxd::request::{ValidRequest, validate};
use onnxd::tensor::DataType;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 10_000;
const MAX_ROWS: usize = 8;
/// Sizes that go wrong where arithmetic is careless: products of two or more of them wrap to zero, to
/// a small number, or to the right one.
const SIZES: [i64; 14] =
    [-1, 0, 1, 2, 4, 8, 9, 1 << 31, 1 << 32, 1 << 61, 1 << 62, (1 << 62) + 1, i64::MAX, i64::MIN];

fn spec() -> ModelSpec {
    let tensor = |name: &str, dtype, dims: Vec<Dim>, batch_axis| TensorSpec {
        name: name.into(),
        dtype,
        dims,
        batch_axis,
        reshape: None,
        ragged: None,
    };
    let open = |symbol: &str| Dim::Dynamic(Some(symbol.into()));
    let rows = || open("batch");
    ModelSpec {
        inputs: vec![
            tensor("x", DataType::Fp32, vec![rows(), Dim::Fixed(4)], Some(0)),
            tensor("w", DataType::Int64, vec![rows(), open("seq")], Some(0)),
            tensor("m", DataType::Bool, vec![rows(), open("seq"), Dim::Dynamic(None)], Some(0)),
            tensor("s", DataType::Bytes, vec![rows()], Some(0)),
            tensor("k", DataType::Int32, vec![], None),
        ],
        outputs: vec![
            tensor("y", DataType::Fp32, vec![rows()], Some(0)),
            tensor("z", DataType::Fp32, vec![rows()], Some(0)),
        ],
    }
}

/// A request that fits.
fn fitting(rows: i64, length: i64, is_typed: bool) -> ModelInferRequest {
    let shapes: [(&str, &str, Vec<i64>); 5] = [
        ("x", "FP32", vec![rows, 4]),
        ("w", "INT64", vec![rows, length]),
        ("m", "BOOL", vec![rows, length, 2]),
        ("s", "BYTES", vec![rows]),
        ("k", "INT32", vec![]),
    ];
    let mut request = ModelInferRequest::default();
    for (name, datatype, shape) in shapes {
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap();
        let contents = is_typed.then(|| typed(datatype, count));
        if !is_typed {
            request.raw_input_contents.push(vec![0; count * width(datatype).unwrap_or(4)].into());
        }
        let (name, datatype) = (name.to_owned(), datatype.to_owned());
        request.inputs.push(InferInputTensor {
            name,
            datatype,
            shape,
            contents,
            ..InferInputTensor::default()
        });
    }
    request
}

fn typed(datatype: &str, count: usize) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match datatype {
        "FP32" => contents.fp32_contents = vec![0.0; count],
        "INT64" => contents.int64_contents = vec![0; count],
        "BOOL" => contents.bool_contents = vec![false; count],
        "BYTES" => contents.bytes_contents = vec![bytes::Bytes::new(); count],
        _ => contents.int_contents = vec![0; count],
    }
    contents
}

/// Bytes of an element; `None` where they differ.
fn width(datatype: &str) -> Option<usize> {
    match datatype {
        "FP32" | "INT32" => Some(4),
        "INT64" => Some(8),
        "BOOL" => Some(1),
        _ => None,
    }
}

const CHANGES: u8 = 20;

/// Makes one thing different; often, and not always, that makes it wrong.
fn change(request: &mut ModelInferRequest, (what, number): (u8, u64)) {
    let number = usize::try_from(number % 1_000_000).unwrap();
    let count = request.inputs.len();
    if count == 0 {
        return;
    }
    let at = number % count;
    let input = &mut request.inputs[at];
    match what {
        0..=5 if !input.shape.is_empty() => {
            let axis = number / 7 % input.shape.len();
            input.shape[axis] = SIZES[number / 31 % SIZES.len()];
        }
        6 => input.shape.push(SIZES[number / 31 % SIZES.len()]),
        7 => drop(input.shape.pop()),
        8 => ["unknown", "x", "w", "", "X"][number / 31 % 5].clone_into(&mut input.name),
        9 => {
            let names = ["FP32", "INT64", "BOOL", "INT32", "BYTES", "fp32", "", "FLOAT", "FP16"];
            names[number / 31 % names.len()].clone_into(&mut input.datatype);
        }
        10 => {
            let twice = input.clone();
            request.inputs.push(twice);
            if let Some(raw) = request.raw_input_contents.get(at).cloned() {
                request.raw_input_contents.push(raw);
            }
        }
        11 => {
            request.inputs.remove(at);
            if at < request.raw_input_contents.len() {
                request.raw_input_contents.remove(at);
            }
        }
        12 => request.inputs.swap(at, number / 31 % count),
        13 => request.raw_input_contents.push(bytes::Bytes::new()),
        14 => drop(request.raw_input_contents.pop()),
        15..=16 => {
            if let Some(raw) = request.raw_input_contents.get_mut(at) {
                let mut bytes = raw.to_vec();
                match number / 31 % 3 {
                    0 => bytes.push(0),
                    1 => drop(bytes.pop()),
                    // Wrong for a truth, a surplus length for a string, fine for a number.
                    _ => bytes.iter_mut().take(1).for_each(|byte| *byte = 2),
                }
                *raw = bytes.into();
            }
        }
        17 => input.contents = Some(typed(&input.datatype, number / 31 % 9)),
        18 => input.contents = Some(typed("INT32", number / 31 % 9)),
        _ => {
            let name = ["y", "z", "y", "w"][number / 31 % 4].to_owned();
            let output = InferRequestedOutputTensor { name, ..Default::default() };
            request.outputs.push(output);
        }
    }
}

/// The rules, one after the other.
fn is_right(request: &ModelInferRequest) -> bool {
    let (spec, raw) = (spec(), &request.raw_input_contents);
    let is_raw = !raw.is_empty();
    if is_raw && raw.len() != request.inputs.len() {
        return false;
    }
    let mut seen = BTreeMap::new();
    for (position, input) in request.inputs.iter().enumerate() {
        let contents = input.contents.clone().unwrap_or_default();
        let right = match (is_raw, width(&input.datatype)) {
            (true, _) if contents != InferTensorContents::default() => false,
            (true, width) => is_raw_right(input, &raw[position], width),
            (false, _) => is_typed_right(input, &contents),
        };
        if !right || seen.insert(input.name.clone(), input).is_some() {
            return false;
        }
    }
    let mut outputs: Vec<&str> = request.outputs.iter().map(|output| &*output.name).collect();
    let wanted = outputs.len();
    outputs.sort_unstable();
    outputs.dedup();
    if outputs.len() != wanted || outputs.iter().any(|name| !["y", "z"].contains(name)) {
        return false;
    }
    if seen.len() != spec.inputs.len() {
        return false;
    }
    let mut symbols: BTreeMap<&str, i64> = BTreeMap::new();
    for declared in &spec.inputs {
        let Some(input) = seen.get(&*declared.name) else { return false };
        if input.datatype != declared.dtype.wire_name() || input.shape.len() != declared.dims.len()
        {
            return false;
        }
        for (dim, size) in declared.dims.iter().zip(&input.shape) {
            let fits = match dim {
                Dim::Fixed(wanted) => wanted == size,
                Dim::Dynamic(None) => true,
                Dim::Dynamic(Some(symbol)) => symbols.entry(symbol).or_insert(*size) == size,
            };
            if !fits {
                return false;
            }
        }
    }
    symbols.get("batch").is_some_and(|rows| (1..=8).contains(rows))
}

/// How many elements a shape has, whatever their number; `None` where it is no shape: a size below zero,
/// or sizes that memory could not hold even if another one were not zero.
fn elements(shape: &[i64]) -> Option<BigInt> {
    let product =
        |sizes: &mut dyn Iterator<Item = i64>| sizes.map(BigInt::from).product::<BigInt>();
    let most = BigInt::from(isize::MAX);
    let is_shape = shape.iter().all(|size| *size >= 0)
        && product(&mut shape.iter().copied().filter(|size| *size > 0)) <= most;
    is_shape.then(|| product(&mut shape.iter().copied()))
}

fn is_raw_right(input: &InferInputTensor, raw: &[u8], width: Option<usize>) -> bool {
    let Some(count) = elements(&input.shape) else { return false };
    match (input.datatype.as_str(), width) {
        ("BYTES", _) => {
            let (mut rest, mut found) = (raw, BigInt::ZERO);
            while !rest.is_empty() {
                let Some((length, after)) = rest.split_first_chunk::<4>() else { return false };
                let length = BigInt::from(u32::from_le_bytes(*length));
                if length > BigInt::from(after.len()) {
                    return false;
                }
                rest = &after[usize::try_from(length).unwrap()..];
                found += 1;
            }
            found == count
        }
        (datatype, Some(width)) => {
            let is_whole = count * BigInt::from(width) == BigInt::from(raw.len());
            is_whole && (datatype != "BOOL" || raw.iter().all(|byte| *byte <= 1))
        }
        _ => false,
    }
}

fn is_typed_right(input: &InferInputTensor, contents: &InferTensorContents) -> bool {
    let Some(count) = elements(&input.shape) else { return false };
    let lists = [
        ("FP32", contents.fp32_contents.len()),
        ("INT64", contents.int64_contents.len()),
        ("BOOL", contents.bool_contents.len()),
        ("BYTES", contents.bytes_contents.len()),
        ("INT32", contents.int_contents.len()),
    ];
    let is_known = lists.iter().any(|(datatype, _)| *datatype == input.datatype);
    is_known
        && lists.iter().all(|(datatype, length)| {
            let wanted = if *datatype == input.datatype { count.clone() } else { BigInt::ZERO };
            BigInt::from(*length) == wanted
        })
}

/// What the server makes of it: the request, or the sentence that its sender is told.
fn judged(request: ModelInferRequest) -> Result<ValidRequest, String> {
    let (decoded, _) = codec::decode(request).map_err(|error| error.message)?;
    validate(decoded, &spec(), MAX_ROWS).map_err(|error| error.message)
}

#[test]
fn what_is_accepted_is_what_the_rules_accept() {
    let cases = (
        1_i64..=9,
        0_i64..4,
        any::<bool>(),
        proptest::collection::vec((0..CHANGES, any::<u64>()), 0..4),
    );
    let (accepted, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
    let held = runner.run(&cases, |(rows, length, is_typed, changes)| {
        let mut request = fitting(rows, length, is_typed);
        for each in changes {
            change(&mut request, each);
        }
        let wanted = is_right(&request);
        match judged(request.clone()) {
            Ok(valid) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                prop_assert!(wanted, "accepted: {request:?}");
                let rows = request.inputs.iter().find(|input| input.name == "x").unwrap().shape[0];
                prop_assert_eq!(i64::try_from(valid.rows()).unwrap(), rows);
            }
            Err(told) => {
                refused.fetch_add(1, Ordering::Relaxed);
                prop_assert!(!wanted, "refused ({told}): {request:?}");
                let names_it = told.contains('`') || told.contains("request has");
                prop_assert!(names_it || told.starts_with("raw_input_contents"), "{told}");
            }
        }
        Ok(())
    });
    held.unwrap();
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    assert!(accepted > CASES / 10 && refused > CASES / 10, "{accepted} and {refused}");
}

/// The reference itself is held against what is known: sizes whose product wraps in 64 bits.
#[test]
fn products_that_wrap_are_no_shapes() {
    let right = [vec![], vec![0], vec![3, 0, 4], vec![i64::MAX], vec![1 << 31, 1 << 31]];
    let wrong = [
        vec![-1],
        vec![1 << 62, 4],
        vec![(1 << 62) + 1, 4],
        vec![1 << 32, 1 << 32],
        vec![0, 1 << 62, 1 << 62],
        vec![i64::MAX, 2],
    ];
    for shape in right {
        assert!(elements(&shape).is_some(), "{shape:?}");
    }
    for shape in wrong {
        assert!(elements(&shape).is_none(), "{shape:?}");
        let mut request = fitting(1, 1, false);
        request.inputs[1].shape = shape.clone();
        assert!(judged(request).is_err(), "{shape:?}");
    }
}
