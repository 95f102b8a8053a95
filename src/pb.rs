//! Generated code: the messages of `proto/`, the client stubs and the server trait.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    missing_debug_implementations,
    clippy::use_self,
    clippy::allow_attributes,
    clippy::doc_overindented_list_items,
    reason = "generated from proto/, where the comments are"
)]

tonic::include_proto!("inference");

/// The server side, which decodes with bounds.
pub mod server {
    include!(concat!(env!("OUT_DIR"), "/server/inference.rs"));
}

/// Descriptors of all messages and services, for reflection and for reading text formats.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/inference_descriptor.bin"));
