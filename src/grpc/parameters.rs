//! Parameters with a meaning: read into values, refused when they have the wrong type.
//!
//! Unknown parameters are ignored, as clients of the protocol expect.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::error::InvalidRequest;
use crate::model::quoted;
use crate::pb::InferParameter;
use crate::pb::infer_parameter::ParameterChoice;
use crate::pb::model_infer_request::InferRequestedOutputTensor;

/// Time limit and priority of a request.
///
/// # Errors
/// [`InvalidRequest`] for a known parameter of the wrong type or a negative number.
pub(super) fn read(
    parameters: &HashMap<String, InferParameter>,
) -> Result<(Option<Duration>, u64), InvalidRequest> {
    if parameters.is_empty() {
        return Ok((None, 0));
    }
    let timeout = match number(parameters, "timeout")? {
        // Triton's clients send 0 for "none".
        None | Some(0) => None,
        Some(micros) => Some(Duration::from_micros(micros)),
    };
    let priority = number(parameters, "priority")?.unwrap_or(0);
    for key in ["sequence_start", "sequence_end", "triton_enable_empty_final_response"] {
        flag(parameters, key)?;
    }
    match parameters.get("sequence_id").and_then(|each| each.parameter_choice.as_ref()) {
        None | Some(ParameterChoice::StringParam(_)) => {}
        Some(_) => drop(number(parameters, "sequence_id")?),
    }
    Ok((timeout, priority))
}

/// How many of its largest values a requested output is to be answered with; `None` for the
/// output itself.
///
/// # Errors
/// [`InvalidRequest`] for a number below 1, a wrong type, or shared memory, which is not served.
pub(super) fn classes(
    output: &InferRequestedOutputTensor,
) -> Result<Option<NonZeroUsize>, InvalidRequest> {
    let refuse = |problem: &str| {
        let name = quoted(&output.name);
        let message = format!("output `{name}`: {problem}");
        InvalidRequest::new(format!("outputs.{name}.parameters"), message)
    };
    if output.parameters.contains_key("shared_memory_region") {
        return Err(refuse("parameter `shared_memory_region` is not served"));
    }
    let count =
        number(&output.parameters, "classification").map_err(|error| refuse(&error.message))?;
    let count = count.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    match count.map(NonZeroUsize::new) {
        Some(None) => Err(refuse("parameter `classification`: expected at least 1, got 0")),
        Some(count) => Ok(count),
        None => Ok(None),
    }
}

fn number(
    parameters: &HashMap<String, InferParameter>,
    key: &str,
) -> Result<Option<u64>, InvalidRequest> {
    let Some(parameter) = parameters.get(key) else { return Ok(None) };
    match parameter.parameter_choice {
        Some(ParameterChoice::Uint64Param(value)) => Ok(Some(value)),
        Some(ParameterChoice::Int64Param(value)) => match u64::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(wrong(key, "a number of at least 0", &value.to_string())),
        },
        _ => Err(wrong(key, "an integer", kind(parameter))),
    }
}

fn flag(parameters: &HashMap<String, InferParameter>, key: &str) -> Result<(), InvalidRequest> {
    match parameters.get(key) {
        Some(parameter) if kind(parameter) != "a bool" => {
            Err(wrong(key, "a bool", kind(parameter)))
        }
        _ => Ok(()),
    }
}

fn kind(parameter: &InferParameter) -> &'static str {
    match parameter.parameter_choice {
        None => "nothing",
        Some(ParameterChoice::BoolParam(_)) => "a bool",
        Some(ParameterChoice::Int64Param(_) | ParameterChoice::Uint64Param(_)) => "an integer",
        Some(ParameterChoice::StringParam(_)) => "a string",
        Some(ParameterChoice::DoubleParam(_)) => "a double",
    }
}

fn wrong(key: &str, expected: &str, got: &str) -> InvalidRequest {
    let message = format!("parameter `{key}`: expected {expected}, got {got}");
    InvalidRequest::new(format!("parameters.{key}"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, choice: ParameterChoice) -> HashMap<String, InferParameter> {
        let parameter = InferParameter { parameter_choice: Some(choice) };
        HashMap::from([(key.to_owned(), parameter)])
    }

    #[test]
    fn known_parameters_have_a_type_and_unknown_ones_do_not() {
        let timeout = one("timeout", ParameterChoice::Int64Param(1500));
        assert_eq!(read(&timeout).unwrap().0, Some(Duration::from_micros(1500)));
        let priority = one("priority", ParameterChoice::Uint64Param(2));
        assert_eq!(read(&priority).unwrap().1, 2);
        let unknown = one("triton_anything", ParameterChoice::DoubleParam(1.0));
        assert_eq!(read(&unknown).unwrap(), (None, 0));
        let text = one("timeout", ParameterChoice::StringParam("1".into()));
        assert_eq!(
            read(&text).unwrap_err().message,
            "parameter `timeout`: expected an integer, got a string"
        );
        let negative = one("priority", ParameterChoice::Int64Param(-1));
        assert_eq!(
            read(&negative).unwrap_err().message,
            "parameter `priority`: expected a number of at least 0, got -1"
        );
        let number = one("sequence_start", ParameterChoice::Int64Param(1));
        assert!(read(&number).unwrap_err().message.contains("expected a bool"));
        assert!(read(&one("sequence_id", ParameterChoice::StringParam("a".into()))).is_ok());
    }
}
