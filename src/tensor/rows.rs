//! Joins the rows of several tensors into one and cuts them apart again, along any axis. Along a
//! second axis the rows may have different lengths: then the shorter ones are padded.
//!
//! Raw tensors of a fixed element size are copied nowhere else: once on the way into a batch, and on
//! the way out only when the axis is not the first (rows along axis 0 are slices of one buffer).
//! Texts, flags on their way to a GPU and contents that a message carries as lists are converted
//! where they change their form (`onnx::strings`, `onnx::elements`, `grpc::typed`).
//! The worker calls it, never the async side. No model, no runtime, no `unsafe`.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::{DataType, Fill, Shape, ShapeError, Tensor, TensorData};

mod cut;

pub use cut::{shorten, slice, split};

/// Several tensors that are one along `axis`: what an executor reads one input of a batch from.
///
/// All parts have the datatype and, but for `axis` and the padded one, the shape of the first.
#[derive(Debug)]
pub struct Joined<'a> {
    parts: Vec<&'a Tensor>,
    axis: Option<usize>,
    shape: Shape,
    /// `None` where all parts have the same length.
    pad: Option<Pad>,
}

/// How tensors of different lengths become equally long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pad {
    /// The axis along which lengths differ.
    pub axis: usize,
    /// What stands behind the end of a tensor that is not the longest.
    pub fill: Fill,
}

