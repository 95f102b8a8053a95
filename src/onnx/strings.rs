//! String tensors of any octets: the one file with `unsafe`.
//!
//! The binding's own string functions take text without NUL and give UTF-8 only, while the
//! protocol's BYTES are any octets. Two calls of the C API do it properly; they are made here.

#![expect(unsafe_code, reason = "two calls of the C API that the binding does not wrap")]

use std::ptr;

use bytes::Bytes;
use ort::AsPointer;
use ort::memory::Allocator;
use ort::value::{DynTensor, TensorElementType};

use crate::tensor::Shape;

/// A string tensor of `elements`, copied once.
pub(super) fn write(shape: &Shape, elements: &[&Bytes]) -> Result<DynTensor, ort::Error> {
    let allocator = Allocator::default();
    let mut tensor = DynTensor::new(
        &allocator,
        TensorElementType::String,
        ort::value::Shape::new(shape.dims().iter().copied()),
    )?;
    for (index, element) in elements.iter().enumerate() {
        let mut buffer: *mut std::ffi::c_char = ptr::null_mut();
        // SAFETY: `tensor` is a live string tensor and `index` is below its element count (the
        // caller's elements are as many as the shape says). The call gives a buffer of exactly
        // `element.len()` bytes that belongs to the tensor.
        let status = unsafe {
            (ort::api().GetResizedStringTensorElementBuffer)(
                tensor.ptr_mut(),
                index,
                element.len(),
                &raw mut buffer,
            )
        };
        // SAFETY: the status comes from the call above and is used once.
        unsafe { ort::Error::result_from_status(status) }?;
        if !buffer.is_null() && !element.is_empty() {
            // SAFETY: `buffer` has room for `element.len()` bytes and cannot overlap `element`,
            // which lies outside the tensor.
            unsafe { ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast(), element.len()) };
        }
    }
    Ok(tensor)
}

/// The elements of a string tensor, as slices of one copy.
pub(super) fn read(tensor: &DynTensor, count: usize) -> Result<Vec<Bytes>, ort::Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut total = 0;
    // SAFETY: `tensor` is a live string tensor, which the caller has checked.
    let status = unsafe { (ort::api().GetStringTensorDataLength)(tensor.ptr(), &raw mut total) };
    // SAFETY: the status comes from the call above and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    let mut contents = vec![0_u8; total];
    let mut offsets = vec![0_usize; count];
    // SAFETY: the buffers have the lengths that are passed with them, and `count` is the tensor's
    // element count.
    let status = unsafe {
        (ort::api().GetStringTensorContent)(
            tensor.ptr(),
            contents.as_mut_ptr().cast(),
            total,
            offsets.as_mut_ptr(),
            count,
        )
    };
    // SAFETY: the status comes from the call above and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    let contents = Bytes::from(contents);
    let ends = offsets[1..].iter().copied().chain([total]);
    Ok(offsets.iter().zip(ends).map(|(start, end)| contents.slice(*start..end)).collect())
}
