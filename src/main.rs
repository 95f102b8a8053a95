//! The `onnxd` process.
fn main() {}
