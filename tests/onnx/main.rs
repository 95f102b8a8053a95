//! The server on the real ONNX Runtime: signatures, values, batches and faults of real models.
//!
//! The library comes from `make build`; without it every test here fails and says so.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;
mod process;

mod batch_equals_single;
mod binding;
mod faults;
mod files;
mod independence;
mod integrity;
mod leaving;
mod own_rows;
mod pbtxt;
mod profile;
mod providers;
mod ragged;
mod spec;
mod strings;
mod trial;
mod typed;
mod values;
