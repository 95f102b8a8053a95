//! Lists of elements to the bytes of a tensor.
//!
//! A list may be flat or follow the dimensions, as far as it likes: at any depth it holds either
//! as many lists as the next dimension says, or all elements that are left. So a wrong order of
//! dimensions is seen, and the depth is bounded by the shape.
//!
//! Elements become bytes at once, in the raw form of the protocol, so that text and bytes can
//! meet in one request. Integers must be written as such and must fit; a number for FP32 or FP64
//! is rounded to the nearest and must be in range. FP16 and BF16 come as bytes only, as in
//! Triton: a decimal would be rounded to a few bits without anybody having asked for it. BYTES
//! are strings.

use std::str::FromStr;

use bytemuck::Pod;
use jiter::Peek;

use super::reader::{Reader, kind};
use crate::model::quoted;
use crate::tensor::{DataType, Shape};

/// Shortest element in a list: a digit and a comma.
const LEAST_TEXT_BYTES: usize = 2;

/// Reads the `data` of a tensor.
///
/// # Errors
/// A sentence without the tensor's name.
pub(super) fn read(
    reader: &mut Reader<'_>,
    dtype: DataType,
    shape: &Shape,
) -> Result<Vec<u8>, String> {
    match dtype {
        DataType::Bool => lists(reader, dtype, shape, boolean),
        DataType::UInt8 => lists(reader, dtype, shape, integer::<u8>),
        DataType::UInt16 => lists(reader, dtype, shape, integer::<u16>),
        DataType::UInt32 => lists(reader, dtype, shape, integer::<u32>),
        DataType::UInt64 => lists(reader, dtype, shape, integer::<u64>),
        DataType::Int8 => lists(reader, dtype, shape, integer::<i8>),
        DataType::Int16 => lists(reader, dtype, shape, integer::<i16>),
        DataType::Int32 => lists(reader, dtype, shape, integer::<i32>),
        DataType::Int64 => lists(reader, dtype, shape, integer::<i64>),
        DataType::Fp32 => lists(reader, dtype, shape, float::<f32>),
        DataType::Fp64 => lists(reader, dtype, shape, float::<f64>),
        DataType::Bytes => lists(reader, dtype, shape, string),
        DataType::Fp16 | DataType::Bf16 => {
            Err(format!("{dtype} has no form in JSON; send it as bytes, with binary_data_size"))
        }
    }
}

/// Reads one element behind those that are there. The error says what it is instead.
type Element = fn(&mut Reader<'_>, Peek, &mut Vec<u8>) -> Result<(), Wrong>;

/// Why an element is none.
enum Wrong {
    /// What was found.
    Found(String),
    /// The text is broken, or the list cannot hold it.
    Text(String),
}

struct Lists<'a> {
    dtype: DataType,
    shape: &'a Shape,
    bytes: Vec<u8>,
    elements: usize,
    one: Element,
}

fn lists(
    reader: &mut Reader<'_>,
    dtype: DataType,
    shape: &Shape,
    one: Element,
) -> Result<Vec<u8>, String> {
    // No more is reserved than the text can fill, whatever the shape says.
    let most = shape.elements().min(reader.left() / LEAST_TEXT_BYTES + 1);
    let bytes = Vec::with_capacity(most * dtype.size_bytes().unwrap_or(1));
    let mut lists = Lists { dtype, shape, bytes, elements: 0, one };
    let dims: Vec<usize> = (0..shape.rank()).filter_map(|axis| shape.dim(axis)).collect();
    let peek = reader.peek().map_err(|error| error.0)?;
    if peek == Peek::Array {
        lists.list(reader, &dims)?;
    } else if dims.is_empty() {
        lists.element(reader, peek)?;
    } else {
        return Err(format!("data is {}, expected a list", kind(peek)));
    }
    Ok(lists.bytes)
}

