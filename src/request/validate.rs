//! Holds a request against a signature: names, datatypes, ranks, sizes, symbols, rows, length,
//! outputs.
//!
//! Every refusal names the tensor, what was expected and what came. Pure.

use super::{BatchKey, InferRequest, NamedTensor, Symbols, ValidRequest};
use crate::error::InvalidRequest;
use crate::model::{Dim, ModelSpec, TensorSpec, quoted};
use crate::tensor::{Tensor, TensorData};

/// Checks `request` against `spec` and puts its inputs into the model's order.
///
/// `max_rows` is the most rows that one request may have.
///
/// # Errors
/// [`InvalidRequest`] (INVALID_ARGUMENT) for an unknown, missing or duplicate input or output, a
/// datatype, rank or size that is not the declared one, symbols that disagree, inputs whose rows
/// differ, no rows or too many, padded inputs whose lengths differ.
pub fn validate(
    request: InferRequest,
    spec: &ModelSpec,
    max_rows: usize,
) -> Result<ValidRequest, InvalidRequest> {
    let (priority, tenant, trace) = (request.priority, request.tenant, request.trace);
    let outputs = choose_outputs(&request.outputs, spec)?;
    let mut inputs = arrange_inputs(request.inputs, spec)?;
    for (tensor, declared) in inputs.iter_mut().zip(&spec.inputs) {
        if let Some(reshape) = &declared.reshape {
            let given = tensor.clone();
            *tensor = reshape.to_model(given).ok_or_else(|| wrong_shape(tensor, declared))?;
        }
    }
    let mut symbols = Symbols::new();
    for (tensor, declared) in inputs.iter().zip(&spec.inputs) {
        check_tensor(tensor, declared)?;
        check_symbols(tensor, declared, &mut symbols)?;
    }
    let rows = count_rows(&inputs, spec, max_rows)?;
    let length = find_length(&inputs, spec)?;
    let batch_key = spec.has_rows().then(|| key_of(&inputs, spec)).flatten();
    let byte_size = inputs.iter().map(Tensor::byte_size).sum();
    Ok(ValidRequest {
        inputs,
        rows,
        length,
        outputs,
        batch_key,
        byte_size,
        priority,
        tenant,
        trace,
    })
}

/// What costs of a request with these inputs are known by, as [`ValidRequest::length`] says; 1 if
/// its inputs disagree.
pub fn length_of(inputs: &[Tensor], spec: &ModelSpec) -> usize {
    find_length(inputs, spec).unwrap_or(1)
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    names.join(", ")
}

fn choose_outputs(
    wanted: &[String],
    spec: &ModelSpec,
) -> Result<Option<Vec<usize>>, InvalidRequest> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut chosen = Vec::with_capacity(wanted.len().min(spec.outputs.len()));
    for (position, name) in wanted.iter().enumerate() {
        let field = || format!("outputs[{position}].name");
        let Some(index) = spec.outputs.iter().position(|output| *output.name == **name) else {
            let known = names(&spec.outputs);
            let message = format!("unknown output `{}`; the model has {known}", quoted(name));
            return Err(InvalidRequest::new(field(), message));
        };
        if chosen.contains(&index) {
            let message = format!("output `{name}` is requested twice");
            return Err(InvalidRequest::new(field(), message));
        }
        chosen.push(index);
    }
    Ok(Some(chosen))
}

fn arrange_inputs(
    given: Vec<NamedTensor>,
    spec: &ModelSpec,
) -> Result<Vec<Tensor>, InvalidRequest> {
    // The usual client sends the inputs in the model's order: nothing to arrange.
    if given.len() == spec.inputs.len()
        && given.iter().zip(&spec.inputs).all(|(input, declared)| *input.name == *declared.name)
    {
        return Ok(given.into_iter().map(|input| input.tensor).collect());
    }
    let mut slots: Vec<Option<Tensor>> = vec![None; spec.inputs.len()];
    for (position, input) in given.into_iter().enumerate() {
        let field = || format!("inputs[{position}].name");
        let Some(index) = spec.inputs.iter().position(|declared| *declared.name == *input.name)
        else {
            let known = names(&spec.inputs);
            let message = format!("unknown input `{}`; the model has {known}", quoted(&input.name));
            return Err(InvalidRequest::new(field(), message));
        };
        if slots[index].replace(input.tensor).is_some() {
            let message = format!("input `{}` is given twice", input.name);
            return Err(InvalidRequest::new(field(), message));
        }
    }
    let mut arranged = Vec::with_capacity(slots.len());
    for (slot, declared) in slots.into_iter().zip(&spec.inputs) {
        arranged.push(slot.ok_or_else(|| {
            let known = names(&spec.inputs);
            let message = format!("input `{}` is missing; the model has {known}", declared.name);
            InvalidRequest::new("inputs", message)
        })?);
    }
    Ok(arranged)
}

fn check_tensor(tensor: &Tensor, declared: &TensorSpec) -> Result<(), InvalidRequest> {
    let name = &declared.name;
    if tensor.dtype() != declared.dtype {
        let (wanted, got) = (declared.dtype, tensor.dtype());
        let message = format!("input `{name}`: expected datatype {wanted}, got {got}");
        return Err(InvalidRequest::new(format!("inputs.{name}.datatype"), message));
    }
    if !declared.accepts(tensor.shape()) {
        return Err(wrong_shape(tensor, declared));
    }
    Ok(())
}

