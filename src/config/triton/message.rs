//! Typed reads of a message that is known only by its descriptor.

use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, Value};
use std::borrow::Cow;

/// A message whose fields are read by name. What is not set reads as the format's default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a>(pub(super) &'a DynamicMessage);

impl<'a> Node<'a> {
    fn value(self, field: &str) -> Option<&'a Value> {
        debug_assert!(self.0.descriptor().get_field_by_name(field).is_some(), "no field {field}");
        if !self.0.has_field_by_name(field) {
            return None;
        }
        match self.0.get_field_by_name(field) {
            Some(Cow::Borrowed(value)) => Some(value),
            _ => None,
        }
    }

    /// Text, empty if it is not set.
    pub(super) fn text(self, field: &str) -> &'a str {
        self.value(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A flag, `false` if it is not set.
    pub(super) fn flag(self, field: &str) -> bool {
        self.value(field).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A number of any width, 0 if it is not set.
    pub(super) fn number(self, field: &str) -> i128 {
        self.value(field).map_or(0, number)
    }

    /// A list of numbers.
    pub(super) fn numbers(self, field: &str) -> Vec<i64> {
        let values = self.value(field).and_then(Value::as_list).unwrap_or_default();
        values.iter().filter_map(|value| i64::try_from(number(value)).ok()).collect()
    }

    /// The word for the value of an enumeration, or its number.
    pub(super) fn word(self, field: &str) -> String {
        let number = self.value(field).and_then(Value::as_enum_number).unwrap_or_default();
        let kind = self.0.descriptor().get_field_by_name(field).map(|field| field.kind());
        let Some(Kind::Enum(words)) = kind else { return number.to_string() };
        words.get_value(number).map_or_else(|| number.to_string(), |it| it.name().to_owned())
    }

    /// A message, if it is set.
    pub(super) fn child(self, field: &str) -> Option<Self> {
        self.value(field).and_then(Value::as_message).map(Node)
    }

    /// A list of messages.
    pub(super) fn children(self, field: &str) -> Vec<Self> {
        let values = self.value(field).and_then(Value::as_list).unwrap_or_default();
        values.iter().filter_map(Value::as_message).map(Node).collect()
    }

    /// A map, by its keys in order.
    pub(super) fn entries(self, field: &str) -> Vec<(&'a str, &'a Value)> {
        let Some(map) = self.value(field).and_then(Value::as_map) else { return Vec::new() };
        let entry = |(key, value): (&'a MapKey, &'a Value)| Some((key.as_str()?, value));
        let mut entries: Vec<_> = map.iter().filter_map(entry).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries
    }
}

fn number(value: &Value) -> i128 {
    match value {
        Value::I32(number) | Value::EnumNumber(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::U64(number) => (*number).into(),
        _ => 0,
    }
}
