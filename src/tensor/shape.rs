//! Shapes whose arithmetic cannot overflow.
//!
//! The dimensions of a message are numbers from outside. Here, once, they are checked: none is
//! negative and their product fits. Used by every room; uses none.

use std::fmt;

/// Dimensions of a tensor: none negative, and their product fits in `usize`.
#[derive(Clone, PartialEq, Eq)]
pub struct Shape {
    dims: Vec<i64>,
    elements: usize,
}

/// Why a list of numbers is not a shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A dimension is below zero.
    #[error("dimension {axis} is {value}, expected zero or more")]
    Negative {
        /// Position of the dimension, from 0.
        axis: usize,
        /// Its value.
        value: i64,
    },
    /// The number of elements is beyond what a machine can count.
    #[error("the product of the dimensions {dims:?} overflows")]
    Overflow {
        /// All dimensions.
        dims: Vec<i64>,
    },
}

impl Shape {
    /// Checks the dimensions; a scalar has none.
    ///
    /// # Errors
    /// [`ShapeError::Negative`], [`ShapeError::Overflow`]. A zero does not excuse an overflow of
    /// the other dimensions: `[0, 2^62, 2^62]` is refused.
    pub fn new(dims: Vec<i64>) -> Result<Self, ShapeError> {
        let mut product = 1_usize;
        let mut empty = false;
        for (axis, value) in dims.iter().copied().enumerate() {
            let Ok(dim) = usize::try_from(value) else {
                return Err(ShapeError::Negative { axis, value });
            };
            if dim == 0 {
                empty = true;
                continue;
            }
            match product.checked_mul(dim) {
                // An isize is the most that memory can hold, whatever the element size.
                Some(next) if isize::try_from(next).is_ok() => product = next,
                _ => return Err(ShapeError::Overflow { dims }),
            }
        }
        let elements = if empty { 0 } else { product };
        Ok(Self { dims, elements })
    }

    /// The shape of a scalar.
    pub fn scalar() -> Self {
        Self { dims: Vec::new(), elements: 1 }
    }

    /// All dimensions.
    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    /// Gives the dimensions away.
    pub fn into_dims(self) -> Vec<i64> {
        self.dims
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements: the product of the dimensions, 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Size along `axis`; `None` beyond the rank.
    pub fn dim(&self, axis: usize) -> Option<usize> {
        self.dims.get(axis).and_then(|dim| usize::try_from(*dim).ok())
    }

    /// The same shape with another size along `axis`.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`] if the new number of elements does not fit;
    /// [`ShapeError::Negative`] never for a size that fits in `i64`.
    pub fn with_dim(&self, axis: usize, size: usize) -> Result<Self, ShapeError> {
        let mut dims = self.dims.clone();
        if let Some(dim) = dims.get_mut(axis) {
            *dim = i64::try_from(size).unwrap_or(-1);
        }
        Self::new(dims)
    }

    /// Number of elements before `axis` (how many blocks) and from behind it (size of a block's
    /// step): the two numbers that walk memory along an axis.
    pub(super) fn around(&self, axis: usize) -> (usize, usize) {
        (self.product(0..axis), self.product(axis + 1..self.rank()))
    }

    /// Product of some dimensions.
    pub(super) fn product(&self, axes: std::ops::Range<usize>) -> usize {
        self.dims[axes].iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).product()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims)
    }
}