/// A stretch of a joined tensor: elements of a part, or so many of the padding.
enum Piece<'a> {
    Part(&'a Tensor, Range<usize>),
    Padding(usize),
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
    /// The tensor does not have the length of the longest part.
    #[error("{shape} is {actual} long on axis {axis}, expected {expected}")]
    Length {
        /// Shape of the tensor.
        shape: Shape,
        /// The axis.
        axis: usize,
        /// Length of the longest part.
        expected: usize,
        /// Length that the tensor has.
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
        let Some(axis) = axis else {
            parts.truncate(1);
            let shape = parts.first().ok_or(RowsError::Nothing)?.shape().clone();
            return Ok(Self { parts, axis: None, shape, pad: None });
        };
        Self::join(parts, axis, None)
    }

    /// Joins `parts` along `axis`, each padded to the length of the longest. Parts that are equally
    /// long, or a single one, are joined as [`Joined::new`] does.
    ///
    /// # Errors
    /// Those of [`Joined::new`]; [`RowsError::Mismatch`], too, if the padding is of another
    /// datatype or along `axis` itself.
    pub fn padded(parts: Vec<&'a Tensor>, axis: usize, pad: Pad) -> Result<Self, RowsError> {
        let lengths = || parts.iter().map(|part| part.shape().dim(pad.axis));
        let equal = lengths().all(|length| Some(length) == lengths().next());
        Self::join(parts, axis, (!equal).then_some(pad))
    }

    fn join(parts: Vec<&'a Tensor>, axis: usize, pad: Option<Pad>) -> Result<Self, RowsError> {
        let first = *parts.first().ok_or(RowsError::Nothing)?;
        let free = [Some(axis), pad.map(|pad| pad.axis)];
        let size = |tensor: &Tensor, axis: usize| {
            let no_axis = || RowsError::NoAxis { shape: tensor.shape().clone(), axis };
            tensor.shape().dim(axis).ok_or_else(no_axis)
        };
        let (mut rows, mut longest) = (0, 0);
        for part in &parts {
            let foreign =
                pad.is_some_and(|pad| pad.axis == axis || pad.fill.dtype() != part.dtype());
            rows = size(part, axis)?.saturating_add(rows);
            if part.dtype() != first.dtype()
                || !same_but(part.shape(), first.shape(), free)
                || foreign
            {
                return Err(RowsError::Mismatch {
                    dtype: first.dtype(),
                    shape: first.shape().clone(),
                    other_dtype: part.dtype(),
                    other_shape: part.shape().clone(),
                });
            }
            if let Some(pad) = pad {
                longest = longest.max(size(part, pad.axis)?);
            }
        }
        let mut shape = first.shape().with_dim(axis, rows)?;
        if let Some(pad) = pad {
            shape = shape.with_dim(pad.axis, longest)?;
        }
        Ok(Self { parts, axis: Some(axis), shape, pad })
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

    /// Elements of the whole that no part has.
    pub fn padding(&self) -> usize {
        if self.pad.is_none() {
            return 0;
        }
        self.shape.elements() - self.parts.iter().map(|part| part.shape().elements()).sum::<usize>()
    }

    /// Writes the joined elements to `target`, which is [`Joined::byte_len`] long.
    pub fn copy_to(&self, target: &mut [u8]) {
        let size = self.dtype().size_bytes().unwrap_or(0);
        let mut written = 0;
        self.walk(|piece| match (piece, self.pad) {
            (Piece::Part(part, range), _) => {
                let Some(bytes) = part.dense_bytes() else { return };
                let source = &bytes[range.start * size..range.end * size];
                target[written..written + source.len()].copy_from_slice(source);
                written += source.len();
            }
            (Piece::Padding(elements), Some(pad)) => {
                pad.fill.write(&mut target[written..written + elements * size]);
                written += elements * size;
            }
            (Piece::Padding(_), None) => {}
        });
    }

    /// The joined elements of a BYTES tensor, in order.
    pub fn string_elements(&self) -> Vec<&'a Bytes> {
        static EMPTY: Bytes = Bytes::new();
        let mut elements = Vec::with_capacity(self.shape.elements());
        self.walk(|piece| match piece {
            Piece::Part(part, range) => elements.extend(&part.string_elements()[range]),
            Piece::Padding(count) => elements.extend(std::iter::repeat_n(&EMPTY, count)),
        });
        elements
    }

    /// Goes over the whole in its own order.
    fn walk(&self, mut visit: impl FnMut(Piece<'a>)) {
        let Some(axis) = self.axis else {
            let part = self.parts[0];
            return visit(Piece::Part(part, 0..part.shape().elements()));
        };
        if let Some(pad) = self.pad {
            return self.walk_padded(axis, pad.axis, visit);
        }
        let (blocks, step) = self.shape.around(axis);
        for block in 0..blocks {
            for part in &self.parts {
                let run = part.shape().dim(axis).unwrap_or(0) * step;
                visit(Piece::Part(part, block * run..(block + 1) * run));
            }
        }
    }

    fn walk_padded(&self, axis: usize, pad_axis: usize, mut visit: impl FnMut(Piece<'a>)) {
        let (first, last) = (axis.min(pad_axis), axis.max(pad_axis));
        let outer = self.shape.product(0..first);
        let between = self.shape.product(first + 1..last);
        let inner = self.shape.product(last + 1..self.shape.rank());
        let longest = self.shape.dim(pad_axis).unwrap_or(0);
        let sizes = |part: &Tensor| {
            let size = |axis| part.shape().dim(axis).unwrap_or(0);
            (size(axis), size(pad_axis))
        };
        if axis < pad_axis {
            for block in 0..outer {
                for part in &self.parts {
                    let (rows, length) = sizes(part);
                    let (count, run) = (rows * between, length * inner);
                    if length == longest {
                        visit(Piece::Part(part, block * count * run..(block + 1) * count * run));
                        continue;
                    }
                    for place in block * count..(block + 1) * count {
                        visit(Piece::Part(part, place * run..(place + 1) * run));
                        visit(Piece::Padding((longest - length) * inner));
                    }
                }
            }
            return;
        }
        for block in 0..outer {
            for (position, middle) in
                (0..longest).flat_map(|position| (0..between).map(move |middle| (position, middle)))
            {
                for part in &self.parts {
                    let (rows, length) = sizes(part);
                    let run = rows * inner;
                    let place = (block * length + position) * between + middle;
                    visit(if position < length {
                        Piece::Part(part, place * run..(place + 1) * run)
                    } else {
                        Piece::Padding(run)
                    });
                }
            }
        }
    }
}

/// Whether two shapes are equal but for the `free` axes.
fn same_but(left: &Shape, right: &Shape, free: [Option<usize>; 2]) -> bool {
    left.rank() == right.rank()
        && left
            .dims()
            .iter()
            .zip(right.dims())
            .enumerate()
            .all(|(axis, (one, other))| free.contains(&Some(axis)) || one == other)
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
