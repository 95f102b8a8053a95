//! What a `model.toml` says of single tensors: where the rows lie, how lengths are made equal, what a
//! usual request looks like, names of values.

use super::ModelConfig;
use crate::config::{ConfigErrors, scalar};
use crate::model::axes::AxisOverride;
use crate::model::ragged::PadRule;

impl ModelConfig {
    pub(super) fn read_tensors(
        &mut self,
        kind: &str,
        tensors: &toml::Table,
        errors: &mut ConfigErrors,
    ) {
        for (name, rules) in tensors {
            let Some(rules) = rules.as_table() else {
                errors.push(&format!("{kind}.{name}"), "expected a table".to_owned());
                continue;
            };
            for (word, value) in rules {
                if let Some(problem) = self.set_rule(kind, name, word, value) {
                    errors.push(&format!("{kind}.{name}.{word}"), problem.to_owned());
                }
            }
        }
    }

    /// Sets one rule of one tensor; gives what is wrong with it.
    fn set_rule(
        &mut self,
        kind: &str,
        name: &str,
        word: &str,
        value: &toml::Value,
    ) -> Option<&'static str> {
        match (kind, word, value) {
            (_, "batch_axis", toml::Value::Integer(axis)) => match usize::try_from(*axis) {
                Ok(axis) => return self.set_axis(name, AxisOverride::Axis(axis)),
                Err(_) => return Some("expected a number of at least 0"),
            },
            (_, "shared", toml::Value::Boolean(true)) => {
                return self.set_axis(name, AxisOverride::Shared);
            }
            ("inputs", "example_shape", toml::Value::Array(dims)) => {
                return self.set_example(name, dims);
            }
            ("inputs", "example_value", value) if is_element(value) => {
                let text = scalar(value).unwrap_or_default();
                self.example_values.insert(name.to_owned(), text);
            }
            ("inputs", "pad", toml::Value::Table(rule)) => return self.set_pad(name, rule),
            ("outputs", "cut", toml::Value::Table(rule)) => return self.set_cut(name, rule),
            ("outputs", "labels", toml::Value::String(file)) => {
                self.label_files.insert(name.to_owned(), file.clone());
            }
            _ => {
                return Some(
                    "expected batch_axis = N, shared = true, for an input \
                     example_shape = [N, …], example_value = VALUE or \
                     pad = { axis = N, value = VALUE }, for an output cut = { axis = N } or \
                     labels = \"FILE\"",
                );
            }
        }
        None
    }

    fn set_axis(&mut self, name: &str, rule: AxisOverride) -> Option<&'static str> {
        let before = self.axes.insert(name.to_owned(), rule);
        before.is_some().then_some("batch_axis and shared exclude each other")
    }

    fn set_example(&mut self, name: &str, dims: &[toml::Value]) -> Option<&'static str> {
        let dims: Option<Vec<i64>> =
            dims.iter().map(|dim| dim.as_integer().filter(|dim| *dim > 0)).collect();
        let Some(dims) = dims else { return Some("expected positive whole numbers") };
        self.examples.insert(name.to_owned(), dims);
        None
    }

    fn set_pad(&mut self, name: &str, rule: &toml::Table) -> Option<&'static str> {
        let is_known = |key: &String| ["axis", "value"].contains(&key.as_str());
        let value = rule.get("value");
        let (Some(axis), true, true) =
            (axis_of(rule), rule.keys().all(is_known), value.is_none_or(is_element))
        else {
            return Some(
                "expected { axis = N, value = VALUE }; without a value it is 0, false or \"\"",
            );
        };
        let value = value.and_then(|value| scalar(value).ok());
        self.ragged.pads.insert(name.to_owned(), PadRule { axis, value });
        None
    }

    fn set_cut(&mut self, name: &str, rule: &toml::Table) -> Option<&'static str> {
        let (Some(axis), 1) = (axis_of(rule), rule.len()) else {
            return Some("expected { axis = N }");
        };
        self.ragged.cuts.insert(name.to_owned(), axis);
        None
    }
}

/// The axis that a rule names.
fn axis_of(rule: &toml::Table) -> Option<usize> {
    rule.get("axis").and_then(toml::Value::as_integer).and_then(|axis| usize::try_from(axis).ok())
}

/// Whether a value can be an element of a tensor; which one, the model's datatype says.
fn is_element(value: &toml::Value) -> bool {
    matches!(
        value,
        toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::String(_)
    )
}
