//! Finds, for each tensor of a model, the axis on which its rows lie.
//!
//! A wrong guess would mix the answers of strangers, so the rules only take what the model says
//! plainly, and give up (no batching) where it is silent. A model's settings can say it instead.
//! Pure; the `onnx` room calls it with what it read from the graph.

use std::collections::BTreeMap;

use super::{Dim, ModelSpec, TensorSpec};

/// What a model's settings say of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AxisOverride {
    /// Rows lie on this axis.
    Axis(usize),
    /// All rows of a run share this tensor.
    Shared,
}

/// Why settings and signature do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AxisError {
    /// The model has no tensor of that name.
    #[error("no input or output is called `{0}`")]
    UnknownTensor(String),
    /// The tensor has fewer dimensions.
    #[error("`{tensor}` has {rank} dimensions, so no axis {axis}")]
    NoAxis {
        /// Name of the tensor.
        tensor: String,
        /// Its rank.
        rank: usize,
        /// The axis that was asked for.
        axis: usize,
    },
    /// The dimension has a fixed size, so rows cannot be joined along it.
    #[error("axis {axis} of `{tensor}` is fixed to {size}, so rows cannot be joined along it")]
    FixedAxis {
        /// Name of the tensor.
        tensor: String,
        /// The axis that was asked for.
        axis: usize,
        /// Its size.
        size: i64,
    },
    /// An output was declared as shared although the model has rows.
    #[error("output `{0}` cannot be shared: every caller needs rows of its own")]
    SharedOutput(String),
}

/// Assigns batch axes.
///
/// The symbol of axis 0 of the first input that has a dynamic axis 0 names the rows. In every
/// other tensor the axis with that symbol holds the rows; an input without it is shared. Where the
/// graph gives no symbols, axis 0 holds the rows if it is dynamic in every tensor. An output whose
/// axis 0 is dynamic under another symbol counts as rows too: its size is compared at each run.
/// In every other case requests run alone, and the reason is returned.
///
/// # Errors
/// [`AxisError`] if `overrides` contradict the signature.
pub fn assign(
    mut spec: ModelSpec,
    overrides: &BTreeMap<String, AxisOverride>,
) -> Result<(ModelSpec, Option<String>), AxisError> {
    check(&spec, overrides)?;
    let symbol = spec.inputs.iter().filter(|input| !overrides.contains_key(&*input.name)).find_map(
        |input| match input.dims.first() {
            Some(Dim::Dynamic(symbol)) => Some(symbol.clone()),
            _ => None,
        },
    );
    let symbol = match symbol {
        Some(symbol) => symbol.as_deref().map(str::to_owned),
        None if overrides.is_empty() => {
            return Ok((spec.without_rows(), Some("no input has a dynamic first axis".into())));
        }
        None => None,
    };
    for input in &mut spec.inputs {
        match axis_of(input, overrides, symbol.as_deref(), false) {
            Ok(axis) => input.batch_axis = axis,
            Err(reason) => return Ok((spec.without_rows(), Some(reason))),
        }
    }
    for output in &mut spec.outputs {
        match axis_of(output, overrides, symbol.as_deref(), true) {
            Ok(axis) => output.batch_axis = axis,
            Err(reason) => return Ok((spec.without_rows(), Some(reason))),
        }
    }
    if spec.has_rows() {
        Ok((spec, None))
    } else {
        Ok((spec.without_rows(), Some("no input has rows".into())))
    }
}

fn check(spec: &ModelSpec, overrides: &BTreeMap<String, AxisOverride>) -> Result<(), AxisError> {
    for (name, rule) in overrides {
        let input = spec.inputs.iter().find(|tensor| *tensor.name == **name);
        let output = spec.outputs.iter().find(|tensor| *tensor.name == **name);
        let Some(tensor) = input.or(output) else {
            return Err(AxisError::UnknownTensor(name.clone()));
        };
        match *rule {
            AxisOverride::Shared if input.is_none() => {
                return Err(AxisError::SharedOutput(name.clone()));
            }
            AxisOverride::Shared => {}
            AxisOverride::Axis(axis) => match tensor.dims.get(axis) {
                None => {
                    let (tensor, rank) = (name.clone(), tensor.dims.len());
                    return Err(AxisError::NoAxis { tensor, rank, axis });
                }
                Some(Dim::Fixed(size)) => {
                    let (tensor, size) = (name.clone(), *size);
                    return Err(AxisError::FixedAxis { tensor, axis, size });
                }
                Some(Dim::Dynamic(_)) => {}
            },
        }
    }
    Ok(())
}

/// The axis of one tensor, or why the model cannot be batched.
fn axis_of(
    tensor: &TensorSpec,
    overrides: &BTreeMap<String, AxisOverride>,
    symbol: Option<&str>,
    is_output: bool,
) -> Result<Option<usize>, String> {
    match overrides.get(&*tensor.name) {
        Some(AxisOverride::Axis(axis)) => return Ok(Some(*axis)),
        Some(AxisOverride::Shared) => return Ok(None),
        None => {}
    }
    let carries = |dim: &Dim| matches!((dim, symbol), (Dim::Dynamic(Some(own)), Some(rows)) if **own == *rows);
    if let Some(axis) = tensor.dims.iter().position(carries) {
        return Ok(Some(axis));
    }
    match tensor.dims.first() {
        Some(Dim::Dynamic(None)) => Ok(Some(0)),
        Some(Dim::Dynamic(Some(_))) if is_output => Ok(Some(0)),
        Some(Dim::Dynamic(Some(other))) => Err(match symbol {
            Some(rows) => format!(
                "`{}` has `{other}` on its first axis where another input has `{rows}`",
                tensor.name
            ),
            None => format!(
                "`{}` has `{other}` on its first axis where another input has no name",
                tensor.name
            ),
        }),
        _ if is_output => Err(format!("output `{}` has no axis for rows", tensor.name)),
        // An input that says nothing about rows is the same for all of them only if the rows
        // have a name that it could have carried.
        _ if symbol.is_some() || !overrides.is_empty() => Ok(None),
        _ => Err(format!("input `{}` has no axis for rows", tensor.name)),
    }
}