fn wrong_shape(tensor: &Tensor, declared: &TensorSpec) -> InvalidRequest {
    let (name, wanted, got) = (&declared.name, declared.wire_dims(), tensor.shape());
    let message = format!("input `{name}`: expected shape {wanted:?}, got {got}");
    InvalidRequest::new(format!("inputs.{name}.shape"), message)
}

fn check_symbols<'a>(
    tensor: &Tensor,
    declared: &'a TensorSpec,
    symbols: &mut Symbols<'a>,
) -> Result<(), InvalidRequest> {
    for (axis, (dim, size)) in declared.dims.iter().zip(tensor.shape().dims()).enumerate() {
        let Dim::Dynamic(Some(symbol)) = dim else { continue };
        // Rows are compared by `count_rows`, which has the better words for it.
        if declared.batch_axis == Some(axis) {
            continue;
        }
        let (known, other) = *symbols.entry(symbol).or_insert((*size, &declared.name));
        if known != *size {
            let name = &declared.name;
            let message = format!(
                "input `{name}`: dimension {axis} (`{symbol}`) is {size}, \
                 but input `{other}` has {known} there"
            );
            return Err(InvalidRequest::new(format!("inputs.{name}.shape"), message));
        }
    }
    Ok(())
}

fn count_rows(
    inputs: &[Tensor],
    spec: &ModelSpec,
    max_rows: usize,
) -> Result<usize, InvalidRequest> {
    let mut known: Option<(usize, &str)> = None;
    for (tensor, declared) in inputs.iter().zip(&spec.inputs) {
        let Some(rows) = declared.batch_axis.and_then(|axis| tensor.shape().dim(axis)) else {
            continue;
        };
        let name = &*declared.name;
        match known {
            None => known = Some((rows, name)),
            Some((others, _)) if others == rows => {}
            Some((others, other)) => {
                let message =
                    format!("input `{name}` has {rows} rows, but input `{other}` has {others}");
                return Err(InvalidRequest::new(format!("inputs.{name}.shape"), message));
            }
        }
    }
    let Some((rows, name)) = known else { return Ok(1) };
    let field = || format!("inputs.{name}.shape");
    if rows == 0 {
        let message = format!("input `{name}` has 0 rows, expected at least 1");
        return Err(InvalidRequest::new(field(), message));
    }
    if rows > max_rows {
        let message = format!("request has {rows} rows, max_request_rows is {max_rows}");
        return Err(InvalidRequest::new(field(), message));
    }
    Ok(rows)
}

/// The one length of a request whose inputs are padded; else the size of its open dimensions.
fn find_length(inputs: &[Tensor], spec: &ModelSpec) -> Result<usize, InvalidRequest> {
    let mut known: Option<(usize, &TensorSpec)> = None;
    for (tensor, declared) in inputs.iter().zip(&spec.inputs) {
        let Some(axis) = declared.length_axis() else { continue };
        let Some(length) = tensor.shape().dim(axis) else { continue };
        match known {
            None => known = Some((length, declared)),
            Some((others, _)) if others == length => {}
            Some((others, other)) => {
                let (name, other) = (&declared.name, &other.name);
                let message = format!(
                    "input `{name}`: is {length} long on axis {axis}, but input `{other}` is \
                     {others} long; the two are padded together"
                );
                return Err(InvalidRequest::new(format!("inputs.{name}.shape"), message));
            }
        }
    }
    if let Some((length, _)) = known {
        return Ok(length);
    }
    let open = |(tensor, declared): (&Tensor, &TensorSpec)| {
        let sizes = open_sizes(tensor, declared).map(|size| usize::try_from(size).unwrap_or(0));
        sizes.fold(1, usize::saturating_mul)
    };
    Ok(inputs.iter().zip(&spec.inputs).map(open).max().unwrap_or(1))
}

/// Sizes of the dynamic dimensions that requests of a run have in common.
fn open_sizes(tensor: &Tensor, declared: &TensorSpec) -> impl Iterator<Item = i64> {
    let free = [declared.batch_axis, declared.length_axis()];
    let dims = declared.dims.iter().zip(tensor.shape().dims()).enumerate();
    dims.filter(move |(axis, (dim, _))| dim.is_dynamic() && !free.contains(&Some(*axis)))
        .map(|(_, (_, size))| *size)
}

/// Key of the group, or `None` for a request with an empty tensor, which runs alone.
fn key_of(inputs: &[Tensor], spec: &ModelSpec) -> Option<BatchKey> {
    let mut key = BatchKey::default();
    for (tensor, declared) in inputs.iter().zip(&spec.inputs) {
        if tensor.shape().elements() == 0 {
            return None;
        }
        key.dims.extend(open_sizes(tensor, declared));
        if declared.batch_axis.is_none() {
            match tensor.data() {
                TensorData::Dense(bytes) => key.shared.push(bytes.clone()),
                TensorData::Strings(elements) => key.shared.extend(elements.iter().cloned()),
            }
        }
    }
    Some(key)
}
