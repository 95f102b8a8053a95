//! Messages as JSON: the protocol's field names, numbers as numbers, empty fields included.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::failure::Failure;
use crate::pb;

static DESCRIPTORS: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).ok());

/// `message`, whose name in the protocol is `name`, as a response.
///
/// # Errors
/// 500 for a name that the protocol does not have, which is a fault of this room.
pub(super) fn response(name: &str, message: &impl Message) -> Result<Response, Failure> {
    let json = json(name, message).ok_or_else(|| {
        let text = format!("{name} could not be written as JSON");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    let mut response = Response::new(Body::from(json));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// `message` as JSON; `None` for a name that the protocol does not have.
fn json(name: &str, message: &impl Message) -> Option<Vec<u8>> {
    let descriptor = DESCRIPTORS.as_ref()?.get_message_by_name(name)?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut serializer = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut serializer, &options).ok()?;
    Some(serializer.into_inner())
}
