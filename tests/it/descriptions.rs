//! Metadata, configuration, statistics, reflection, and the calls that are refused with a reason.

use onnxd::pb::repository_index_response::ModelIndex;
use onnxd::pb::{
    ModelConfigRequest, ModelMetadataRequest, ModelStatisticsRequest, RepositoryIndexRequest,
    RepositoryModelLoadRequest, ServerMetadataRequest, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusRequest,
};
use tonic::Code;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{TestServer, request};
use crate::scripted::ScriptedLoader;

#[tokio::test]
async fn a_model_describes_itself() {
    let server = TestServer::start(&[("max_batch_size", "16")]).await;
    let mut client = server.client().await;
    let message = ModelMetadataRequest { name: "echo".into(), version: String::new() };
    let metadata = client.model_metadata(message).await.unwrap().into_inner();
    assert_eq!(
        (metadata.platform.as_str(), metadata.versions),
        ("onnxruntime_onnx", vec!["1".to_owned()])
    );
    assert_eq!(metadata.inputs[0].shape, [-1, -1]);
    let message = ModelConfigRequest { name: "echo".into(), version: "1".into() };
    let config = client.model_config(message).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.max_batch_size, config.backend.as_str()), (16, "onnxruntime"));
    assert_eq!(config.input[0].dims, [-1]);
    assert_eq!(config.instance_group[0].count, 1);
    let server_metadata =
        client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server_metadata.name, "onnxd");
    assert!(server_metadata.extensions.contains(&"statistics".to_owned()));
    server.finish().await;
}

#[tokio::test]
async fn statistics_count_rows_runs_and_failures() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    client.model_infer(request("echo", &[1.0, 2.0, 3.0])).await.unwrap();
    let mut wrong = request("echo", &[1.0]);
    wrong.inputs[0].shape = vec![1];
    client.model_infer(wrong).await.unwrap_err();
    let message = ModelStatisticsRequest { name: "echo".into(), version: String::new() };
    let all = client.model_statistics(message).await.unwrap().into_inner().model_stats;
    let times = all[0].inference_stats.as_ref().unwrap();
    assert_eq!((all[0].inference_count, all[0].execution_count), (3, 1));
    assert_eq!((times.success.unwrap().count, times.fail.unwrap().count), (1, 1));
    assert!(all[0].last_inference > 1_600_000_000_000);
    let every = ModelStatisticsRequest::default();
    let every = client.model_statistics(every).await.unwrap().into_inner().model_stats;
    assert_eq!(every.len(), 4);
    let absent = ModelStatisticsRequest { name: "absent".into(), version: String::new() };
    assert_eq!(client.model_statistics(absent).await.unwrap_err().code(), Code::NotFound);
    server.finish().await;
}

#[tokio::test]
async fn the_index_lists_states_and_keeps_reasons_to_itself() {
    let loader = ScriptedLoader::default();
    let server = TestServer::start_with(&[], &["broken", "echo"], loader).await;
    server.loaded().await;
    let mut client = server.client().await;
    let mut index = async |ready| {
        let request = RepositoryIndexRequest { repository_name: String::new(), ready };
        let models = client.repository_index(request).await.unwrap().into_inner().models;
        let line = |model: ModelIndex| (model.name, model.version, model.state, model.reason);
        models.into_iter().map(line).collect::<Vec<_>>()
    };
    let line = |name: &str, state: &str| {
        (name.to_owned(), "1".to_owned(), state.to_owned(), String::new())
    };
    assert_eq!(index(false).await, [line("broken", "UNAVAILABLE"), line("echo", "READY")]);
    assert_eq!(index(true).await, [line("echo", "READY")]);
    server.finish().await;
}

#[tokio::test]
async fn what_is_not_served_says_why() {
    let server = TestServer::start(&[]).await;
    let mut client = server.client().await;
    let register = SystemSharedMemoryRegisterRequest::default();
    let status = client.system_shared_memory_register(register).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("Unix socket"), "{}", status.message());
    let load = RepositoryModelLoadRequest::default();
    let status = client.repository_model_load(load).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let regions = SystemSharedMemoryStatusRequest::default();
    let regions = client.system_shared_memory_status(regions).await.unwrap().into_inner();
    assert!(regions.regions.is_empty());
    server.finish().await;
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let server = TestServer::start(&[]).await;
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let message = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let answers = client.server_reflection_info(tokio_stream::iter([message])).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(services)) =
        answer.message_response
    else {
        panic!("no list: {answer:?}");
    };
    let names: Vec<String> = services.service.into_iter().map(|each| each.name).collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let message =
        v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let channel = server.channel().await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = client.server_reflection_info(tokio_stream::iter([message])).await;
    assert!(answers.unwrap().into_inner().message().await.unwrap().is_some());
    drop(client);
    server.finish().await;
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let server = TestServer::start(&[("reflection", "false")]).await;
    let channel = server.channel().await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let message = v1::ServerReflectionRequest::default();
    let refused = client.server_reflection_info(tokio_stream::iter([message])).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    drop(client);
    server.finish().await;
}
