//! A decoded request, checked against a model's signature.
//!
//! [`InferRequest`] is what a client sent, whatever the protocol; [`validate()`] turns it into a
//! [`ValidRequest`], whose existence proves that it fits the model. After that nothing is checked
//! twice. No message type, no queue, no clock. The wire rooms call it on the async side, so it
//! copies no tensor.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::SpanContext;
use tokio::time::Instant;

use crate::model::{ModelSpec, TensorSpec};
use crate::tensor::Tensor;
use crate::tensor::rows::{RowsError, slice};

mod validate;

pub use validate::{length_of, validate};

/// A request as decoded from a message, not yet held against a model.
#[derive(Debug, Clone, Default)]
pub struct InferRequest {
    /// Inputs in the order of the message.
    pub inputs: Vec<NamedTensor>,
    /// Names of the wanted outputs, in the wanted order; empty for all.
    pub outputs: Vec<String>,
    /// Time limit that the request itself asks for.
    pub timeout: Option<Duration>,
    /// Urgency: 1 is the most urgent, 0 the default.
    pub priority: u64,
    /// Whose request it is: callers share a model fairly. 0 is "unknown".
    pub tenant: u64,
    /// The span that it belongs to, where its trace is recorded.
    pub trace: Option<Arc<SpanContext>>,
}

/// A tensor and the name that the client gave it.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// Name of the input.
    pub name: String,
    /// Contents.
    pub tensor: Tensor,
}

/// A request that fits its model. Made only by [`validate()`].
#[derive(Debug, Clone)]
pub struct ValidRequest {
    inputs: Vec<Tensor>,
    rows: usize,
    length: usize,
    outputs: Option<Vec<usize>>,
    batch_key: Option<BatchKey>,
    byte_size: usize,
    priority: u64,
    tenant: u64,
    trace: Option<Arc<SpanContext>>,
}

/// What requests must have in common to share a run: every dimension but the rows and those that
/// are padded, and the contents of the inputs that all rows share. Compared by value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BatchKey {
    dims: Vec<i64>,
    shared: Vec<Bytes>,
}

impl ValidRequest {
    /// One tensor per input of the model, in the model's order.
    pub fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// Rows; 1 for a model without a batch axis.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How long each of the rows is, in elements of the open dimensions: a run costs more the longer
    /// its rows are.
    ///
    /// For a model whose inputs are padded it is the size along the padded axis, 0 included, and a
    /// run is as long as its longest rider. Else it is the product of the dynamic dimensions but
    /// the rows, of the input where that is largest; 1 if all inner dimensions are fixed.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Positions of the wanted outputs among the model's, in the wanted order; `None` for all.
    pub fn outputs(&self) -> Option<&[usize]> {
        self.outputs.as_deref()
    }

    /// Group that the request may share a run with; `None` if it must run alone.
    pub fn batch_key(&self) -> Option<&BatchKey> {
        self.batch_key.as_ref()
    }

    /// Urgency: 1 is the most urgent, 0 the default.
    pub fn priority(&self) -> u64 {
        self.priority
    }

    /// Whose request it is; 0 is "unknown".
    pub fn tenant(&self) -> u64 {
        self.tenant
    }

    /// The span that it belongs to, where its trace is recorded.
    pub fn trace(&self) -> Option<&Arc<SpanContext>> {
        self.trace.as_ref()
    }

    /// The same request with only some of its rows, as one of the parts that it is split into.
    ///
    /// # Errors
    /// [`RowsError`] if it has not these rows.
    pub fn with_rows(&self, rows: &Range<usize>, spec: &ModelSpec) -> Result<Self, RowsError> {
        let inputs = self.inputs.iter().zip(&spec.inputs);
        let part = |(tensor, declared): (&Tensor, &TensorSpec)| match declared.batch_axis {
            Some(axis) => slice(tensor, axis, rows),
            None => Ok(tensor.clone()),
        };
        let inputs = inputs.map(part).collect::<Result<_, _>>()?;
        Ok(Self { inputs, rows: rows.len(), ..self.clone() })
    }

    /// Memory that the inputs hold, in bytes.
    pub fn byte_size(&self) -> usize {
        self.byte_size
    }
}

/// An answer: the wanted outputs and where its time went.
#[derive(Debug, Clone)]
pub struct InferResponse {
    /// Wanted outputs in the wanted order, each with its position in the model's signature.
    pub outputs: Vec<(usize, Tensor)>,
    /// When the run that made them began.
    pub started_at: Instant,
    /// Rows of all requests in that run.
    pub batch_rows: usize,
}

/// Sizes that symbols of a signature stand for in one request.
type Symbols<'a> = BTreeMap<&'a str, (i64, &'a str)>;

#[cfg(test)]
mod tests;
