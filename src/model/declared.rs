//! What a configuration file says of a model's tensors, held against what the model says.
//!
//! A file that was written for another model is found here, before the first request. Where the
//! file says more than the model (a size that the graph leaves open, another shape for callers),
//! the signature takes it over. Pure; the repository calls it when a model is loaded.

use std::collections::BTreeMap;

use super::axes::{self, AxisOverride};
use super::reshape::Reshape;
use super::{Dim, ModelSpec, TensorSpec, quoted};
use crate::tensor::DataType;

/// What a file says of all tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Where the rows lie.
    pub rows: DeclaredRows,
    /// Inputs, in the file's order.
    pub inputs: Vec<DeclaredTensor>,
    /// Outputs, in the file's order.
    pub outputs: Vec<DeclaredTensor>,
}

/// What a file says of the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeclaredRows {
    /// Nothing; the model is asked.
    #[default]
    Unsaid,
    /// They lie on axis 0 of every tensor, and the file's shapes leave them out.
    Leading,
    /// There are none: every shape is complete.
    Absent,
}

/// What a file says of one tensor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredTensor {
    /// Its name.
    pub name: String,
    /// Its element type, if it is said.
    pub dtype: Option<DataType>,
    /// Its dimensions for callers, -1 for any size, if they are said.
    pub dims: Option<Vec<i64>>,
    /// Its dimensions for the model, if they differ.
    pub reshape: Option<Vec<i64>>,
    /// Meaning of its axes.
    pub layout: ImageLayout,
}

/// Where the channels of an image stand. Nothing is turned because of it; clients ask for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImageLayout {
    /// Nothing is said.
    #[default]
    None,
    /// Height, width, channels.
    Nhwc,
    /// Channels, height, width.
    Nchw,
}

impl Declared {
    /// The signature with what the file adds to it, the axes of the rows, and why there are no
    /// rows if there are none.
    ///
    /// # Errors
    /// Everything in which file and model differ, with both sides.
    pub fn apply(
        &self,
        mut spec: ModelSpec,
        axes: &BTreeMap<String, AxisOverride>,
    ) -> Result<(ModelSpec, Option<String>), Vec<String>> {
        let mut problems = Vec::new();
        if self.rows == DeclaredRows::Leading {
            need_rows("input", &spec.inputs, &mut problems);
            need_rows("output", &spec.outputs, &mut problems);
        }
        for (kind, declared, tensors) in [
            ("input", &self.inputs, &mut spec.inputs),
            ("output", &self.outputs, &mut spec.outputs),
        ] {
            for each in declared {
                if let Err(problem) = self.take_over(each, tensors) {
                    problems.push(format!("{kind} `{}`: {problem}", quoted(&each.name)));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        match self.rows {
            DeclaredRows::Unsaid => {
                axes::assign(spec, axes).map_err(|error| vec![error.to_string()])
            }
            DeclaredRows::Leading => {
                for tensor in spec.inputs.iter_mut().chain(&mut spec.outputs) {
                    tensor.batch_axis = Some(0);
                }
                Ok((spec, None))
            }
            DeclaredRows::Absent => {
                Ok((spec.without_rows(), Some("max_batch_size is 0".to_owned())))
            }
        }
    }

    fn take_over(
        &self,
        declared: &DeclaredTensor,
        tensors: &mut [TensorSpec],
    ) -> Result<(), String> {
        let Some(place) = tensors.iter().position(|tensor| *tensor.name == *declared.name) else {
            let known: Vec<_> = tensors.iter().map(|each| format!("`{}`", each.name)).collect();
            return Err(format!("the model has no such tensor, it has {}", known.join(", ")));
        };
        let tensor = &mut tensors[place];
        if let Some(dtype) = declared.dtype.filter(|dtype| *dtype != tensor.dtype) {
            return Err(format!("the file says {dtype}, the model has {}", tensor.dtype));
        }
        let Some(dims) = &declared.dims else { return Ok(()) };
        let inner = declared.reshape.as_ref().unwrap_or(dims);
        let has_rows = self.rows == DeclaredRows::Leading;
        let skip = usize::from(has_rows);
        let own = tensor.dims.get_mut(skip..).unwrap_or_default();
        let fits =
            |(said, own): (&i64, &Dim)| *said == -1 || own.is_dynamic() || *said == own.wire();
        if inner.len() != own.len() || !inner.iter().zip(own.iter()).all(fits) {
            let own: Vec<i64> = own.iter().map(Dim::wire).collect();
            let rows = if has_rows { ", the batch dimension aside" } else { "" };
            return Err(format!("the file says {inner:?}, the model has {own:?}{rows}"));
        }
        for (said, own) in inner.iter().zip(own) {
            if *said != -1 {
                *own = Dim::Fixed(*said);
            }
        }
        if declared.reshape.is_some() {
            tensor.reshape = Some(Reshape::new(dims.clone(), inner.clone(), has_rows)?);
        }
        Ok(())
    }
}

/// Every tensor needs a first dimension of any size, or rows cannot lie there.
fn need_rows(kind: &str, tensors: &[TensorSpec], problems: &mut Vec<String>) {
    for tensor in tensors {
        let found = match tensor.dims.first() {
            Some(Dim::Dynamic(_)) => continue,
            Some(Dim::Fixed(size)) => format!("is fixed to {size}"),
            None => "is missing".to_owned(),
        };
        problems.push(format!(
            "{kind} `{}`: max_batch_size is above 0, so the first dimension must take any number \
             of rows, but in the model it {found}; with max_batch_size 0 the shapes are complete",
            tensor.name
        ));
    }
}

#[cfg(test)]
mod tests;
