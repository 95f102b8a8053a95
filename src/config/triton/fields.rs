//! What becomes of each field of the schema.
//!
//! A field that changes results and that the server does not have is refused; one that only tunes
//! is left out and named. The table has every field, which a test holds against the schema, so that
//! nothing is left out in silence.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, Value};

use crate::config::ConfigErrors;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is mapped onto settings.
    Read,
    /// It is left out and named.
    Ignored,
    /// The model is not loaded, because of this.
    Refused(&'static str),
}

use Outcome::{Ignored, Read, Refused};

const RAGGED: Outcome = Refused("requests of different shapes are never joined end to end");
const DEVICE_FORMAT: Outcome = Refused("tensors have the protocol's layout only");
const SHAPE_TENSOR: Outcome = Refused("shape tensors belong to TensorRT engines, not to ONNX");

/// Fields by their path; what is said of a message holds for its fields, unless they have an entry
/// of their own.
pub(super) const FIELDS: &[(&str, Outcome)] = &[
    ("name", Read),
    ("platform", Read),
    ("backend", Read),
    ("runtime", Refused("the library that runs models is a setting of the server")),
    ("version_policy", Read),
    ("max_batch_size", Read),
    ("input", Read),
    ("input.is_shape_tensor", SHAPE_TENSOR),
    ("input.allow_ragged_batch", RAGGED),
    ("input.optional", Refused("every input of the model has to be sent")),
    ("input.is_non_linear_format_io", DEVICE_FORMAT),
    ("output", Read),
    ("output.is_shape_tensor", SHAPE_TENSOR),
    ("output.is_non_linear_format_io", DEVICE_FORMAT),
    ("batch_input", RAGGED),
    ("batch_output", RAGGED),
    ("optimization", Read),
    ("optimization.priority", Ignored),
    ("optimization.cuda", Ignored),
    ("optimization.input_pinned_memory", Ignored),
    ("optimization.output_pinned_memory", Ignored),
    ("optimization.gather_kernel_buffer_threshold", Ignored),
    ("optimization.eager_batching", Ignored),
    ("dynamic_batching", Read),
    ("dynamic_batching.preferred_batch_size", Ignored),
    ("dynamic_batching.preserve_ordering", Ignored),
    ("dynamic_batching.priority_queue_policy", Ignored),
    ("dynamic_batching.default_queue_policy.timeout_action", Ignored),
    ("dynamic_batching.default_queue_policy.default_timeout_microseconds", Ignored),
    ("sequence_batching", Refused("the server keeps no state between requests")),
    ("ensemble_scheduling", Refused("a model is one ONNX graph, not a pipeline of models")),
    ("instance_group", Read),
    ("instance_group.profile", Ignored),
    ("instance_group.rate_limiter", Ignored),
    ("instance_group.passive", Ignored),
    ("instance_group.secondary_devices", Ignored),
    ("instance_group.host_policy", Ignored),
    ("default_model_filename", Read),
    ("cc_model_filenames", Refused("a version has one model file for every device")),
    ("metric_tags", Ignored),
    ("parameters", Read),
    ("model_warmup", Read),
    ("model_warmup.count", Ignored),
    ("model_warmup.batch_size", Ignored),
    ("model_warmup.inputs.input_data_file", Ignored),
    ("model_operations", Read),
    ("model_operations.op_library_filename", Refused("libraries of operators are not loaded")),
    ("model_transaction_policy", Read),
    ("model_transaction_policy.decoupled", Refused("a request has exactly one answer")),
    ("model_repository_agents", Read),
    ("model_repository_agents.agents", Refused("plug-ins for the files of models are not loaded")),
    ("response_cache", Read),
    ("response_cache.enable", Ignored),
    ("model_metrics", Ignored),
];

/// What is said of a field, or of the nearest message round it.
pub(super) fn outcome(path: &str) -> Option<Outcome> {
    let mut path = path;
    loop {
        if let Some((_, outcome)) = FIELDS.iter().find(|(known, _)| *known == path) {
            return Some(*outcome);
        }
        path = path.rsplit_once('.')?.0;
    }
}

/// Goes through all fields that are set: refused ones become errors, ignored ones are named.
pub(super) fn visit(
    message: &DynamicMessage,
    errors: &mut ConfigErrors,
    ignored: &mut BTreeSet<String>,
) {
    let mut refused = BTreeSet::new();
    walk(message, "", &mut |path, outcome| match outcome {
        Read => {}
        Ignored => drop(ignored.insert(path.to_owned())),
        Refused(reason) => drop(refused.insert((path.to_owned(), reason))),
    });
    for (path, reason) in refused {
        errors.push(&path, format!("is not supported: {reason}"));
    }
}

/// Tells of every field that is set; what is refused or ignored is not looked into.
fn walk(message: &DynamicMessage, above: &str, tell: &mut impl FnMut(&str, Outcome)) {
    for (field, value) in message.fields() {
        let path = match above {
            "" => field.name().to_owned(),
            above => format!("{above}.{}", field.name()),
        };
        let outcome = outcome(&path).unwrap_or(Ignored);
        tell(&path, outcome);
        if outcome != Read {
            continue;
        }
        match value {
            Value::Message(inner) => walk(inner, &path, tell),
            Value::List(values) => {
                for inner in values.iter().filter_map(Value::as_message) {
                    walk(inner, &path, tell);
                }
            }
            Value::Map(values) => {
                // The order of the entries is not seen: what is told is put in order.
                for inner in values.values().filter_map(Value::as_message) {
                    walk(inner, &path, tell);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::{Kind, MessageDescriptor};

    use super::super::text;
    use super::*;

    fn paths(message: &MessageDescriptor, above: &str, all: &mut BTreeSet<String>) {
        for field in message.fields() {
            let path = match above {
                "" => field.name().to_owned(),
                above => format!("{above}.{}", field.name()),
            };
            let kind = field.kind();
            let inner = match &kind {
                Kind::Message(entry) if field.is_map() => {
                    match entry.map_entry_value_field().kind() {
                        Kind::Message(value) => Some(value),
                        _ => None,
                    }
                }
                Kind::Message(inner) => Some(inner.clone()),
                _ => None,
            };
            if let Some(inner) = inner {
                paths(&inner, &path, all);
            }
            all.insert(path);
        }
    }

    #[test]
    fn every_field_of_the_schema_has_an_outcome_and_every_outcome_a_field() {
        let mut all = BTreeSet::new();
        paths(&text::schema().unwrap(), "", &mut all);
        assert!(all.len() > 100, "{}", all.len());
        for path in &all {
            assert!(outcome(path).is_some(), "{path}");
        }
        for (path, _) in FIELDS {
            assert!(all.contains(*path), "{path}");
        }
    }
}
