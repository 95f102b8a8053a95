//! Stub.
pub mod version_policy;
