//! Providers that this machine lacks, fallbacks, and several instances.

use onnxd::repository::State;
use tokio::task::JoinSet;

use crate::harness::{RealServer, floats, generated, output, repository, request};

fn has_gpu() -> bool {
    std::path::Path::new("/dev/nvidia0").exists()
}

#[tokio::test]
async fn a_missing_gpu_is_an_error_unless_a_fallback_is_named() {
    assert!(!has_gpu(), "this test is about a machine without a GPU");
    let (strict, named) = (generated().join("two_inputs"), generated().join("identity_f32"));
    let models = repository(&[
        (strict.as_path(), "providers = \"cuda\""),
        (named.as_path(), "providers = [\"cuda\", \"cpu\"]"),
    ]);
    let server = RealServer::start(models.path(), &[]).await;
    let index = server.repository.index();
    let state = |name: &str| {
        let entry = index.iter().find(|entry| entry.key.name.as_str() == name).unwrap();
        entry.state.clone()
    };
    let State::Failed(reason) = state("two_inputs") else { unreachable!("it has no fallback") };
    for part in ["cuda", "/dev/nvidia0", "found 0"] {
        assert!(reason.contains(part), "{part} not in {reason}");
    }
    let State::Ready(served) = state("identity_f32") else { unreachable!("it has a fallback") };
    assert_eq!(served.provider, "cpu");
    server.finish().await;
}

#[tokio::test]
async fn instances_share_the_work() {
    let source = generated().join("mlp_tiny");
    let models = repository(&[(source.as_path(), "instances = 2\nbatching = \"off\"")]);
    let mut server = RealServer::start(models.path(), &[]).await;
    let spec = server.repository.resolve("mlp_tiny", None).unwrap().spec.clone();
    let name = spec.inputs[0].name.to_string();
    let row = |caller: u8| vec![f32::from(caller) / 16.0; 64];
    let mut callers = JoinSet::new();
    for caller in 0..16_u8 {
        let mut client = server.client.clone();
        let message =
            request("mlp_tiny", vec![(&name, "FP32", &[1, 64], floats(&row(caller % 4)))]);
        callers.spawn(async move {
            (caller % 4, output(client.model_infer(message).await.unwrap().get_ref(), 0))
        });
    }
    let answers = callers.join_all().await;
    for (kind, values) in &answers {
        let first = answers.iter().find(|(other, _)| other == kind).unwrap();
        assert_eq!(&first.1, values);
    }
    assert_eq!(server.statistics("mlp_tiny").await.execution_count, 16);
    assert_eq!(server.repository.resolve("mlp_tiny", None).unwrap().instances(), 2);
    server.finish().await;
}
