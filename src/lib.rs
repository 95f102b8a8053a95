//! onnxd.
