//! Joins the rows of several tensors into one and cuts them apart again, along any axis.
//!
//! Raw tensors of a fixed element size are copied nowhere else: once on the way into a batch, and on
//! the way out only when the axis is not the first (rows along axis 0 are slices of one buffer).
//! Texts, flags on their way to a GPU and contents that a message carries as lists are converted
//! where they change their form (`onnx::strings`, `onnx::elements`, `grpc::typed`).
//! The worker calls it, never the async side. No model, no runtime, no `unsafe`.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::{DataType, Shape, ShapeError, Tensor, TensorData};

/// Several tensors that are one along `axis`: what an executor reads one input of a batch from.
///
/// All parts have the datatype and, but for `axis`, the shape of the first.
#[derive(Debug)]
pub struct Joined<'a> {
    parts: Vec<&'a Tensor>,
    axis: Option<usize>,
    shape: Shape,
}

/// Why tensors cannot be joined or cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// There is nothing to join.
    #[error("no tensor to join")]
    Nothing,
    /// The parts differ in rank, datatype or a dimension other than the axis.
    #[error("cannot join {dtype} {shape} with {other_dtype} {other_shape}")]
    Mismatch {
        /// First part's datatype.
        dtype: DataType,
        /// First part's shape.
        shape: Shape,
        /// The other part's datatype.
        other_dtype: DataType,
        /// The other part's shape.
        other_shape: Shape,
    },
    /// The tensor has no such axis.
    #[error("shape {shape} has no axis {axis}")]
    NoAxis {
        /// Shape of the tensor.
        shape: Shape,
        /// The missing axis.
        axis: usize,
    },
    /// The rows along the axis are not the sum of the parts.
    #[error("{actual} rows along axis {axis} of {shape}, expected {expected}")]
    RowCount {
        /// Shape of the tensor.
        shape: Shape,
        /// The axis.
        axis: usize,
        /// Sum of the parts' rows.
        expected: usize,
        /// Rows that the tensor has.
        actual: usize,
    },
    /// The joined shape is too large.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl<'a> Joined<'a> {
    /// Joins `parts` along `axis`. Without an axis (a shared or unbatched input) the first part
    /// stands for all: the caller has made sure that they are equal.
    ///
    /// # Errors
    /// [`RowsError::Nothing`] without parts; [`RowsError::NoAxis`], [`RowsError::Mismatch`] if the
    /// parts do not fit together; [`RowsError::Shape`] if the joined size overflows.
    pub fn new(mut parts: Vec<&'a Tensor>, axis: Option<usize>) -> Result<Self, RowsError> {
        let Some(first) = parts.first().copied() else {
            return Err(RowsError::Nothing);
        };
        let Some(axis) = axis else {
            parts.truncate(1);
            return Ok(Self { parts, axis: None, shape: first.shape().clone() });
        };
        let no_axis = |tensor: &Tensor| RowsError::NoAxis { shape: tensor.shape().clone(), axis };
        let mut rows = first.shape().dim(axis).ok_or_else(|| no_axis(first))?;
        for part in &parts[1..] {
            let more = part.shape().dim(axis).ok_or_else(|| no_axis(part))?;
            if part.dtype() != first.dtype() || !same_but(part.shape(), first.shape(), axis) {
                return Err(RowsError::Mismatch {
                    dtype: first.dtype(),
                    shape: first.shape().clone(),
                    other_dtype: part.dtype(),
                    other_shape: part.shape().clone(),
                });
            }
            rows += more;
        }
        let shape = first.shape().with_dim(axis, rows)?;
        Ok(Self { parts, axis: Some(axis), shape })
    }

    /// Datatype of the elements.
    pub fn dtype(&self) -> DataType {
        self.parts[0].dtype()
    }

    /// Shape of the whole.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Size of the whole in bytes; 0 for BYTES.
    pub fn byte_len(&self) -> usize {
        self.shape.elements() * self.dtype().size_bytes().unwrap_or(0)
    }

    /// The bytes of the only part, when there is just one: they can be used without a copy.
    pub fn single(&self) -> Option<&'a Bytes> {
        match self.parts.as_slice() {
            [only] => only.dense_bytes(),
            _ => None,
        }
    }

    /// Writes the joined elements to `target`, which is [`Joined::byte_len`] long.
    pub fn copy_to(&self, target: &mut [u8]) {
        let size = self.dtype().size_bytes().unwrap_or(0);
        let (blocks, step) = self.axis.map_or((1, 1), |axis| self.shape.around(axis));
        let mut written = 0;
        for block in 0..blocks {
            for part in &self.parts {
                let Some(bytes) = part.dense_bytes() else { return };
                let run = match self.axis {
                    None => bytes.len(),
                    Some(axis) => part.shape().dim(axis).unwrap_or(0) * step * size,
                };
                let source = &bytes[block * run..(block + 1) * run];
                target[written..written + run].copy_from_slice(source);
                written += run;
            }
        }
    }

    /// The joined elements of a BYTES tensor, in order.
    pub fn string_elements(&self) -> Vec<&'a Bytes> {
        let (blocks, step) = self.axis.map_or((1, 1), |axis| self.shape.around(axis));
        let mut elements = Vec::with_capacity(self.shape.elements());
        for block in 0..blocks {
            for part in &self.parts {
                let all = part.string_elements();
                let run = match self.axis {
                    None => all.len(),
                    Some(axis) => part.shape().dim(axis).unwrap_or(0) * step,
                };
                elements.extend(&all[block * run..(block + 1) * run]);
            }
        }
        elements
    }
}

