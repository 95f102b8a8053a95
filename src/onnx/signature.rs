//! Reads a model's inputs and outputs into the server's vocabulary.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::model::{Dim, ModelSpec, TensorSpec};
use crate::tensor::DataType;

/// The signature, without batch axes. The error says what cannot be served.
pub(super) fn read(session: &Session) -> Result<ModelSpec, String> {
    let tensors = |outlets: &[Outlet], kind: &str| -> Result<Vec<TensorSpec>, String> {
        outlets.iter().map(|outlet| tensor(outlet, kind)).collect()
    };
    Ok(ModelSpec {
        inputs: tensors(session.inputs(), "input")?,
        outputs: tensors(session.outputs(), "output")?,
    })
}

fn tensor(outlet: &Outlet, kind: &str) -> Result<TensorSpec, String> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        let found = outlet.dtype();
        return Err(format!("{kind} `{name}` is a {found}; only tensors can be served"));
    };
    let Some(dtype) = data_type(*ty) else {
        return Err(format!("{kind} `{name}` has element type {ty}, which the protocol lacks"));
    };
    let dims = shape
        .iter()
        .zip(dimension_symbols.iter())
        .map(|(size, symbol)| match (*size, symbol.as_str()) {
            (size, _) if size >= 0 => Dim::Fixed(size),
            (_, symbol) if names_something(symbol) => Dim::Dynamic(Some(symbol.into())),
            _ => Dim::Dynamic(None),
        })
        .collect();
    Ok(TensorSpec { name: name.into(), dtype, dims, batch_axis: None, reshape: None, ragged: None })
}

/// Whether a symbol is a name. Some exporters write `?` on every dynamic dimension, which would
/// otherwise mean that they are all equal.
fn names_something(symbol: &str) -> bool {
    symbol.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The protocol's type for one of ONNX Runtime's.
pub(super) fn data_type(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::UInt8,
        TensorElementType::Uint16 => DataType::UInt16,
        TensorElementType::Uint32 => DataType::UInt32,
        TensorElementType::Uint64 => DataType::UInt64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}
