//! One element of any datatype: what padding is made of, and made-up inputs of one value.
//!
//! Settings write it as text, which is read for the datatype that it is used with. No model and no
//! file; the rooms above say where it comes from.

use half::{bf16, f16};

use super::DataType;

/// One element. The only one of datatype BYTES is the empty string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    dtype: DataType,
    /// Little-endian, in the first [`DataType::size_bytes`].
    bytes: [u8; 8],
}

impl Fill {
    /// Zero, false or the empty string.
    pub const fn zero(dtype: DataType) -> Self {
        Self { dtype, bytes: [0; 8] }
    }

    /// Reads an element as settings write it: a number, `true` or `false`, or nothing for BYTES.
    ///
    /// # Errors
    /// A sentence with datatype and text if the datatype does not have that value. A number with
    /// a fraction is rounded to what the datatype has; one beyond its largest is refused.
    pub fn parse(dtype: DataType, text: &str) -> Result<Self, String> {
        let element: Option<Vec<u8>> = match dtype {
            DataType::Bool => match text {
                "true" | "1" => Some(vec![1]),
                "false" | "0" => Some(vec![0]),
                _ => None,
            },
            DataType::UInt8 => text.parse().ok().map(|value: u8| value.to_le_bytes().to_vec()),
            DataType::UInt16 => text.parse().ok().map(|value: u16| value.to_le_bytes().to_vec()),
            DataType::UInt32 => text.parse().ok().map(|value: u32| value.to_le_bytes().to_vec()),
            DataType::UInt64 => text.parse().ok().map(|value: u64| value.to_le_bytes().to_vec()),
            DataType::Int8 => text.parse().ok().map(|value: i8| value.to_le_bytes().to_vec()),
            DataType::Int16 => text.parse().ok().map(|value: i16| value.to_le_bytes().to_vec()),
            DataType::Int32 => text.parse().ok().map(|value: i32| value.to_le_bytes().to_vec()),
            DataType::Int64 => text.parse().ok().map(|value: i64| value.to_le_bytes().to_vec()),
            DataType::Fp16 => float(text, |value| {
                let half = f16::from_f64(value);
                (half.is_infinite(), half.to_le_bytes().to_vec())
            }),
            DataType::Bf16 => float(text, |value| {
                let half = bf16::from_f64(value);
                (half.is_infinite(), half.to_le_bytes().to_vec())
            }),
            #[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
            DataType::Fp32 => float(text, |value| {
                let single = value as f32;
                (single.is_infinite(), single.to_le_bytes().to_vec())
            }),
            DataType::Fp64 => {
                float(text, |value| (value.is_infinite(), value.to_le_bytes().to_vec()))
            }
            DataType::Bytes => text.is_empty().then(Vec::new),
        };
        let element = element.ok_or_else(|| match dtype {
            DataType::Bytes => format!("BYTES are filled up with \"\", got {text:?}"),
            _ => format!("expected a value of {dtype}, got {text:?}"),
        })?;
        let mut bytes = [0; 8];
        bytes[..element.len()].copy_from_slice(&element);
        Ok(Self { dtype, bytes })
    }

    /// Datatype of the element.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// The bytes of the element; none for BYTES.
    pub fn element(&self) -> &[u8] {
        &self.bytes[..self.dtype.size_bytes().unwrap_or(0)]
    }

    /// Writes the element again and again until `target`, which holds whole elements, is full.
    pub(super) fn write(&self, target: &mut [u8]) {
        match *self.element() {
            [] => {}
            [first, ref rest @ ..] if rest.iter().all(|byte| *byte == first) => target.fill(first),
            ref element => {
                for place in target.chunks_exact_mut(element.len()) {
                    place.copy_from_slice(element);
                }
            }
        }
    }
}

/// Reads a number; `None` where `rounded` makes an infinity of a number that is none.
fn float(text: &str, rounded: impl FnOnce(f64) -> (bool, Vec<u8>)) -> Option<Vec<u8>> {
    let value: f64 = text.parse().ok()?;
    let is_infinity = text.trim_start_matches(['+', '-']).to_ascii_lowercase().starts_with("inf");
    let (infinite, bytes) = rounded(value);
    (!infinite || is_infinity).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_datatype() {
        let cases: [(DataType, &str, &[u8]); 18] = [
            (DataType::Bool, "true", &[1]),
            (DataType::Bool, "0", &[0]),
            (DataType::UInt8, "255", &[255]),
            (DataType::UInt16, "258", &[2, 1]),
            (DataType::UInt32, "1", &[1, 0, 0, 0]),
            (DataType::UInt64, "18446744073709551615", &[255; 8]),
            (DataType::Int8, "-1", &[255]),
            (DataType::Int16, "-2", &[254, 255]),
            (DataType::Int32, "-100", &(-100_i32).to_le_bytes()),
            (DataType::Int64, "101", &[101, 0, 0, 0, 0, 0, 0, 0]),
            (DataType::Fp16, "1", &[0x00, 0x3C]),
            (DataType::Fp16, "-inf", &[0x00, 0xFC]),
            (DataType::Bf16, "1.0", &[0x80, 0x3F]),
            (DataType::Fp32, "-0.5", &(-0.5_f32).to_le_bytes()),
            (DataType::Fp32, "0.1", &0.1_f32.to_le_bytes()),
            (DataType::Fp64, "0", &[0; 8]),
            (DataType::Fp64, "-1e300", &(-1e300_f64).to_le_bytes()),
            (DataType::Bytes, "", &[]),
        ];
        for (dtype, text, element) in cases {
            let fill = Fill::parse(dtype, text).unwrap();
            assert_eq!((fill.dtype(), fill.element()), (dtype, element), "{dtype} {text}");
        }
        for dtype in DataType::ALL {
            let zero = if dtype == DataType::Bytes { "" } else { "0" };
            assert_eq!(Fill::parse(dtype, zero), Ok(Fill::zero(dtype)));
        }
        assert!(Fill::parse(DataType::Fp32, "nan").is_ok());
    }

    #[test]
    fn values_that_the_datatype_lacks_are_refused() {
        for (dtype, text) in [
            (DataType::Bool, "2"),
            (DataType::UInt8, "256"),
            (DataType::UInt64, "-1"),
            (DataType::Int32, "1.5"),
            (DataType::Int64, ""),
            (DataType::Fp16, "70000"),
            (DataType::Fp32, "1e300"),
            (DataType::Fp64, "none"),
            (DataType::Fp64, "1e999"),
        ] {
            let problem = Fill::parse(dtype, text).unwrap_err();
            assert_eq!(problem, format!("expected a value of {dtype}, got {text:?}"));
        }
        let problem = Fill::parse(DataType::Bytes, "[PAD]").unwrap_err();
        assert_eq!(problem, "BYTES are filled up with \"\", got \"[PAD]\"");
    }

    #[test]
    fn elements_follow_each_other() {
        let mut target = [9; 6];
        Fill::parse(DataType::UInt16, "258").unwrap().write(&mut target);
        assert_eq!(target, [2, 1, 2, 1, 2, 1]);
        Fill::zero(DataType::UInt16).write(&mut target);
        assert_eq!(target, [0; 6]);
        Fill::zero(DataType::Bytes).write(&mut []);
    }
}
