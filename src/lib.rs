//! onnxd.
pub mod batcher;
pub mod config;
pub mod deadline;
pub mod error;
pub mod grpc;
pub mod job;
pub mod model;
pub mod onnx;
pub mod pb;
pub mod repository;
pub mod request;
pub mod runtime;
pub mod statistics;
pub mod telemetry;
pub mod tensor;
pub mod worker;
