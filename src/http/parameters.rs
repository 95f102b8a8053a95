//! Parameters with their types: JSON tells a bool, an integer, a string and a double apart.
//!
//! Those of the binary extension end here; what the others mean, [`crate::grpc`] knows.

use std::collections::HashMap;

use jiter::Peek;

use super::Failure;
use super::reader::{Reader, kind};
use crate::grpc::wire::MAX_PARAMETERS;
use crate::model::quoted;
use crate::pb::InferParameter;
use crate::pb::infer_parameter::ParameterChoice;

/// Parameters by name.
pub(super) type Parameters = HashMap<String, InferParameter>;

/// Reads an object of parameters.
///
/// # Errors
/// 400 for a value of another kind, or too many.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Parameters, Failure> {
    let mut all = Parameters::new();
    reader.object(str::to_owned, |reader, key| {
        if all.len() == MAX_PARAMETERS {
            let message = format!("request has more than {MAX_PARAMETERS} parameters");
            return Err(Failure::invalid(message));
        }
        let choice = choice(reader, &key)?;
        all.insert(key, InferParameter { parameter_choice: Some(choice) });
        Ok(())
    })?;
    Ok(all)
}

fn choice(reader: &mut Reader<'_>, key: &str) -> Result<ParameterChoice, Failure> {
    Ok(match reader.peek()? {
        Peek::True | Peek::False => ParameterChoice::BoolParam(reader.boolean()?),
        Peek::String => ParameterChoice::StringParam(reader.string(str::to_owned)?),
        peek if peek.is_num() => reader.number(number)?,
        peek => {
            let (key, got) = (quoted(key), kind(peek));
            let message = format!(
                "parameter `{key}`: expected a bool, an integer, a string or a double, got {got}"
            );
            return Err(Failure::invalid(message));
        }
    })
}

/// An integer where it is written as one and fits, else a double.
fn number(text: &str) -> ParameterChoice {
    if let Ok(value) = text.parse::<i64>() {
        return ParameterChoice::Int64Param(value);
    }
    match text.parse::<u64>() {
        Ok(value) => ParameterChoice::Uint64Param(value),
        Err(_) => ParameterChoice::DoubleParam(text.parse().unwrap_or(f64::NAN)),
    }
}

/// Takes a parameter out that has no meaning beyond this room.
///
/// # Errors
/// 400 for one of the wrong type.
pub(super) fn take<T>(
    parameters: &mut Parameters,
    key: &str,
    of: &str,
    read: impl FnOnce(&ParameterChoice) -> Result<T, &'static str>,
) -> Result<Option<T>, Failure> {
    let Some(choice) = parameters.remove(key).and_then(|each| each.parameter_choice) else {
        return Ok(None);
    };
    let value = read(&choice).map_err(|expected| {
        Failure::invalid(format!("{of}: parameter `{key}`: expected {expected}"))
    })?;
    Ok(Some(value))
}

/// A bool.
pub(super) fn flag(choice: &ParameterChoice) -> Result<bool, &'static str> {
    match choice {
        ParameterChoice::BoolParam(value) => Ok(*value),
        _ => Err("a bool"),
    }
}

/// A number of bytes.
pub(super) fn size(choice: &ParameterChoice) -> Result<usize, &'static str> {
    match choice {
        ParameterChoice::Int64Param(value) => {
            usize::try_from(*value).map_err(|_| "a number of at least 0")
        }
        _ => Err("an integer"),
    }
}