fn same_but(left: &Shape, right: &Shape, axis: usize) -> bool {
    left.rank() == right.rank()
        && left
            .dims()
            .iter()
            .zip(right.dims())
            .enumerate()
            .all(|(index, (one, other))| index == axis || one == other)
}

/// Cuts `tensor` along `axis` into parts of the given numbers of rows, in order.
///
/// Along axis 0 of a dense tensor the parts share its memory; along another they are copies.
///
/// # Errors
/// [`RowsError::NoAxis`]; [`RowsError::RowCount`] if the rows are not exactly the parts' sum.
pub fn split(tensor: &Tensor, axis: usize, rows: &[usize]) -> Result<Vec<Tensor>, RowsError> {
    let shape = tensor.shape();
    let actual = shape.dim(axis).ok_or_else(|| RowsError::NoAxis { shape: shape.clone(), axis })?;
    let expected = rows.iter().sum();
    if actual != expected {
        return Err(RowsError::RowCount { shape: shape.clone(), axis, expected, actual });
    }
    if rows.len() == 1 {
        return Ok(vec![tensor.clone()]);
    }
    let (blocks, step) = shape.around(axis);
    let mut parts = Vec::with_capacity(rows.len());
    let mut first_row = 0;
    for count in rows {
        let part = shape.with_dim(axis, *count)?;
        let walk = Walk { blocks, block: actual * step, from: first_row * step, run: count * step };
        let data = match tensor.data() {
            TensorData::Dense(bytes) => {
                TensorData::Dense(cut_bytes(bytes, &walk, tensor.dtype().size_bytes().unwrap_or(0)))
            }
            TensorData::Strings(elements) => TensorData::Strings(
                (0..blocks).flat_map(|block| elements[walk.range(block)].iter().cloned()).collect(),
            ),
        };
        parts.push(Tensor { dtype: tensor.dtype(), shape: part, data });
        first_row += count;
    }
    Ok(parts)
}

/// The rows `range` of `tensor` along `axis`; as [`split`] in what is shared and what is copied.
///
/// # Errors
/// [`RowsError::NoAxis`]; [`RowsError::RowCount`] if the tensor has fewer rows.
pub fn slice(tensor: &Tensor, axis: usize, range: &Range<usize>) -> Result<Tensor, RowsError> {
    let shape = tensor.shape();
    let actual = shape.dim(axis).ok_or_else(|| RowsError::NoAxis { shape: shape.clone(), axis })?;
    let rest = actual.saturating_sub(range.end);
    let mut parts = split(tensor, axis, &[range.start, range.len(), rest])?;
    Ok(parts.swap_remove(1))
}

/// The rows of `parts`, one after the other along `axis`, as a tensor of their own: a copy.
///
/// # Errors
/// Those of [`Joined::new`].
pub fn join(parts: &[&Tensor], axis: usize) -> Result<Tensor, RowsError> {
    let joined = Joined::new(parts.to_vec(), Some(axis))?;
    let data = if joined.dtype() == DataType::Bytes {
        TensorData::Strings(joined.string_elements().into_iter().cloned().collect())
    } else {
        let mut bytes = BytesMut::zeroed(joined.byte_len());
        joined.copy_to(&mut bytes);
        TensorData::Dense(bytes.freeze())
    };
    Ok(Tensor { dtype: joined.dtype(), shape: joined.shape, data })
}

/// Where one part's elements lie: `run` elements from `from` in each of `blocks` blocks.
struct Walk {
    blocks: usize,
    block: usize,
    from: usize,
    run: usize,
}

impl Walk {
    fn range(&self, block: usize) -> Range<usize> {
        let start = block * self.block + self.from;
        start..start + self.run
    }
}

fn cut_bytes(bytes: &Bytes, walk: &Walk, size: usize) -> Bytes {
    let scaled = |block| {
        let range = walk.range(block);
        range.start * size..range.end * size
    };
    if walk.blocks == 1 {
        return bytes.slice(scaled(0));
    }
    let mut copy = BytesMut::with_capacity(walk.blocks * walk.run * size);
    for block in 0..walk.blocks {
        copy.extend_from_slice(&bytes[scaled(block)]);
    }
    copy.freeze()
}
