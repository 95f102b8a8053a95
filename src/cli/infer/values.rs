//! Values on the command line to the bytes of a tensor and back.

use bytes::{Buf, Bytes};
use half::{bf16, f16};

use crate::tensor::DataType;

/// Appends the raw form of the value that `text` spells.
///
/// # Errors
/// A sentence that names the value and the type.
pub(super) fn push(dtype: DataType, text: &str, raw: &mut Vec<u8>) -> Result<(), String> {
    let text = if dtype == DataType::Bytes { text } else { text.trim() };
    let pushed = match dtype {
        DataType::Bool => truth(text).map(|value| raw.push(u8::from(value))),
        DataType::UInt8 => number(text, raw, u8::to_le_bytes),
        DataType::UInt16 => number(text, raw, u16::to_le_bytes),
        DataType::UInt32 => number(text, raw, u32::to_le_bytes),
        DataType::UInt64 => number(text, raw, u64::to_le_bytes),
        DataType::Int8 => number(text, raw, i8::to_le_bytes),
        DataType::Int16 => number(text, raw, i16::to_le_bytes),
        DataType::Int32 => number(text, raw, i32::to_le_bytes),
        DataType::Int64 => number(text, raw, i64::to_le_bytes),
        DataType::Fp16 => number(text, raw, |value| f16::from_f64(value).to_le_bytes()),
        DataType::Bf16 => number(text, raw, |value| bf16::from_f64(value).to_le_bytes()),
        DataType::Fp32 => number(text, raw, f32::to_le_bytes),
        DataType::Fp64 => number(text, raw, f64::to_le_bytes),
        DataType::Bytes => u32::try_from(text.len()).ok().map(|length| {
            raw.extend_from_slice(&length.to_le_bytes());
            raw.extend_from_slice(text.as_bytes());
        }),
    };
    pushed.ok_or_else(|| format!("{text:?} is no {dtype}"))
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn number<T: std::str::FromStr, const N: usize>(
    text: &str,
    raw: &mut Vec<u8>,
    bytes: impl FnOnce(T) -> [u8; N],
) -> Option<()> {
    raw.extend_from_slice(&bytes(text.parse().ok()?));
    Some(())
}

/// A value that fits the type, for an example.
pub(super) const fn example(dtype: DataType) -> &'static str {
    match dtype {
        DataType::Bool => "true",
        DataType::Bytes => "text",
        _ => "1",
    }
}

/// Takes the first value off and spells it; `None` at the end, or if the rest is no value.
pub(super) fn take(dtype: DataType, raw: &mut Bytes) -> Option<String> {
    Some(match dtype {
        DataType::Bool => (raw.try_get_u8().ok()? != 0).to_string(),
        DataType::UInt8 => raw.try_get_u8().ok()?.to_string(),
        DataType::UInt16 => raw.try_get_u16_le().ok()?.to_string(),
        DataType::UInt32 => raw.try_get_u32_le().ok()?.to_string(),
        DataType::UInt64 => raw.try_get_u64_le().ok()?.to_string(),
        DataType::Int8 => raw.try_get_i8().ok()?.to_string(),
        DataType::Int16 => raw.try_get_i16_le().ok()?.to_string(),
        DataType::Int32 => raw.try_get_i32_le().ok()?.to_string(),
        DataType::Int64 => raw.try_get_i64_le().ok()?.to_string(),
        // `{:?}` is short for very large and very small numbers too.
        DataType::Fp16 => format!("{:?}", f16::from_bits(raw.try_get_u16_le().ok()?)),
        DataType::Bf16 => format!("{:?}", bf16::from_bits(raw.try_get_u16_le().ok()?)),
        DataType::Fp32 => format!("{:?}", raw.try_get_f32_le().ok()?),
        DataType::Fp64 => format!("{:?}", raw.try_get_f64_le().ok()?),
        DataType::Bytes => {
            let length = usize::try_from(raw.try_get_u32_le().ok()?).ok()?;
            let element = (length <= raw.len()).then(|| raw.split_to(length))?;
            format!("{:?}", String::from_utf8_lossy(&element))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(dtype: DataType, texts: &[&str]) -> Vec<String> {
        let mut raw = Vec::new();
        for text in texts {
            push(dtype, text, &mut raw).unwrap();
        }
        let mut raw = Bytes::from(raw);
        let spelled: Vec<String> = std::iter::from_fn(|| take(dtype, &mut raw)).collect();
        assert!(raw.is_empty());
        spelled
    }

    #[test]
    fn every_type_comes_back() {
        for dtype in DataType::ALL {
            let text = example(dtype);
            let spelled = round_trip(dtype, &[text]);
            let is_same = spelled[0].trim_end_matches(".0").trim_matches('"') == text;
            assert!(is_same && spelled.len() == 1, "{dtype}: {spelled:?}");
        }
    }

    #[test]
    fn numbers_at_the_edges() {
        assert_eq!(round_trip(DataType::Int8, &["-128", " 127"]), ["-128", "127"]);
        let largest = "18446744073709551615";
        assert_eq!(round_trip(DataType::UInt64, &[largest]), [largest]);
        assert_eq!(round_trip(DataType::Fp32, &["1e-7", "0.1", "nan"]), ["1e-7", "0.1", "NaN"]);
        assert_eq!(round_trip(DataType::Fp16, &["0.1", "1e9"]), ["0.099975586", "inf"]);
        assert_eq!(round_trip(DataType::Bool, &["1", "false"]), ["true", "false"]);
        assert_eq!(round_trip(DataType::Bytes, &["", " ä\n"]), ["\"\"", "\" ä\\n\""]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let refusal = |dtype, text| push(dtype, text, &mut Vec::new()).unwrap_err();
        assert_eq!(refusal(DataType::UInt8, "256"), "\"256\" is no UINT8");
        assert_eq!(refusal(DataType::Int32, "1.5"), "\"1.5\" is no INT32");
        assert_eq!(refusal(DataType::Bool, "yes"), "\"yes\" is no BOOL");
        assert_eq!(refusal(DataType::Fp64, ""), "\"\" is no FP64");
    }

    #[test]
    fn a_cut_answer_ends_the_list() {
        assert_eq!(take(DataType::Int64, &mut Bytes::from_static(&[1, 2])), None);
        assert_eq!(take(DataType::Bytes, &mut Bytes::from_static(&[9, 0, 0, 0, 65])), None);
    }
}
