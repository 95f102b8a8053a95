//! Names that cannot be paths, and the axes of models as exporters write them.

use std::collections::BTreeMap;

use super::axes::{AxisOverride, assign};
use super::{Dim, ModelName, ModelSpec, ModelVersion, TensorSpec};
use crate::tensor::DataType;

fn tensor(name: &str, dims: &[&str]) -> TensorSpec {
    let dims = dims
        .iter()
        .map(|dim| match dim.parse() {
            Ok(size) => Dim::Fixed(size),
            Err(_) if *dim == "?" => Dim::Dynamic(None),
            Err(_) => Dim::Dynamic(Some((*dim).into())),
        })
        .collect();
    TensorSpec {
        name: name.into(),
        dtype: DataType::Fp32,
        dims,
        batch_axis: None,
        reshape: None,
        ragged: None,
    }
}

fn axes(
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    overrides: &[(&str, AxisOverride)],
) -> (Vec<Option<usize>>, Option<String>) {
    let overrides: BTreeMap<_, _> =
        overrides.iter().map(|(name, rule)| ((*name).to_owned(), *rule)).collect();
    let (spec, reason) = assign(ModelSpec { inputs, outputs }, &overrides).unwrap();
    let all = spec.inputs.iter().chain(&spec.outputs);
    (all.map(|tensor| tensor.batch_axis).collect(), reason)
}

#[test]
fn names_are_never_paths() {
    for good in ["magika", "silero-vad", "a.b_c-1"] {
        assert!(ModelName::new(good).is_ok(), "{good}");
    }
    for bad in ["", ".", "..", "../x", "a/b", "a\\b", "a b", "a\0", "%2e", &"x".repeat(129)] {
        assert!(ModelName::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn versions_are_plain_positive_numbers() {
    assert_eq!(ModelVersion::parse("12").unwrap().number(), 12);
    for bad in ["", "0", "01", "-1", "+1", "one", "1.0", "99999999999999999999"] {
        assert!(ModelVersion::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_named_symbol_marks_the_rows_on_any_axis() {
    let (axes, reason) = axes(
        vec![tensor("x", &["batch", "2"]), tensor("state", &["2", "batch", "3"]), tensor("k", &[])],
        vec![tensor("y", &["batch"]), tensor("next", &["2", "batch", "3"])],
        &[],
    );
    assert_eq!(axes, [Some(0), Some(1), None, Some(0), Some(1)]);
    assert_eq!(reason, None);
}

#[test]
fn unnamed_axes_count_only_when_every_tensor_has_one() {
    let all = axes(vec![tensor("x", &["?", "4"])], vec![tensor("y", &["?", "4"])], &[]);
    assert_eq!(all.0, [Some(0), Some(0)]);
    let some = axes(
        vec![tensor("x", &["?", "4"]), tensor("k", &["4"])],
        vec![tensor("y", &["?", "4"])],
        &[],
    );
    assert_eq!(some.0, [None, None, None]);
    assert!(some.1.unwrap().contains("`k`"));
}

#[test]
fn different_symbols_on_first_axes_are_not_rows() {
    let (found, reason) = axes(
        vec![tensor("query", &["n", "4"]), tensor("keys", &["m", "4"])],
        vec![tensor("y", &["n", "4"])],
        &[],
    );
    assert_eq!(found, [None, None, None]);
    assert!(reason.unwrap().contains("`m`"));
}

#[test]
fn an_output_without_rows_turns_batching_off() {
    let (found, reason) =
        axes(vec![tensor("x", &["batch", "4"])], vec![tensor("sum", &["1", "4"])], &[]);
    assert_eq!(found, [None, None]);
    assert!(reason.unwrap().contains("`sum`"));
}

#[test]
fn fixed_first_axes_have_no_rows() {
    let (found, reason) = axes(vec![tensor("x", &["4", "2"])], vec![tensor("y", &["4"])], &[]);
    assert_eq!(found, [None, None]);
    assert!(reason.is_some());
}

#[test]
fn settings_say_what_the_graph_does_not() {
    let (found, reason) = axes(
        vec![tensor("input", &["?", "?"]), tensor("state", &["2", "?", "128"]), tensor("sr", &[])],
        vec![tensor("output", &["?", "1"]), tensor("stateN", &["?", "?", "?"])],
        &[
            ("state", AxisOverride::Axis(1)),
            ("sr", AxisOverride::Shared),
            ("stateN", AxisOverride::Axis(1)),
        ],
    );
    assert_eq!(found, [Some(0), Some(1), None, Some(0), Some(1)]);
    assert_eq!(reason, None);
}

#[test]
fn settings_that_contradict_the_graph_are_refused() {
    let spec = || ModelSpec {
        inputs: vec![tensor("x", &["batch", "4"])],
        outputs: vec![tensor("y", &["batch"])],
    };
    let refused = |name: &str, rule| {
        let rules = BTreeMap::from([(name.to_owned(), rule)]);
        assign(spec(), &rules).unwrap_err().to_string()
    };
    assert_eq!(refused("z", AxisOverride::Shared), "no input or output is called `z`");
    assert_eq!(refused("x", AxisOverride::Axis(2)), "`x` has 2 dimensions, so no axis 2");
    assert!(refused("x", AxisOverride::Axis(1)).contains("fixed to 4"));
    assert!(refused("y", AxisOverride::Shared).contains("cannot be shared"));
}
