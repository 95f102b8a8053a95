//! Signatures and axes as they are read from real files, and models that cannot be served.

use onnxd::repository::State;

use crate::harness::{RealServer, generated, shipped};

/// Axes of all inputs and outputs of a served model.
fn axes(server: &RealServer, model: &str) -> Vec<Option<usize>> {
    let spec = &server.repository.resolve(model, None).unwrap().spec;
    spec.inputs.iter().chain(&spec.outputs).map(|tensor| tensor.batch_axis).collect()
}

#[tokio::test]
async fn shipped_models_batch_on_their_own_axes() {
    let server = RealServer::start(&shipped(), &[]).await;
    assert_eq!(axes(&server, "magika"), [Some(0), Some(0)]);
    assert_eq!(axes(&server, "ppocr-angle"), [Some(0), Some(0)]);
    // input, state, sr; output, stateN
    assert_eq!(axes(&server, "silero-vad"), [Some(0), Some(1), None, Some(0), Some(1)]);
    let spec = server.repository.resolve("magika", None).unwrap().spec.clone();
    assert_eq!(spec.inputs[0].to_string(), "bytes INT32[unk__214,2048]");
    server.finish().await;
}

#[tokio::test]
async fn generated_models_batch_exactly_where_it_is_safe() {
    let server = RealServer::start(&generated(), &[]).await;
    assert_eq!(axes(&server, "axis1_state"), [Some(0), Some(1), None, Some(0), Some(1)]);
    for model in ["identity_string", "two_inputs", "dynamic_inner", "value_rows", "mlp_tiny"] {
        assert!(axes(&server, model).iter().all(|axis| *axis == Some(0)), "{model}");
    }
    for model in ["batch_sum", "mixes_rows", "no_batch", "fixed_one", "fixed_four", "scalar_f32"] {
        assert!(axes(&server, model).iter().all(Option::is_none), "{model}");
    }
    server.finish().await;
}

#[tokio::test]
async fn what_cannot_be_served_says_why_and_the_rest_serves() {
    let server = RealServer::start(&generated(), &[]).await;
    let reason = |name: &str| {
        let index = server.repository.index();
        let entry = index.into_iter().find(|entry| entry.key.name.as_str() == name).unwrap();
        match entry.state {
            State::Failed(reason) => reason,
            other => unreachable!("{name} is {other:?}"),
        }
    };
    assert!(reason("broken").contains("Protobuf"), "{}", reason("broken"));
    let sequence = reason("sequence_output");
    assert!(sequence.contains("only tensors can be served"), "{sequence}");
    assert!(server.repository.is_ready());
    server.finish().await;
}
