//! Health, readiness and liveness agree, before, while and after models load.

use onnxd::pb::{ModelReadyRequest, ServerLiveRequest, ServerReadyRequest};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::control::{load, unload};
use crate::harness::{TestServer, request};
use crate::scripted::{Control, ScriptedLoader};

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn nothing_serves_before_it_is_loaded() {
    let loading = Control::default();
    let loader = ScriptedLoader::held_by(loading.clone());
    let server = TestServer::start_with(&[], &["echo"], loader).await;
    let mut health = HealthClient::new(server.channel().await);
    let mut client = server.client().await;
    let mut watch = health.watch(named("echo")).await.unwrap().into_inner();
    let mut whole = health.watch(named("")).await.unwrap().into_inner();
    let mut next = async || watch.message().await.unwrap().unwrap().status();
    // The model may not have been listed yet when the watch began.
    let mut first = next().await;
    if first == ServingStatus::ServiceUnknown {
        first = next().await;
    }
    assert_eq!(first, ServingStatus::NotServing);
    assert_eq!(whole.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().get_ref().live);
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().get_ref().ready);
    let status = client.model_infer(request("echo", &[1.0])).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "model `echo` is not ready: still loading")
    );
    // Whether a name is there is not known before all were tried.
    let status = client.model_infer(request("absent", &[1.0])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());

    loading.open();
    assert_eq!(next().await, ServingStatus::Serving);
    assert_eq!(whole.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().get_ref().ready);
    let ready = ModelReadyRequest { name: "echo".into(), version: String::new() };
    assert!(client.model_ready(ready).await.unwrap().get_ref().ready);
    assert!(client.model_infer(request("echo", &[1.0])).await.is_ok());
    let status = client.model_infer(request("absent", &[1.0])).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    let stopping = server.shut_down();
    assert_eq!(whole.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((whole, watch, health, client));
    assert!(stopping.await.unwrap().unwrap().complete);
}

#[tokio::test]
async fn unknown_names_are_not_found_and_watched_in_patience() {
    let server = TestServer::start(&[]).await;
    let mut health = HealthClient::new(server.channel().await);
    let status = health.check(named("absent")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let mut watch = health.watch(named("absent")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let serving = health.check(named("inference.GRPCInferenceService")).await.unwrap();
    assert_eq!(serving.get_ref().status(), ServingStatus::Serving);
    let unknown = ModelReadyRequest { name: "absent".into(), version: String::new() };
    assert!(!server.client().await.model_ready(unknown).await.unwrap().get_ref().ready);
    drop((watch, health));
    server.finish().await;
}

#[tokio::test]
async fn a_model_that_fails_does_not_keep_the_others_from_serving() {
    let names = ["broken", "echo"];
    let server = TestServer::start_with(&[], &names, ScriptedLoader::default()).await;
    server.loaded().await;
    let mut client = server.client().await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().get_ref().ready);
    assert!(client.model_infer(request("echo", &[1.0])).await.is_ok());
    let status = client.model_infer(request("broken", &[1.0])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!status.message().contains("empty"), "{}", status.message());
    let mut health = HealthClient::new(server.channel().await);
    let broken = health.check(named("broken")).await.unwrap();
    assert_eq!(broken.get_ref().status(), ServingStatus::NotServing);
    drop((client, health));
    server.finish().await;
}

#[tokio::test]
async fn two_hundred_watchers_hear_the_newest_state_whether_all_read_or_not() {
    let settings = [("model_control", "explicit"), ("load_models", "echo")];
    let server =
        TestServer::start_with(&settings, &["echo", "gate"], ScriptedLoader::default()).await;
    server.loaded().await;
    let (mut health, mut operator) =
        (HealthClient::new(server.channel().await), server.operator().await);
    let mut watchers = Vec::new();
    for _ in 0..200 {
        let mut watch = health.watch(named("gate")).await.unwrap().into_inner();
        let first = watch.message().await.unwrap().unwrap().status();
        assert_eq!(first, ServingStatus::NotServing);
        watchers.push(watch);
    }
    // Nobody reads meanwhile.
    for _ in 0..20 {
        load(&mut operator, "gate").await.unwrap();
        unload(&mut operator, "gate").await.unwrap();
    }
    load(&mut operator, "gate").await.unwrap();
    for watch in &mut watchers {
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    }
    drop((health, operator));
    let stopping = server.shut_down();
    for mut watch in watchers {
        let (mut last, mut heard) = (ServingStatus::Serving, 0);
        while let Ok(Some(state)) = watch.message().await {
            (last, heard) = (state.status(), heard + 1);
        }
        assert!(last == ServingStatus::NotServing && heard <= 42, "{last:?} after {heard}");
    }
    assert!(stopping.await.unwrap().unwrap().complete);
}
