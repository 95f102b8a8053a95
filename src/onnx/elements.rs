//! Bytes to typed elements and back: the one place that names each element type.
//!
//! Casts are checked, never assumed: bytes from the wire need not be aligned, and memory of ONNX
//! Runtime is read through its own typed view.

use bytes::Bytes;
use ort::session::SessionInputValue;
use ort::value::{DynTensor, DynValue, TensorRef};

use super::{signature, strings};
use crate::error::ExecuteError;
use crate::tensor::{DataType, Shape, Tensor};

/// Calls `$body` with `$T` bound to the Rust type of a dense datatype; `$strings` for BYTES.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr, $strings:expr) => {
        match $dtype {
            DataType::Bool => {
                type $T = bool;
                $body
            }
            DataType::UInt8 => {
                type $T = u8;
                $body
            }
            DataType::UInt16 => {
                type $T = u16;
                $body
            }
            DataType::UInt32 => {
                type $T = u32;
                $body
            }
            DataType::UInt64 => {
                type $T = u64;
                $body
            }
            DataType::Int8 => {
                type $T = i8;
                $body
            }
            DataType::Int16 => {
                type $T = i16;
                $body
            }
            DataType::Int32 => {
                type $T = i32;
                $body
            }
            DataType::Int64 => {
                type $T = i64;
                $body
            }
            DataType::Fp16 => {
                type $T = half::f16;
                $body
            }
            DataType::Bf16 => {
                type $T = half::bf16;
                $body
            }
            DataType::Fp32 => {
                type $T = f32;
                $body
            }
            DataType::Fp64 => {
                type $T = f64;
                $body
            }
            DataType::Bytes => $strings,
        }
    };
}

fn runtime(error: &ort::Error) -> ExecuteError {
    ExecuteError::Runtime(error.message().to_owned())
}

fn misaligned(error: bytemuck::checked::CheckedCastError) -> ExecuteError {
    ExecuteError::Runtime(format!("input bytes do not fit their type: {error}"))
}

/// An input of a run over `bytes`, which are not copied. They must be aligned for the datatype.
pub(super) fn view<'a>(
    dtype: DataType,
    shape: &'a Shape,
    bytes: &'a [u8],
) -> Result<SessionInputValue<'a>, ExecuteError> {
    with_element!(
        dtype,
        T => {
            let elements: &[T] = bytemuck::checked::try_cast_slice(bytes).map_err(misaligned)?;
            let value = TensorRef::from_array_view((shape.dims(), elements));
            value.map(Into::into).map_err(|error| runtime(&error))
        },
        Err(ExecuteError::Runtime("BYTES have no dense view".to_owned()))
    )
}

/// Whether `bytes` begin where elements of `dtype` may lie.
pub(super) fn is_aligned(dtype: DataType, bytes: &[u8]) -> bool {
    let size = dtype.size_bytes().unwrap_or(1);
    bytes.as_ptr().align_offset(size) == 0
}

/// Writes into a tensor that ONNX Runtime owns, for instance in pinned memory.
pub(super) fn fill(
    dtype: DataType,
    tensor: &mut DynTensor,
    write: impl FnOnce(&mut [u8]),
) -> Result<(), ExecuteError> {
    with_element!(
        dtype,
        T => {
            let extracted = tensor.try_extract_tensor_mut::<T>();
            let (_, elements) = extracted.map_err(|error| runtime(&error))?;
            write_elements(elements, write);
            Ok(())
        },
        Err(ExecuteError::Runtime("BYTES have no dense memory".to_owned()))
    )
}

/// Elements whose bytes may be written.
trait Writable: Sized {
    fn write(elements: &mut [Self], write: impl FnOnce(&mut [u8]));
}

/// Elements of which any bits are a value.
macro_rules! writable {
    ($($T:ty)*) => {$(
        impl Writable for $T {
            fn write(elements: &mut [Self], write: impl FnOnce(&mut [u8])) {
                write(bytemuck::cast_slice_mut(elements));
            }
        }
    )*};
}

writable!(u8 u16 u32 u64 i8 i16 i32 i64 half::f16 half::bf16 f32 f64);

impl Writable for bool {
    /// A bool may only hold 0 or 1, so the bytes take a detour.
    fn write(elements: &mut [Self], write: impl FnOnce(&mut [u8])) {
        let mut bytes = vec![0; elements.len()];
        write(&mut bytes);
        for (element, byte) in elements.iter_mut().zip(bytes) {
            *element = byte != 0;
        }
    }
}

fn write_elements<T: Writable>(elements: &mut [T], write: impl FnOnce(&mut [u8])) {
    T::write(elements, write);
}

/// Memory of ONNX Runtime that a tensor keeps alive.
struct Owned {
    value: DynTensor,
    dtype: DataType,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        with_element!(
            self.dtype,
            // The type was read from this very value, so the view cannot fail; an empty slice
            // would be refused by the length check of the tensor.
            T => self.value.try_extract_tensor::<T>().map_or(&[][..], |(_, elements)| {
                bytemuck::cast_slice(elements)
            }),
            &[]
        )
    }
}

/// An output of a run; its memory is shared, not copied.
pub(super) fn take(name: &str, value: DynValue) -> Result<Tensor, ExecuteError> {
    let wrong = |reason: String| ExecuteError::Runtime(format!("output `{name}`: {reason}"));
    let value: DynTensor = value.downcast().map_err(|error| wrong(error.message().to_owned()))?;
    let element = *value.data_type();
    let dtype = signature::data_type(element)
        .ok_or_else(|| wrong(format!("element type {element} cannot be sent")))?;
    let shape = Shape::new(value.shape().to_vec()).map_err(|error| wrong(error.to_string()))?;
    if dtype == DataType::Bytes {
        let elements = strings::read(&value, shape.elements()).map_err(|e| runtime(&e))?;
        return Tensor::strings(shape, elements).map_err(|error| wrong(error.to_string()));
    }
    let bytes = Bytes::from_owner(Owned { value, dtype });
    Tensor::dense(dtype, shape, bytes).map_err(|error| wrong(error.to_string()))
}
