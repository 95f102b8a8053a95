//! The largest values of an output instead of all of them, as text: `value:index` or, where the
//! model has labels, `value:index:label`.
//!
//! Each row of the output is taken as one list of values, whatever its shape. Floating-point values
//! have six decimals, largest first, the lower index first on a tie; NaN comes last.
//!
//! Source: Triton, classification extension.

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use bytes::Bytes;
use half::{bf16, f16};

use crate::tensor::{DataType, Shape, Tensor, TensorData};

/// The `count` largest values of each row, BYTES `[rows, count]`; `[count]` if `has_rows` is false,
/// for the tensor is one row then. Fewer where a row has fewer. `None` for a tensor that has no
/// numbers, or none at all.
pub(super) fn largest(
    tensor: &Tensor,
    has_rows: bool,
    count: NonZeroUsize,
    labels: &[String],
) -> Option<Tensor> {
    let TensorData::Dense(bytes) = tensor.data() else { return None };
    let rows = if has_rows { tensor.shape().dim(0)? } else { 1 };
    let per_row = tensor.shape().elements().checked_div(rows)?;
    let size = bytes.len().checked_div(rows)?;
    if per_row == 0 {
        return None;
    }
    let count = count.get().min(per_row);
    let mut texts = Vec::with_capacity(rows * count);
    for row in bytes.chunks_exact(size) {
        texts.extend(largest_of(tensor.dtype(), row, count, labels)?);
    }
    let count = i64::try_from(count).ok()?;
    let rows = i64::try_from(rows).ok()?;
    let shape = if has_rows { vec![rows, count] } else { vec![count] };
    Tensor::strings(Shape::new(shape).ok()?, texts).ok()
}

fn largest_of(dtype: DataType, row: &[u8], count: usize, labels: &[String]) -> Option<Vec<Bytes>> {
    macro_rules! by {
        ($number:ty, $order:expr, $text:expr) => {{
            let chunks = row.chunks_exact(size_of::<$number>());
            let read = |chunk: &[u8]| chunk.try_into().ok().map(<$number>::from_le_bytes);
            let values: Option<Vec<$number>> = chunks.map(read).collect();
            Some(pick(&values?, count, labels, $order, $text))
        }};
    }
    let whole = |value: &dyn std::fmt::Display| value.to_string();
    match dtype {
        DataType::Fp32 => {
            by!(f32, |a, b| descending(f64::from(*a), f64::from(*b)), |v| decimals(f64::from(*v)))
        }
        DataType::Fp64 => by!(f64, |a, b| descending(*a, *b), |v| decimals(*v)),
        DataType::Fp16 => {
            by!(f16, |a, b| descending(a.to_f64(), b.to_f64()), |v| decimals(v.to_f64()))
        }
        DataType::Bf16 => {
            by!(bf16, |a, b| descending(a.to_f64(), b.to_f64()), |v| decimals(v.to_f64()))
        }
        DataType::Bool | DataType::UInt8 => by!(u8, |a, b| b.cmp(a), |v| whole(v)),
        DataType::UInt16 => by!(u16, |a, b| b.cmp(a), |v| whole(v)),
        DataType::UInt32 => by!(u32, |a, b| b.cmp(a), |v| whole(v)),
        DataType::UInt64 => by!(u64, |a, b| b.cmp(a), |v| whole(v)),
        DataType::Int8 => by!(i8, |a, b| b.cmp(a), |v| whole(v)),
        DataType::Int16 => by!(i16, |a, b| b.cmp(a), |v| whole(v)),
        DataType::Int32 => by!(i32, |a, b| b.cmp(a), |v| whole(v)),
        DataType::Int64 => by!(i64, |a, b| b.cmp(a), |v| whole(v)),
        DataType::Bytes => None,
    }
}

fn decimals(value: f64) -> String {
    format!("{value:.6}")
}

/// Largest first; what is no number, last.
fn descending(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => b.total_cmp(&a),
        (a, b) => a.cmp(&b),
    }
}

fn pick<T>(
    values: &[T],
    count: usize,
    labels: &[String],
    order: impl Fn(&T, &T) -> Ordering,
    text: impl Fn(&T) -> String,
) -> Vec<Bytes> {
    let mut indices: Vec<usize> = (0..values.len()).collect();
    let order = |a: &usize, b: &usize| order(&values[*a], &values[*b]).then(a.cmp(b));
    if count < indices.len() {
        indices.select_nth_unstable_by(count, order);
        indices.truncate(count);
    }
    indices.sort_unstable_by(order);
    let line = |index: usize| match labels.get(index) {
        Some(label) => format!("{}:{index}:{label}", text(&values[index])),
        None => format!("{}:{index}", text(&values[index])),
    };
    indices.into_iter().map(|index| Bytes::from(line(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    fn floats(dims: &[i64], values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::dense(DataType::Fp32, Shape::new(dims.to_vec()).unwrap(), bytes.into()).unwrap()
    }

    fn texts(tensor: &Tensor) -> Vec<&str> {
        tensor.string_elements().iter().map(|each| std::str::from_utf8(each).unwrap()).collect()
    }

    #[test]
    fn rows_keep_their_own() {
        let tensor = floats(&[2, 3], &[0.25, 0.5, 0.125, 3.0, -1.0, 3.0]);
        let two = largest(&tensor, true, count(2), &[]).unwrap();
        assert_eq!(two.shape().dims(), [2, 2]);
        assert_eq!(texts(&two), ["0.500000:1", "0.250000:0", "3.000000:0", "3.000000:2"]);
        let labels = ["a", "b"].map(str::to_owned);
        let labelled = largest(&tensor, true, count(9), &labels).unwrap();
        assert_eq!(labelled.shape().dims(), [2, 3]);
        assert_eq!(texts(&labelled)[..3], ["0.500000:1:b", "0.250000:0:a", "0.125000:2"]);
        let one = largest(&tensor, false, count(1), &[]).unwrap();
        assert_eq!((one.shape().dims(), texts(&one)), (&[1][..], vec!["3.000000:3"]));
    }

    #[test]
    fn what_is_no_number_comes_last() {
        let values = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 0.0];
        let all = largest(&floats(&[1, 4], &values), true, count(4), &[]).unwrap();
        assert_eq!(texts(&all), ["inf:2", "0.000000:3", "-inf:1", "NaN:0"]);
    }

    #[test]
    fn every_datatype_with_numbers_has_an_order() {
        for dtype in DataType::ALL.into_iter().filter(|dtype| *dtype != DataType::Bytes) {
            let zeros = Tensor::zeros(dtype, Shape::new(vec![1, 3]).unwrap()).unwrap();
            let first = largest(&zeros, true, count(1), &[]).unwrap();
            assert!(texts(&first)[0].ends_with(":0"), "{dtype}");
        }
        let signed: Vec<u8> = [-1_i16, 5].iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = Shape::new(vec![1, 2]).unwrap();
        let tensor = Tensor::dense(DataType::Int16, shape, signed.into()).unwrap();
        assert_eq!(texts(&largest(&tensor, true, count(2), &[]).unwrap()), ["5:1", "-1:0"]);
    }

    #[test]
    fn nothing_has_no_largest() {
        assert_eq!(largest(&floats(&[2, 0], &[]), true, count(1), &[]), None);
        assert_eq!(largest(&floats(&[0, 2], &[]), true, count(1), &[]), None);
        let text = Tensor::strings(Shape::scalar(), vec![Bytes::from_static(b"x")]).unwrap();
        assert_eq!(largest(&text, false, count(1), &[]), None);
    }
}
