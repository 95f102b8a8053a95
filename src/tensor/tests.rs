//! Shapes, tensors, joining and cutting: properties first.

use bytes::Bytes;
use proptest::prelude::*;

use super::rows::{Joined, Pad, RowsError, shorten, split};
use super::{DataType, Fill, Shape, ShapeError, Tensor, TensorData, TensorError};

fn shape(dims: &[i64]) -> Shape {
    Shape::new(dims.to_vec()).unwrap()
}

fn counted(dims: &[i64], start: u16) -> Tensor {
    let shape = shape(dims);
    let data: Vec<u8> = (0..shape.elements())
        .flat_map(|index| (start + u16::try_from(index).unwrap()).to_le_bytes())
        .collect();
    Tensor::dense(DataType::UInt16, shape, Bytes::from(data)).unwrap()
}

#[test]
fn shape_refuses_negative_dimensions_and_products_that_wrap() {
    assert_eq!(Shape::new(vec![2, -1]), Err(ShapeError::Negative { axis: 1, value: -1 }));
    let wraps_to_zero = vec![1 << 32, 1 << 32];
    assert!(matches!(Shape::new(wraps_to_zero), Err(ShapeError::Overflow { .. })));
    let hidden_by_zero = vec![0, 1 << 62, 1 << 62];
    assert!(matches!(Shape::new(hidden_by_zero), Err(ShapeError::Overflow { .. })));
    assert_eq!(shape(&[]).elements(), 1);
    assert_eq!(shape(&[3, 0]).elements(), 0);
}

#[test]
fn dense_checks_length_and_bools() {
    let short = Tensor::dense(DataType::Fp32, shape(&[2]), Bytes::from_static(&[0; 7]));
    assert_eq!(short.unwrap_err().to_string(), "FP32 of shape [2] needs 8 bytes, got 7");
    let odd = Tensor::dense(DataType::Bool, shape(&[3]), Bytes::from_static(&[1, 0, 2]));
    assert_eq!(odd, Err(TensorError::NotBool { index: 2, value: 2 }));
    assert!(Tensor::strings(shape(&[2]), vec![Bytes::new()]).is_err());
}

#[test]
fn wire_names_round_trip() {
    for dtype in DataType::ALL {
        assert_eq!(DataType::from_wire_name(dtype.wire_name()), Some(dtype));
    }
    assert_eq!(DataType::from_wire_name("fp32"), None);
}

#[test]
fn parts_along_the_first_axis_share_memory() {
    let whole = counted(&[4, 3], 0);
    let parts = split(&whole, 0, &[1, 3]).unwrap();
    let base = whole.dense_bytes().unwrap().as_ptr();
    assert_eq!(parts[1].dense_bytes().unwrap().as_ptr(), base.wrapping_add(6));
}

#[test]
fn shared_tensor_stands_for_all() {
    let scalar = counted(&[], 7);
    let joined = Joined::new(vec![&scalar, &scalar], None).unwrap();
    assert_eq!(joined.shape().dims(), &[] as &[i64]);
    assert!(joined.single().is_some());
}

#[test]
fn rows_that_do_not_add_up_are_never_cut() {
    let whole = counted(&[2, 3], 0);
    let error = split(&whole, 0, &[1, 2]).unwrap_err();
    assert_eq!(error.to_string(), "2 rows along axis 0 of [2, 3], expected 3");
    assert!(matches!(split(&whole, 2, &[2]), Err(RowsError::NoAxis { .. })));
}

/// Elements that tell part and place, of any datatype.
fn marked(dtype: DataType, dims: &[i64], part: usize) -> Tensor {
    let shape = shape(dims);
    let Some(size) = dtype.size_bytes() else {
        let elements =
            (0..shape.elements()).map(|place| Bytes::from(format!("{part}-{place}"))).collect();
        return Tensor::strings(shape, elements).unwrap();
    };
    let places = 0..shape.elements() * size;
    let bytes: Vec<u8> = match dtype {
        DataType::Bool => places.map(|place| u8::from((place + part).is_multiple_of(3))).collect(),
        _ => places.map(|place| u8::try_from((place * 7 + part * 31) % 251).unwrap()).collect(),
    };
    Tensor::dense(dtype, shape, bytes.into()).unwrap()
}

/// The tensor that an executor would see.
fn whole(joined: &Joined<'_>) -> Tensor {
    if joined.dtype() == DataType::Bytes {
        let elements = joined.string_elements().into_iter().cloned().collect();
        return Tensor::strings(joined.shape().clone(), elements).unwrap();
    }
    // Whatever lay in the buffer before is overwritten.
    let mut bytes = vec![1; joined.byte_len()];
    joined.copy_to(&mut bytes);
    Tensor::dense(joined.dtype(), joined.shape().clone(), bytes.into()).unwrap()
}

