//! Models whose rows may have different lengths in one run: which inputs are padded to the longest
//! request, and which outputs are cut back to each request's own.
//!
//! A graph says that a dimension is open, never what may stand behind the end of a row, so only
//! settings can say it. A model has one length: all padded inputs of a request agree in it. Here
//! the settings are held against the signature; pure, called when a model is loaded.

use std::collections::BTreeMap;

use super::{Dim, ModelSpec, TensorSpec};
use crate::tensor::Fill;
use crate::tensor::rows::Pad;

/// What a tensor does where requests of different length share a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ragged {
    /// An input: it is padded to the longest request.
    Padded(Pad),
    /// An output: it is cut back to each request's own length.
    Cut {
        /// The axis of the length.
        axis: usize,
    },
}

impl Ragged {
    /// The axis of the length.
    pub fn axis(self) -> usize {
        match self {
            Self::Padded(pad) => pad.axis,
            Self::Cut { axis } => axis,
        }
    }
}

/// What settings say of padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaggedRules {
    /// How inputs are padded, by name.
    pub pads: BTreeMap<String, PadRule>,
    /// The axis along which outputs are cut back, by name.
    pub cuts: BTreeMap<String, usize>,
}

/// How settings say that one input is padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PadRule {
    /// The axis of the length.
    pub axis: usize,
    /// The value that stands behind the end, as written; `None` for zero, false or an empty string.
    pub value: Option<String>,
}

impl TensorSpec {
    /// How this input is padded, if it is.
    pub fn pad(&self) -> Option<Pad> {
        match self.ragged {
            Some(Ragged::Padded(pad)) => Some(pad),
            _ => None,
        }
    }

    /// The axis along which this tensor has the length of its request, if the settings say so.
    pub fn length_axis(&self) -> Option<usize> {
        self.ragged.map(Ragged::axis)
    }
}

impl ModelSpec {
    /// Whether requests of different length may share a run.
    pub fn is_ragged(&self) -> bool {
        self.inputs.iter().any(|input| input.ragged.is_some())
    }

    /// The same signature for runs of requests of equal length.
    #[must_use]
    pub fn without_padding(mut self) -> Self {
        for tensor in self.inputs.iter_mut().chain(&mut self.outputs) {
            tensor.ragged = None;
        }
        self
    }
}

/// Lays the rules over a signature whose axes of rows are known.
///
/// # Errors
/// Everything in which rules and signature do not fit together, each with the key of the rule: no
/// such tensor or axis, a fixed size, the axis of the rows, a tensor without rows, a value that the
/// datatype lacks, an output rule without an input rule. A dimension that has the symbol of a
/// padded one and no rule is a mistake, too: requests would never meet, or answers hold padding.
pub fn assign(mut spec: ModelSpec, rules: &RaggedRules) -> Result<ModelSpec, Vec<String>> {
    let mut problems = Vec::new();
    for (name, rule) in &rules.pads {
        let padded = find(&mut spec.inputs, "input", name, rule.axis).and_then(|input| {
            let fill = match &rule.value {
                None => Fill::zero(input.dtype),
                Some(text) => Fill::parse(input.dtype, text)?,
            };
            input.ragged = Some(Ragged::Padded(Pad { axis: rule.axis, fill }));
            Ok(())
        });
        problems.extend(padded.err().map(|problem| format!("inputs.{name}.pad: {problem}")));
    }
    for (name, axis) in &rules.cuts {
        let mut cut = find(&mut spec.outputs, "output", name, *axis)
            .map(|output| output.ragged = Some(Ragged::Cut { axis: *axis }));
        if cut.is_ok() && rules.pads.is_empty() {
            cut = Err("no input is padded, so there is nothing to cut off".to_owned());
        }
        problems.extend(cut.err().map(|problem| format!("outputs.{name}.cut: {problem}")));
    }
    if problems.is_empty() {
        problems.extend(uncovered(&spec));
    }
    if problems.is_empty() { Ok(spec) } else { Err(problems) }
}

/// The tensor of a rule, if its axis can have a length of its own for each request.
fn find<'a>(
    tensors: &'a mut [TensorSpec],
    kind: &str,
    name: &str,
    axis: usize,
) -> Result<&'a mut TensorSpec, String> {
    let Some(place) = tensors.iter().position(|tensor| *tensor.name == *name) else {
        let known: Vec<_> = tensors.iter().map(|each| format!("`{}`", each.name)).collect();
        return Err(format!("the model has no such {kind}, it has {}", known.join(", ")));
    };
    let tensor = &mut tensors[place];
    let rank = tensor.dims.len();
    match (tensor.batch_axis, tensor.dims.get(axis)) {
        (_, None) => Err(format!("`{name}` has {rank} dimensions, so no axis {axis}")),
        (_, Some(Dim::Fixed(size))) => {
            Err(format!("axis {axis} of `{name}` is fixed to {size}, so all are equally long"))
        }
        (None, _) => Err(format!("`{name}` has no rows of its own for each request")),
        (Some(rows), _) if rows == axis => {
            Err(format!("axis {axis} of `{name}` holds the rows, so it has no length"))
        }
        (Some(_), _) if tensor.reshape.is_some() => {
            Err(format!("`{name}` has another shape for callers than for the model"))
        }
        _ => Ok(tensor),
    }
}

/// Dimensions that have the symbol of a padded axis, and no rule.
fn uncovered(spec: &ModelSpec) -> Vec<String> {
    let symbol = |tensor: &TensorSpec, axis: usize| match tensor.dims.get(axis) {
        Some(Dim::Dynamic(symbol)) => symbol.clone(),
        _ => None,
    };
    let padded = |input: &TensorSpec| {
        let axis = input.length_axis()?;
        Some((symbol(input, axis)?, axis, input.name.clone()))
    };
    let padded: Vec<_> = spec.inputs.iter().filter_map(padded).collect();
    let mut problems = Vec::new();
    for (kind, wanted, why, tensors) in [
        ("inputs", "pad", "requests of different length could not share a run", &spec.inputs),
        ("outputs", "cut", "callers would get padding", &spec.outputs),
    ] {
        for tensor in tensors {
            let covered = [tensor.length_axis(), tensor.batch_axis];
            for axis in (0..tensor.dims.len()).filter(|axis| !covered.contains(&Some(*axis))) {
                let own = symbol(tensor, axis);
                let Some((symbol, other_axis, other)) =
                    padded.iter().find(|(symbol, ..)| Some(symbol) == own.as_ref())
                else {
                    continue;
                };
                let name = &tensor.name;
                problems.push(format!(
                    "{kind}.{name}: axis {axis} is `{symbol}` as is the padded axis {other_axis} \
                     of `{other}`, but there is no {wanted} for it, so {why}"
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;