impl Lists<'_> {
    /// Reads a list that stands for `dims`, the dimensions from its depth on.
    fn list(&mut self, reader: &mut Reader<'_>, dims: &[usize]) -> Result<(), String> {
        let mut next = reader.enter().map_err(|error| error.0)?;
        let nested = next == Some(Peek::Array);
        let expected = match dims {
            [_] | [] if nested => {
                return Err(format!("data is nested deeper than shape {}", self.shape));
            }
            [first, ..] if nested => *first,
            // In range: the product of all dimensions is, and a zero makes it zero.
            _ => dims.iter().product(),
        };
        let mut count = 0;
        while let Some(peek) = next {
            if count == expected {
                return Err(self.wrong_count(dims, nested, expected, "more"));
            }
            if (peek == Peek::Array) != nested {
                return Err("data mixes lists and elements in one list".to_owned());
            }
            if nested {
                self.list(reader, dims.get(1..).unwrap_or_default())?;
            } else {
                self.element(reader, peek)?;
            }
            count += 1;
            next = reader.step().map_err(|error| error.0)?;
        }
        if count != expected {
            return Err(self.wrong_count(dims, nested, expected, &count.to_string()));
        }
        Ok(())
    }

    fn element(&mut self, reader: &mut Reader<'_>, peek: Peek) -> Result<(), String> {
        (self.one)(reader, peek, &mut self.bytes).map_err(|wrong| match wrong {
            Wrong::Found(found) => {
                format!("element {} is {found}, which is no {}", self.elements, self.dtype)
            }
            Wrong::Text(problem) => problem,
        })?;
        self.elements += 1;
        Ok(())
    }

    fn wrong_count(&self, dims: &[usize], nested: bool, expected: usize, got: &str) -> String {
        let (what, depth) =
            (if nested { "lists" } else { "elements" }, self.shape.rank() - dims.len());
        let where_ =
            if depth == 0 { String::new() } else { format!(" in a list at depth {depth}") };
        format!("shape {} needs {expected} {what}{where_}, got {got}", self.shape)
    }
}

fn boolean(reader: &mut Reader<'_>, peek: Peek, bytes: &mut Vec<u8>) -> Result<(), Wrong> {
    if !matches!(peek, Peek::True | Peek::False) {
        return Err(Wrong::Found(kind(peek).to_owned()));
    }
    let value = reader.boolean().map_err(|error| Wrong::Text(error.0))?;
    bytes.push(u8::from(value));
    Ok(())
}

fn integer<T: FromStr + Pod>(
    reader: &mut Reader<'_>,
    peek: Peek,
    bytes: &mut Vec<u8>,
) -> Result<(), Wrong> {
    number(reader, peek, bytes, |text| text.parse::<T>().ok())
}

fn float<T: FromStr + Pod + Into<f64>>(
    reader: &mut Reader<'_>,
    peek: Peek,
    bytes: &mut Vec<u8>,
) -> Result<(), Wrong> {
    number(reader, peek, bytes, |text| {
        let value = text.parse::<T>().ok()?;
        // Only the word means the value; a number that is too large is a mistake.
        let in_range = !value.into().is_infinite() || text.contains('I');
        in_range.then_some(value)
    })
}

fn number<T: Pod>(
    reader: &mut Reader<'_>,
    peek: Peek,
    bytes: &mut Vec<u8>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<(), Wrong> {
    if !peek.is_num() {
        return Err(Wrong::Found(kind(peek).to_owned()));
    }
    let value = reader.number(|text| parse(text).ok_or_else(|| Wrong::Found(quoted(text))));
    let value = value.map_err(|error| Wrong::Text(error.0))??;
    bytes.extend_from_slice(bytemuck::bytes_of(&value));
    Ok(())
}

fn string(reader: &mut Reader<'_>, peek: Peek, bytes: &mut Vec<u8>) -> Result<(), Wrong> {
    if peek != Peek::String {
        return Err(Wrong::Found(kind(peek).to_owned()));
    }
    let put = |text: &str| {
        let length = u32::try_from(text.len()).map_err(|_| {
            Wrong::Text(format!("a string of {} bytes is too long for BYTES", text.len()))
        })?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        Ok(())
    };
    reader.string(put).map_err(|error| Wrong::Text(error.0))?
}

#[cfg(test)]
mod tests;
