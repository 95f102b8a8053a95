//! The whole server over real sockets with scripted models: no ONNX Runtime, no sleeps.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;
mod scripted;

mod access;
mod admission;
mod batching;
mod bench;
mod cache;
mod cancellation;
mod certificates;
mod control;
mod costs;
mod deadline;
mod descriptions;
mod failure;
mod fuzz_regression;
mod hang;
mod health;
mod health_command;
mod infer;
mod layering;
mod limits;
mod observability;
mod parting;
mod ports;
mod profile;
mod promises;
mod rest;
mod rest_refusals;
mod scheduling;
mod shutdown;
mod status;
mod stream_infer;
mod supply_chain;
mod tls;
mod transport;
mod validator;
