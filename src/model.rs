//! Names and signatures of models.
//!
//! What a model is called, which tensors it takes and gives, along which axis of each its rows lie,
//! and along which they may have a length of their own. Pure vocabulary: nothing here opens a file or runs anything. The repository and the `onnx`
//! room make these values; the request path reads them.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use crate::tensor::{DataType, Shape};
use ragged::Ragged;
use reshape::Reshape;

pub mod axes;
pub mod declared;
pub mod ragged;
pub mod reshape;

/// Name of a model: 1 to 128 letters, digits, `_`, `-`, `.`; it does not start with a dot.
///
/// So it can be a folder's name but never a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

/// Version of a model: a positive number. "The newest" is the absence of a version, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelVersion(NonZeroU64);

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelKey {
    /// Name.
    pub name: ModelName,
    /// Version.
    pub version: ModelVersion,
}

/// Why a text is not a name or a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has a character that a name cannot have, or a length that it cannot have.
    #[error(
        "{0:?} is not a model name: expected 1 to 128 letters, digits, '_', '-' or '.', \
         not starting with '.'"
    )]
    Name(String),
    /// The text is not a positive number.
    #[error("{0:?} is not a model version: expected a positive whole number")]
    Version(String),
}

/// Longest part of a foreign text that an error repeats, in characters.
const QUOTED_CHARS: usize = 64;

/// Cuts a text from outside to a length that fits in a message or a log line.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl ModelName {
    /// Checks the characters.
    ///
    /// # Errors
    /// [`NameError::Name`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        let fits = (1..=128).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if fits { Ok(Self(name.into())) } else { Err(NameError::Name(quoted(name))) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So that a map keyed by names can be asked with the text of a message, without a check or a copy.
impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl ModelVersion {
    /// The first version, which a single file is served as.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// A version from its number; `None` for 0.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// Reads a version as folders and messages write it: decimal digits without sign or zeros
    /// in front.
    ///
    /// # Errors
    /// [`NameError::Version`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let plain = !text.starts_with(['0', '+']);
        let number = if plain { text.parse().ok() } else { None };
        number.map(Self).ok_or_else(|| NameError::Version(quoted(text)))
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// One declared dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Always this size.
    Fixed(i64),
    /// Any size; dimensions with the same symbol have the same size in one request.
    Dynamic(Option<Arc<str>>),
}

impl Dim {
    /// As metadata shows it: -1 when dynamic.
    pub fn wire(&self) -> i64 {
        match self {
            Self::Fixed(size) => *size,
            Self::Dynamic(_) => -1,
        }
    }

    /// Whether the size may differ between requests.
    pub fn is_dynamic(&self) -> bool {
        matches!(self, Self::Dynamic(_))
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Dynamic(Some(symbol)) => f.write_str(symbol),
            Self::Dynamic(None) => f.write_str("-1"),
        }
    }
}

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: Arc<str>,
    /// Element type.
    pub dtype: DataType,
    /// Declared dimensions; empty for a scalar.
    pub dims: Vec<Dim>,
    /// Axis along which rows of different requests are joined and cut; `None` for a tensor that
    /// all rows of a run share, or that has no rows.
    pub batch_axis: Option<usize>,
    /// The other shape that callers see; `None` where they see the model's own.
    pub reshape: Option<Reshape>,
    /// Its part in runs of requests of different length; `None` where its size is the same for all
    /// that share a run.
    pub ragged: Option<Ragged>,
}

impl TensorSpec {
    /// Dimensions as callers see them: -1 where dynamic.
    pub fn wire_dims(&self) -> Vec<i64> {
        match &self.reshape {
            Some(reshape) => reshape.wire_dims(),
            None => self.dims.iter().map(Dim::wire).collect(),
        }
    }

    /// Whether `shape` has the model's rank and fixed sizes.
    pub fn accepts(&self, shape: &Shape) -> bool {
        shape.rank() == self.dims.len()
            && self.dims.iter().zip(shape.dims()).all(|(dim, actual)| match dim {
                Dim::Fixed(size) => size == actual,
                Dim::Dynamic(_) => true,
            })
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[", self.name, self.dtype)?;
        let dims: Vec<String> = match &self.reshape {
            Some(reshape) => reshape.wire_dims().iter().map(ToString::to_string).collect(),
            None => self.dims.iter().map(ToString::to_string).collect(),
        };
        write!(f, "{}]", dims.join(","))
    }
}

/// Signature of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// Inputs in the graph's order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the graph's order.
    pub outputs: Vec<TensorSpec>,
}

impl ModelSpec {
    /// Whether requests have rows that can be joined: at least one input has a batch axis. That every
    /// output has one then, too, is what [`axes::assign`] and [`declared`] hold.
    pub fn has_rows(&self) -> bool {
        self.inputs.iter().any(|input| input.batch_axis.is_some())
    }

    /// Whether rows lie on axis 0 of every tensor, as Triton's `max_batch_size` supposes.
    pub fn rows_lead(&self) -> bool {
        let mut all = self.inputs.iter().chain(&self.outputs);
        self.has_rows() && all.all(|tensor| tensor.batch_axis == Some(0))
    }

    /// The same signature for runs of one request at a time.
    #[must_use]
    pub fn without_rows(self) -> Self {
        let mut spec = self.without_padding();
        for tensor in spec.inputs.iter_mut().chain(&mut spec.outputs) {
            tensor.batch_axis = None;
        }
        spec
    }
}

#[cfg(test)]
mod tests;
