//! Rules that fit a signature, and each way in which they do not.

use super::*;
use crate::tensor::DataType;

fn tensor(name: &str, dtype: DataType, dims: &[&str], batch_axis: Option<usize>) -> TensorSpec {
    let dim = |dim: &&str| match dim.parse() {
        Ok(size) => Dim::Fixed(size),
        Err(_) if *dim == "?" => Dim::Dynamic(None),
        Err(_) => Dim::Dynamic(Some((*dim).into())),
    };
    let dims = dims.iter().map(dim).collect();
    TensorSpec { name: name.into(), dtype, dims, batch_axis, reshape: None, ragged: None }
}

/// A text encoder.
fn spec() -> ModelSpec {
    let rows = Some(0);
    ModelSpec {
        inputs: vec![
            tensor("ids", DataType::Int64, &["batch", "seq"], rows),
            tensor("mask", DataType::Bool, &["batch", "seq"], rows),
            tensor("k", DataType::Fp32, &["n"], None),
        ],
        outputs: vec![
            tensor("pooled", DataType::Fp32, &["batch", "4"], rows),
            tensor("scores", DataType::Fp32, &["batch", "seq", "3"], rows),
        ],
    }
}

fn rules(pads: &[(&str, usize, &str)], cuts: &[(&str, usize)]) -> RaggedRules {
    let pad = |(name, axis, value): &(&str, usize, &str)| {
        let value = (!value.is_empty()).then(|| (*value).to_owned());
        ((*name).to_owned(), PadRule { axis: *axis, value })
    };
    RaggedRules {
        pads: pads.iter().map(pad).collect(),
        cuts: cuts.iter().map(|(name, axis)| ((*name).to_owned(), *axis)).collect(),
    }
}

const PADS: [(&str, usize, &str); 2] = [("ids", 1, "101"), ("mask", 1, "")];

#[test]
fn rules_that_fit_say_how_each_tensor_is_padded_or_cut() {
    let ragged = assign(spec(), &rules(&PADS, &[("scores", 1)])).unwrap();
    let fill = Fill::parse(DataType::Int64, "101").unwrap();
    assert_eq!(ragged.inputs[0].pad(), Some(Pad { axis: 1, fill }));
    let fill = Fill::zero(DataType::Bool);
    assert_eq!(ragged.inputs[1].pad(), Some(Pad { axis: 1, fill }));
    assert_eq!(ragged.inputs[2].pad(), None);
    let axes = |tensors: &[TensorSpec]| -> Vec<_> {
        tensors.iter().map(TensorSpec::length_axis).collect()
    };
    assert_eq!(axes(&ragged.inputs), [Some(1), Some(1), None]);
    assert_eq!(axes(&ragged.outputs), [None, Some(1)]);
    assert!(ragged.is_ragged() && !spec().is_ragged());
    assert_eq!(ragged.clone().without_padding(), spec());
    assert_eq!(ragged.without_rows(), spec().without_rows());
    assert_eq!(assign(spec(), &RaggedRules::default()).unwrap(), spec());
}

#[test]
fn every_mistake_is_found_and_names_its_key() {
    let problems = |pads: &[(&str, usize, &str)], cuts: &[(&str, usize)]| {
        assign(spec(), &rules(pads, cuts)).unwrap_err()
    };
    let all = problems(
        &[("ids", 1, "1.5"), ("k", 0, ""), ("mask", 0, ""), ("words", 1, "")],
        &[("pooled", 1), ("scores", 3)],
    );
    assert_eq!(
        all,
        [
            "inputs.ids.pad: expected a value of INT64, got \"1.5\"",
            "inputs.k.pad: `k` has no rows of its own for each request",
            "inputs.mask.pad: axis 0 of `mask` holds the rows, so it has no length",
            "inputs.words.pad: the model has no such input, it has `ids`, `mask`, `k`",
            "outputs.pooled.cut: axis 1 of `pooled` is fixed to 4, so all are equally long",
            "outputs.scores.cut: `scores` has 3 dimensions, so no axis 3",
        ]
    );
    assert_eq!(
        problems(&[], &[("scores", 1)]),
        ["outputs.scores.cut: no input is padded, so there is nothing to cut off"]
    );
}

#[test]
fn what_has_the_padded_symbol_needs_a_rule() {
    assert_eq!(
        assign(spec(), &rules(&PADS[..1], &[])).unwrap_err(),
        [
            "inputs.mask: axis 1 is `seq` as is the padded axis 1 of `ids`, but there is no pad \
             for it, so requests of different length could not share a run",
            "outputs.scores: axis 1 is `seq` as is the padded axis 1 of `ids`, but there is no \
             cut for it, so callers would get padding",
        ]
    );
    // Pairs of tokens have two lengths, and one rule covers one.
    let mut pairs = spec();
    pairs.outputs[1].dims[2] = Dim::Dynamic(Some("seq".into()));
    let problems = assign(pairs, &rules(&PADS, &[("scores", 1)])).unwrap_err();
    assert!(problems[0].starts_with("outputs.scores: axis 2 is `seq`"), "{problems:?}");
    // Dimensions without a name say nothing of each other.
    let mut unnamed = spec();
    for tensor in unnamed.inputs[..2].iter_mut().chain(&mut unnamed.outputs[1..]) {
        tensor.dims[1] = Dim::Dynamic(None);
    }
    assert!(assign(unnamed, &rules(&PADS, &[])).is_ok());
}

#[test]
fn a_model_without_rows_has_nothing_to_pad() {
    let problems = assign(spec().without_rows(), &rules(&PADS[..1], &[])).unwrap_err();
    assert_eq!(problems, ["inputs.ids.pad: `ids` has no rows of its own for each request"]);
}
