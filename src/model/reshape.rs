//! A tensor whose shape for callers differs from its shape for the model.
//!
//! The elements and their order are the same. Models are often made for exactly one image,
//! `[1,3,224,224]`, while callers think of an image as `[3,224,224]`. The settings say both shapes;
//! here one is computed from the other. Pure.
//!
//! Source: Triton's model configuration, `ModelTensorReshape`.

use crate::tensor::{Shape, Tensor};

/// Two shapes of one tensor; -1 stands for any size, at most once in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape {
    wire: Vec<i64>,
    model: Vec<i64>,
    has_rows: bool,
}

impl Reshape {
    /// The shape that callers see and the one that the model sees. With `has_rows`, both have a
    /// first dimension of rows besides, which stays as it is.
    ///
    /// # Errors
    /// Why no tensor can have both shapes.
    pub fn new(wire: Vec<i64>, model: Vec<i64>, has_rows: bool) -> Result<Self, String> {
        let open = |dims: &[i64]| dims.iter().filter(|dim| **dim == -1).count();
        if wire.iter().chain(&model).any(|dim| *dim != -1 && *dim < 1) {
            return Err(format!("{wire:?} and {model:?}: expected -1 or a size of at least 1"));
        }
        if open(&wire) > 1 || open(&model) > 1 {
            return Err(format!(
                "{wire:?} and {model:?}: only one dimension can have any size, since its size is \
                 computed from the number of elements"
            ));
        }
        let same = match (product(&wire), product(&model)) {
            (Some(one), Some(other)) => {
                open(&wire) == open(&model) && (one == other || open(&wire) == 1)
            }
            _ => false,
        };
        if !same {
            return Err(format!("{wire:?} and {model:?} have different numbers of elements"));
        }
        Ok(Self { wire, model, has_rows })
    }

    /// Dimensions as callers see them: -1 where any size fits.
    pub fn wire_dims(&self) -> Vec<i64> {
        let rows = self.has_rows.then_some(-1);
        rows.into_iter().chain(self.wire.iter().copied()).collect()
    }

    /// Dimensions as the model sees them, without the rows.
    pub fn model_dims(&self) -> &[i64] {
        &self.model
    }

    /// A caller's tensor as the model's; `None` if it does not have the shape that callers see.
    pub fn to_model(&self, tensor: Tensor) -> Option<Tensor> {
        let shape = turn(tensor.shape(), &self.wire, &self.model, self.has_rows)?;
        tensor.reshaped(shape)
    }

    /// A model's tensor as the caller's; `None` if it does not have the shape that the model was
    /// said to give.
    pub fn to_wire(&self, tensor: Tensor) -> Option<Tensor> {
        let shape = turn(tensor.shape(), &self.model, &self.wire, self.has_rows)?;
        tensor.reshaped(shape)
    }
}

/// Product of the fixed sizes.
fn product(dims: &[i64]) -> Option<i64> {
    dims.iter().filter(|dim| **dim != -1).try_fold(1_i64, |all, dim| all.checked_mul(*dim))
}

/// The shape `to` for a tensor of the shape `from`.
fn turn(actual: &Shape, from: &[i64], to: &[i64], has_rows: bool) -> Option<Shape> {
    let (rows, inner) = actual.dims().split_at_checked(usize::from(has_rows))?;
    let fits = |(declared, size): (&i64, &i64)| *declared == -1 || declared == size;
    if inner.len() != from.len() || !from.iter().zip(inner).all(fits) {
        return None;
    }
    let elements = product(inner)?;
    let fixed = product(to)?;
    let open = elements.checked_div(fixed)?;
    let dims = to.iter().map(|dim| if *dim == -1 { open } else { *dim });
    let shape = Shape::new(rows.iter().copied().chain(dims).collect()).ok()?;
    // What does not divide has another number of elements.
    (shape.elements() == actual.elements()).then_some(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    fn zeros(dims: &[i64]) -> Tensor {
        Tensor::zeros(DataType::Fp32, Shape::new(dims.to_vec()).unwrap()).unwrap()
    }

    #[test]
    fn one_image_gets_and_loses_its_batch_dimension() {
        let image = Reshape::new(vec![3, 2, 2], vec![1, 3, 2, 2], false).unwrap();
        assert_eq!(image.wire_dims(), [3, 2, 2]);
        let model = image.to_model(zeros(&[3, 2, 2])).unwrap();
        assert_eq!(model.shape().dims(), [1, 3, 2, 2]);
        assert_eq!(image.to_wire(model).unwrap().shape().dims(), [3, 2, 2]);
        for wrong in [&[1, 3, 2, 2][..], &[3, 4], &[2, 3, 2], &[]] {
            assert_eq!(image.to_model(zeros(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn rows_stay_and_a_scalar_per_row_has_no_dimension() {
        let scalar = Reshape::new(vec![1], vec![], true).unwrap();
        assert_eq!(scalar.wire_dims(), [-1, 1]);
        assert_eq!(scalar.to_model(zeros(&[5, 1])).unwrap().shape().dims(), [5]);
        assert_eq!(scalar.to_wire(zeros(&[5])).unwrap().shape().dims(), [5, 1]);
        assert_eq!(scalar.to_model(zeros(&[0, 1])).unwrap().shape().dims(), [0]);
        assert_eq!(scalar.to_model(zeros(&[])), None);
    }

    #[test]
    fn an_open_size_is_computed() {
        let pairs = Reshape::new(vec![-1], vec![2, -1], false).unwrap();
        assert_eq!(pairs.to_model(zeros(&[6])).unwrap().shape().dims(), [2, 3]);
        assert_eq!(pairs.to_model(zeros(&[0])).unwrap().shape().dims(), [2, 0]);
        assert_eq!(pairs.to_model(zeros(&[5])), None);
        assert_eq!(pairs.to_wire(zeros(&[2, 4])).unwrap().shape().dims(), [8]);
    }

    #[test]
    fn shapes_that_no_tensor_has_are_refused() {
        for (wire, model, words) in [
            (vec![3], vec![4], "different numbers"),
            (vec![-1], vec![4], "different numbers"),
            (vec![-1, -1], vec![-1], "only one dimension"),
            (vec![0], vec![0], "at least 1"),
            (vec![i64::MAX, 4], vec![i64::MAX, 4], "different numbers"),
        ] {
            let refused = Reshape::new(wire, model, false).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
