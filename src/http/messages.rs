//! Messages as JSON, by their descriptors.
//!
//! Names are those of the fields in `proto/`, numbers of 64 bits stay numbers, fields at their
//! default are written: that is what clients of the REST form read, not the usual JSON of
//! protobuf. So a field that is added to a message needs no line here.

use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

use super::Failure;
use crate::pb;

/// Descriptors of all messages.
#[derive(Debug)]
pub(super) struct Messages(DescriptorPool);

impl Messages {
    /// # Errors
    /// Descriptors that cannot be read, which is a fault of the build.
    pub(super) fn read() -> Result<Self, DescriptorError> {
        DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).map(Self)
    }

    /// The JSON of `message`, whose name in the package is `name`.
    ///
    /// # Errors
    /// A name that no message has, which is a fault of the build.
    pub(super) fn json(&self, name: &str, message: &impl Message) -> Result<Value, Failure> {
        let Some(descriptor) = self.0.get_message_by_name(&format!("inference.{name}")) else {
            return Err(Failure::internal(&format!("no message is called {name}")));
        };
        let bytes = message.encode_to_vec();
        let message = DynamicMessage::decode(descriptor, bytes.as_slice())
            .map_err(|error| Failure::internal(&error))?;
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false)
            .skip_default_fields(false);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| Failure::internal(&error))
    }
}