/// Elements of a tensor, one by one.
fn elements(tensor: &Tensor) -> Vec<Bytes> {
    match tensor.data() {
        TensorData::Strings(elements) => elements.clone(),
        TensorData::Dense(bytes) => {
            let size = tensor.dtype().size_bytes().unwrap();
            bytes.chunks(size).map(Bytes::copy_from_slice).collect()
        }
    }
}

/// What joining with padding means, said element by element.
fn expected(parts: &[Tensor], whole: &Shape, axis: usize, pad: Pad) -> Vec<Bytes> {
    let dims: Vec<usize> = (0..whole.rank()).map(|axis| whole.dim(axis).unwrap()).collect();
    let contents: Vec<Vec<Bytes>> = parts.iter().map(elements).collect();
    let element = |place: usize| {
        let mut index = vec![0; dims.len()];
        let mut rest = place;
        for axis in (0..dims.len()).rev() {
            (index[axis], rest) = (rest % dims[axis], rest / dims[axis]);
        }
        let mut part = 0;
        while index[axis] >= parts[part].shape().dim(axis).unwrap() {
            index[axis] -= parts[part].shape().dim(axis).unwrap();
            part += 1;
        }
        let own = parts[part].shape();
        if index[pad.axis] >= own.dim(pad.axis).unwrap() {
            return Bytes::copy_from_slice(pad.fill.element());
        }
        let place =
            index.iter().enumerate().fold(0, |sum, (axis, at)| sum * own.dim(axis).unwrap() + at);
        contents[part][place].clone()
    };
    (0..whole.elements()).map(element).collect()
}

fn pad_of(dtype: DataType, axis: usize) -> Pad {
    let value = match dtype {
        DataType::Bytes => "",
        DataType::Bool => "true",
        _ => "100",
    };
    Pad { axis, fill: Fill::parse(dtype, value).unwrap() }
}

#[test]
fn shorter_parts_are_padded_in_every_datatype() {
    for dtype in DataType::ALL {
        let parts = [[2, 1], [1, 3], [3, 2]].map(|dims| marked(dtype, &dims, 7));
        let joined = Joined::padded(parts.iter().collect(), 0, pad_of(dtype, 1)).unwrap();
        assert_eq!((joined.shape().dims(), joined.padding()), (&[6, 3][..], 7), "{dtype}");
        let found = elements(&whole(&joined));
        assert_eq!(found, expected(&parts, joined.shape(), 0, pad_of(dtype, 1)), "{dtype}");
        // The first part is as long as it was; what follows in its rows is padding.
        let filler = Bytes::copy_from_slice(pad_of(dtype, 1).fill.element());
        assert_eq!(found[..3], [elements(&parts[0])[0].clone(), filler.clone(), filler]);
    }
}

#[test]
fn a_single_part_is_neither_padded_nor_copied() {
    let part = counted(&[2, 3], 0);
    let pad = pad_of(DataType::UInt16, 1);
    let joined = Joined::padded(vec![&part], 0, pad).unwrap();
    assert_eq!(joined.single().unwrap().as_ptr(), part.dense_bytes().unwrap().as_ptr());
    let equal = Joined::padded(vec![&part, &part], 0, pad).unwrap();
    assert_eq!((equal.shape().dims(), equal.padding()), (&[4, 3][..], 0));
}

#[test]
fn what_padding_does_not_mend_is_not_joined() {
    let (one, other) = (counted(&[1, 3, 2], 0), counted(&[1, 4, 3], 0));
    let join = |parts, axis, pad| Joined::padded(parts, axis, pad).map(drop).unwrap_err();
    let pad = |axis| pad_of(DataType::UInt16, axis);
    assert!(matches!(join(vec![&one, &other], 0, pad(1)), RowsError::Mismatch { .. }));
    let longer = counted(&[1, 4, 2], 0);
    assert!(matches!(join(vec![&one, &longer], 1, pad(1)), RowsError::Mismatch { .. }));
    let foreign = Pad { axis: 1, fill: Fill::zero(DataType::Fp32) };
    assert!(matches!(join(vec![&one, &longer], 0, foreign), RowsError::Mismatch { .. }));
    let flat = counted(&[1, 4], 0);
    assert!(matches!(join(vec![&flat, &one], 0, pad(2)), RowsError::NoAxis { .. }));
    assert_eq!(join(Vec::new(), 0, pad(1)), RowsError::Nothing);
}

#[test]
fn what_is_cut_back_was_as_long_as_the_longest() {
    let padded = counted(&[2, 5], 0);
    let error = shorten(&padded, 1, 4, 3).unwrap_err();
    assert_eq!(error.to_string(), "[2, 5] is 5 long on axis 1, expected 4");
    assert!(matches!(shorten(&padded, 1, 5, 6), Err(RowsError::Length { .. })));
    assert!(matches!(shorten(&padded, 2, 5, 3), Err(RowsError::NoAxis { .. })));
    // One row, or the first axis, is a slice.
    let base = |tensor: &Tensor| tensor.dense_bytes().unwrap().as_ptr();
    for (tensor, axis) in [(counted(&[5, 2], 0), 0), (counted(&[1, 5, 2], 0), 1)] {
        let short = shorten(&tensor, axis, 5, 3).unwrap();
        assert_eq!((short.shape().elements(), base(&short)), (6, base(&tensor)));
    }
    assert_eq!(base(&shorten(&padded, 1, 5, 5).unwrap()), base(&padded));
}

