//! Tensors as they travel: a datatype, a shape and bytes that are shared, never copied on the way.
//!
//! Row-major, little-endian, no padding: the layout of the Open Inference Protocol's raw contents
//! and of ONNX Runtime's own buffers, so that a tensor can go from one to the other as it is.
//! The room knows no model, no message and no clock. Everybody may use it; it uses nobody.

use bytes::Bytes;

pub mod dtype;
pub mod fill;
pub mod rows;
pub mod shape;

pub use dtype::DataType;
pub use fill::Fill;
pub use shape::{Shape, ShapeError};

/// An immutable tensor. Once it exists, its contents have the size that its shape says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DataType,
    shape: Shape,
    data: TensorData,
}

/// The contents of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorData {
    /// Elements of a fixed size, back to back, in no particular alignment.
    Dense(Bytes),
    /// Elements of datatype BYTES, one entry each, any octets, row-major.
    Strings(Vec<Bytes>),
}

/// Why bytes and a shape do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The contents are longer or shorter than the shape says.
    #[error("{dtype} of shape {shape} needs {expected} bytes, got {actual}")]
    ByteLength {
        /// Datatype of the elements.
        dtype: DataType,
        /// Shape that was declared.
        shape: Shape,
        /// Bytes that datatype and shape ask for.
        expected: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// The number of BYTES elements is not what the shape says.
    #[error("BYTES of shape {shape} needs {expected} elements, got {actual}")]
    ElementCount {
        /// Shape that was declared.
        shape: Shape,
        /// Elements that the shape asks for.
        expected: usize,
        /// Elements that came.
        actual: usize,
    },
    /// The size in bytes is beyond what a machine can address.
    #[error("{dtype} of shape {shape} is larger than this machine can address")]
    TooLarge {
        /// Datatype of the elements.
        dtype: DataType,
        /// Shape that was declared.
        shape: Shape,
    },
    /// A BYTES tensor was given as dense memory, or the reverse.
    #[error("{dtype} elements do not have a fixed size")]
    NotDense {
        /// Datatype of the elements.
        dtype: DataType,
    },
    /// A BOOL element is neither 0 nor 1.
    #[error("BOOL element {index} is {value}, expected 0 or 1")]
    NotBool {
        /// Position of the element, row-major.
        index: usize,
        /// The byte that was found.
        value: u8,
    },
}

impl Tensor {
    /// A tensor of fixed-size elements over `data`, which is not copied.
    ///
    /// # Errors
    /// [`TensorError::ByteLength`] if `data` is not exactly as long as the shape asks for,
    /// [`TensorError::NotBool`] if a BOOL is neither 0 nor 1, [`TensorError::NotDense`] for BYTES,
    /// [`TensorError::TooLarge`] if the size in bytes overflows.
    pub fn dense(dtype: DataType, shape: Shape, data: Bytes) -> Result<Self, TensorError> {
        let Some(size) = dtype.size_bytes() else {
            return Err(TensorError::NotDense { dtype });
        };
        let Some(expected) = shape.elements().checked_mul(size) else {
            return Err(TensorError::TooLarge { dtype, shape });
        };
        if data.len() != expected {
            let actual = data.len();
            return Err(TensorError::ByteLength { dtype, shape, expected, actual });
        }
        if dtype == DataType::Bool
            && let Some(index) = data.iter().position(|byte| *byte > 1)
        {
            return Err(TensorError::NotBool { index, value: data[index] });
        }
        Ok(Self { dtype, shape, data: TensorData::Dense(data) })
    }

    /// A BYTES tensor of the given elements.
    ///
    /// # Errors
    /// [`TensorError::ElementCount`] if there are more or fewer elements than the shape asks for.
    pub fn strings(shape: Shape, elements: Vec<Bytes>) -> Result<Self, TensorError> {
        if elements.len() != shape.elements() {
            let (expected, actual) = (shape.elements(), elements.len());
            return Err(TensorError::ElementCount { shape, expected, actual });
        }
        Ok(Self { dtype: DataType::Bytes, shape, data: TensorData::Strings(elements) })
    }

    /// A tensor of zeros, false or empty strings.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the size in bytes overflows.
    pub fn zeros(dtype: DataType, shape: Shape) -> Result<Self, TensorError> {
        match dtype.size_bytes() {
            None => {
                let elements = vec![Bytes::new(); shape.elements()];
                Self::strings(shape, elements)
            }
            Some(size) => match shape.elements().checked_mul(size) {
                None => Err(TensorError::TooLarge { dtype, shape }),
                Some(length) => Self::dense(dtype, shape, Bytes::from(vec![0; length])),
            },
        }
    }

    /// A tensor of one value.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the size in bytes overflows.
    pub fn filled(fill: Fill, shape: Shape) -> Result<Self, TensorError> {
        let dtype = fill.dtype();
        let Some(size) = dtype.size_bytes() else { return Self::zeros(dtype, shape) };
        let Some(length) = shape.elements().checked_mul(size) else {
            return Err(TensorError::TooLarge { dtype, shape });
        };
        let mut bytes = vec![0; length];
        fill.write(&mut bytes);
        Self::dense(dtype, shape, Bytes::from(bytes))
    }

    /// The same elements under another shape; `None` if the shape has another number of them.
    pub fn reshaped(self, shape: Shape) -> Option<Self> {
        (shape.elements() == self.shape.elements()).then_some(Self { shape, ..self })
    }

    /// Datatype of the elements.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Shape; a scalar's is empty.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The contents.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// Splits into shape and contents.
    pub fn into_parts(self) -> (DataType, Shape, TensorData) {
        (self.dtype, self.shape, self.data)
    }

    /// Dense contents; `None` for BYTES.
    pub fn dense_bytes(&self) -> Option<&Bytes> {
        match &self.data {
            TensorData::Dense(bytes) => Some(bytes),
            TensorData::Strings(_) => None,
        }
    }

    /// Elements of a BYTES tensor; empty for every other datatype.
    pub fn string_elements(&self) -> &[Bytes] {
        match &self.data {
            TensorData::Dense(_) => &[],
            TensorData::Strings(elements) => elements,
        }
    }

    /// The same tensor in memory of its own that holds its contents and nothing else. A tensor is
    /// usually a slice of a message or of a run's output and keeps all of that alive.
    #[must_use]
    pub fn compacted(&self) -> Self {
        let data = match &self.data {
            TensorData::Dense(bytes) => TensorData::Dense(Bytes::copy_from_slice(bytes)),
            TensorData::Strings(elements) => {
                let mut all = Bytes::from(elements.concat());
                let own = |element: &Bytes| all.split_to(element.len());
                TensorData::Strings(elements.iter().map(own).collect())
            }
        };
        Self { dtype: self.dtype, shape: self.shape.clone(), data }
    }

    /// Memory that the contents hold, in bytes: what the byte budget counts.
    pub fn byte_size(&self) -> usize {
        match &self.data {
            TensorData::Dense(bytes) => bytes.len(),
            TensorData::Strings(elements) => {
                elements.iter().map(|element| element.len() + size_of::<Bytes>()).sum()
            }
        }
    }
}

#[cfg(test)]
mod tests;
