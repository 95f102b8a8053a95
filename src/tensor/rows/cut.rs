//! Takes a joined tensor apart again: by rows, and each part back to its own length.
//!
//! What lies in one piece is a slice of the whole, everything else is a copy.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::RowsError;
use crate::tensor::{Tensor, TensorData};

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
        parts.push(Tensor { dtype: tensor.dtype(), shape: part, data: walk.cut(tensor) });
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

/// Takes the padding off: the first `length` of `longest` along `axis`.
///
/// A tensor that has nothing before the axis, or only sizes of 1, shares its memory; another is
/// copied.
///
/// # Errors
/// [`RowsError::NoAxis`]; [`RowsError::Length`] if the tensor is not exactly `longest` long, or
/// `length` is beyond that.
pub fn shorten(
    tensor: &Tensor,
    axis: usize,
    longest: usize,
    length: usize,
) -> Result<Tensor, RowsError> {
    let shape = tensor.shape();
    let actual = shape.dim(axis).ok_or_else(|| RowsError::NoAxis { shape: shape.clone(), axis })?;
    if actual != longest || length > longest {
        return Err(RowsError::Length { shape: shape.clone(), axis, expected: longest, actual });
    }
    if length == longest {
        return Ok(tensor.clone());
    }
    let (blocks, step) = shape.around(axis);
    let walk = Walk { blocks, block: longest * step, from: 0, run: length * step };
    let shape = shape.with_dim(axis, length)?;
    Ok(Tensor { dtype: tensor.dtype(), shape, data: walk.cut(tensor) })
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

    /// The part of `tensor`.
    fn cut(&self, tensor: &Tensor) -> TensorData {
        match tensor.data() {
            TensorData::Dense(bytes) => {
                TensorData::Dense(cut_bytes(bytes, self, tensor.dtype().size_bytes().unwrap_or(0)))
            }
            TensorData::Strings(elements) => {
                let blocks = 0..self.blocks;
                let part = blocks.flat_map(|block| elements[self.range(block)].iter().cloned());
                TensorData::Strings(part.collect())
            }
        }
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
