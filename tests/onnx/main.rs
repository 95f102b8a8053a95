//! The server on the real ONNX Runtime: signatures, values, batches and faults of real models.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

mod batch_equals_single;
mod faults;
mod providers;
mod spec;
mod values;