#[test]
fn parts_of_different_shape_are_not_joined() {
    let (one, other) = (counted(&[1, 3], 0), counted(&[1, 4], 0));
    assert!(matches!(Joined::new(vec![&one, &other], Some(0)), Err(RowsError::Mismatch { .. })));
}

proptest! {
    /// Whatever the rank, the axis and the parts: cut what was joined, and nothing has changed.
    #[test]
    fn split_undoes_join(
        outer in proptest::collection::vec(1_i64..4, 0..3),
        inner in proptest::collection::vec(0_i64..4, 0..3),
        rows in proptest::collection::vec(1_i64..5, 1..6),
    ) {
        let axis = outer.len();
        let tensors: Vec<Tensor> = rows
            .iter()
            .enumerate()
            .map(|(index, count)| {
                let dims = [&outer[..], &[*count], &inner[..]].concat();
                counted(&dims, u16::try_from(index * 1000).unwrap())
            })
            .collect();
        let joined = Joined::new(tensors.iter().collect(), Some(axis)).unwrap();
        let mut bytes = vec![0; joined.byte_len()];
        joined.copy_to(&mut bytes);
        let whole = Tensor::dense(DataType::UInt16, joined.shape().clone(), bytes.into()).unwrap();
        let counts: Vec<usize> = rows.iter().map(|count| usize::try_from(*count).unwrap()).collect();
        prop_assert_eq!(split(&whole, axis, &counts).unwrap(), tensors);
    }

    /// BYTES elements travel the same way.
    #[test]
    fn strings_split_undoes_join(rows in proptest::collection::vec(1_i64..4, 1..5)) {
        let tensors: Vec<Tensor> = rows
            .iter()
            .enumerate()
            .map(|(index, count)| {
                let shape = shape(&[2, *count]);
                let elements = (0..shape.elements())
                    .map(|element| Bytes::from(format!("{index}-{element}")))
                    .collect();
                Tensor::strings(shape, elements).unwrap()
            })
            .collect();
        let joined = Joined::new(tensors.iter().collect(), Some(1)).unwrap();
        let elements = joined.string_elements().into_iter().cloned().collect();
        let whole = Tensor::strings(joined.shape().clone(), elements).unwrap();
        let counts: Vec<usize> = rows.iter().map(|count| usize::try_from(*count).unwrap()).collect();
        prop_assert_eq!(split(&whole, 1, &counts).unwrap(), tensors);
    }

    /// Whatever the axes, the datatype and the lengths: each element stands where it should, the
    /// rest is padding, and taken apart again nothing has changed.
    #[test]
    fn cutting_back_undoes_padding(
        dtype in 0..DataType::ALL.len(),
        outer in proptest::collection::vec(1_i64..3, 0..2),
        between in proptest::collection::vec(1_i64..3, 0..2),
        inner in proptest::collection::vec(1_i64..3, 0..2),
        sizes in proptest::collection::vec((1_i64..4, 0_i64..5), 1..6),
        rows_first: bool,
    ) {
        let dtype = DataType::ALL[dtype];
        let (first, last) = (outer.len(), outer.len() + 1 + between.len());
        let (axis, pad_axis) = if rows_first { (first, last) } else { (last, first) };
        let parts: Vec<Tensor> = sizes
            .iter()
            .enumerate()
            .map(|(part, (rows, length))| {
                let (one, other) = if rows_first { (rows, length) } else { (length, rows) };
                marked(dtype, &[&outer[..], &[*one], &between, &[*other], &inner].concat(), part)
            })
            .collect();
        let pad = pad_of(dtype, pad_axis);
        let joined = Joined::padded(parts.iter().collect(), axis, pad).unwrap();
        let together = whole(&joined);
        prop_assert_eq!(elements(&together), expected(&parts, joined.shape(), axis, pad));
        let own: usize = parts.iter().map(|part| part.shape().elements()).sum();
        prop_assert_eq!(joined.padding(), together.shape().elements() - own);

        let size = |part: &Tensor, axis| part.shape().dim(axis).unwrap();
        let rows: Vec<usize> = parts.iter().map(|part| size(part, axis)).collect();
        let longest = size(&together, pad_axis);
        for (cut, part) in split(&together, axis, &rows).unwrap().iter().zip(&parts) {
            let back = shorten(cut, pad_axis, longest, size(part, pad_axis)).unwrap();
            prop_assert_eq!(&back, part);
        }
    }
}
