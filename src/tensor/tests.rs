//! Shapes, tensors, joining and cutting: properties first.

use bytes::Bytes;
use proptest::prelude::*;

use super::rows::{Joined, RowsError, split};
use super::{DataType, Shape, ShapeError, Tensor, TensorError};

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
}
